"""Learned attention query expansion: a transformer weighs the neighbours that are added to a query.

Tokens t_0 … t_k are the query and its k nearest images, each plus an embedding of its place; T(t) is what a few layers
of self-attention make of them.

    q̂ = normalise( q + Σ_i θ_i d_i ),    θ_i = cos( T(t)_0, T(t)_i )

Training minimises a contrastive loss of q̂ against images of its class and of others, plus the cross-entropy of telling
from θ_i whether neighbour i is of the query's class. Source: Gordo, Radenović & Berg, ECCV 2020, section 3: reference
[27] of the paper. Here all layers start as the identity and places at 0, so that training starts from αQE with exponent
1 (negative similarities not cut off), there are two layers of eight heads, and queries are training images; left out
are its random dropping of neighbours, its mined negatives and its use on the side of the database.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssr_lib.backbones import seeded
from ssr_lib.rerank._ranking import Ranking, Reranking, nearest, rank_again
from ssr_lib.search.prepared import Prepared, as_pair, own_ids
from ssr_lib.search.prepared import prepare as prepare_rows

NEEDS = "descriptors"
MARGIN = 0.7  # of the contrastive loss, in distances of unit vectors, as losses/contrastive.py


class Weights(nn.Module):
    """Queries (B, D) and neighbours (B, k, D) of unit length → θ (B, k)."""

    def __init__(self, dimension: int, k: int, *, layers: int = 2, heads: int = 8, seed: int = 0):
        super().__init__()
        if dimension % heads:
            raise ValueError(f"descriptors have {dimension} dimensions; wanted a multiple of the {heads} heads")
        self.places = nn.Parameter(torch.zeros(k + 1, dimension))
        with seeded(seed, "expansion"):
            made = [nn.TransformerEncoderLayer(dimension, heads, dimension, 0.0, batch_first=True, norm_first=True)
                    for _ in range(layers)]  # fmt: skip
        self.layers = nn.ModuleList(made)
        for layer in made:
            for last in (layer.self_attn.out_proj, layer.linear2):  # of each residual branch
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.sharpness = nn.Parameter(torch.tensor(5.0))  # of the cross-entropy
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def forward(self, queries: Tensor, neighbours: Tensor) -> Tensor:
        tokens = torch.cat([queries[:, None], neighbours], dim=1) + self.places  # (B, 1 + k, D)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = F.normalize(tokens, dim=2)
        return (tokens[:, 1:] * tokens[:, :1]).sum(dim=2)

    def loss(self, queries: Tensor, neighbours: Tensor, is_right: Tensor, others: Tensor, same: Tensor) -> Tensor:
        """`is_right` (B, k): neighbours of the query's class; `others` (M, D), `same` (B, M): what to compare with."""
        theta = self(queries, neighbours)
        expanded = F.normalize(queries + (theta[:, :, None] * neighbours).sum(dim=1), dim=1)
        distances = (2 - 2 * expanded @ others.T).clamp(min=1e-6).sqrt()
        loss = distances[same].mean() + F.relu(MARGIN - distances[~same]).mean()
        return loss + F.binary_cross_entropy_with_logits(self.sharpness * (theta - self.threshold), is_right.float())


def fit(
    descriptors, labels, *, k: int = 10, steps: int = 200, batch: int = 64, rate: float = 1e-4, seed: int = 0
) -> Weights:
    """The weights that training images teach: descriptors (N, D) float32, a label for each, each a query in turn."""
    x = prepare_rows(descriptors)
    everyone = torch.arange(len(x), device=x.device)
    near = nearest(x, x, k, everyone)[1]  # (N, k)
    features = x.unit()
    classes = torch.as_tensor(np.unique(labels, return_inverse=True)[1], device=x.device)
    model = Weights(features.shape[1], k, seed=seed).to(x.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randperm(len(x), generator=generator)[: 2 * batch].to(x.device)
        asked, others = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        others = torch.cat([others, _one_more(classes, asked, generator)])
        is_right = classes[near[asked]] == classes[asked, None]
        same = classes[asked, None] == classes[others]
        loss = model.loss(features[asked], features[near[asked]], is_right, features[others], same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _one_more(classes: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    """For each image a random one of its class, another where there is one: ids (B,)."""
    same = (classes[ids, None] == classes).double()
    same[torch.arange(len(ids)), ids] = 1e-9
    return torch.multinomial(same.cpu(), 1, generator=generator)[:, 0].to(ids.device)


@torch.no_grad()
def expand(q: Prepared, d: Prepared, learned: Weights, own=None) -> Prepared:
    """Expanded queries (Q, D)."""
    neighbours = d.unit(nearest(q, d, len(learned.places) - 1, own)[1].flatten()).view(len(q), -1, q.data.shape[1])
    queries = q.unit()
    theta = learned.to(q.device)(queries, neighbours)
    return prepare_rows(q.like(queries + (theta[:, :, None] * neighbours).sum(dim=1)), device=q.device)


@torch.no_grad()
def rerank(queries, database, first: Ranking | None, *, learned: Weights, prepared=None) -> Reranking:
    """The ranking of the database (N, D) by expanded queries (Q, D); `learned`: what `fit` returned."""
    q, d = as_pair(queries, database)
    own = None if first is None else own_ids(first.own, q, d)
    return rank_again(expand(q, d, learned, own), d, own)
