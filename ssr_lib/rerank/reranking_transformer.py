"""Re-ranking transformer: self-attention over the features of two pictures says if they show one landmark.

x: the global descriptor, l_i: the local descriptors of a picture, p_i: their points; x', l'_j, p'_j: of the other.

    t = [ CLS; |Wx| + a; |Vl_i| + φ(p_i) + b; SEP; the same of x', l'_j, p'_j with a', b' ]     one sequence of tokens
    z = w · T(t)_CLS         trained by binary cross-entropy: do the two show one landmark?
    score = z,               or with a weight  cos(x, x') + weight · σ(z)

|·|: at length 1. φ: sines and cosines of the point; a, a', b, b', CLS, SEP: learned embeddings of the segments.
Source: Tan, Yuan & Ordonez, Instance-level image retrieval using reranking transformers, ICCV 2021, section 3:
reference [23] of the paper. It has 500 DELG features from seven scales, which are embedded too, and six layers that
start at random and normalise behind each layer. Here there are one scale, 100 features, V, which makes them short, and
two layers that normalise before each, the first of which starts by comparing tokens: few steps teach nothing from a
random start. φ starts at 0, for the source's code leaves it out; its score is z alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ssr_lib.backbones import seeded
from ssr_lib.local import LocalFeatures
from ssr_lib.rerank import local_ransac
from ssr_lib.rerank._ranking import Ranking, Reranking
from ssr_lib.rerank._shortlist import learn_pairs, reorder, training_pairs
from ssr_lib.store import Maps

NEEDS = "maps"
WIDTH, LAYERS, HEADS = 64, 2, 4  # 128, 6 and 4 in the source, whose feed-forward layers are 8 times as wide
Tokens = tuple[Tensor, Tensor, Tensor, Tensor]  # x (B, G), l (B, n, D), p (B, n, 2), whether it is absent (B, n)


class Transformer(nn.Module):
    """The tokens of two pictures → z (B,). `features`: how `local_ransac.prepare` makes the local ones."""

    def __init__(self, dims: int, global_dims: int, features: dict, seed: int):
        super().__init__()
        self.features = features
        with seeded(seed, "transformer"):
            self.remap = nn.Linear(global_dims, WIDTH)
            self.shorten = nn.Linear(dims, WIDTH, bias=False)
            self.score = nn.Linear(WIDTH, 1)
            self.segments = nn.Parameter(0.1 * torch.randn(6, WIDTH))  # CLS, SEP, a, b, a', b'
            how = {"dropout": 0.0, "batch_first": True, "norm_first": True}
            made = [nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, **how) for _ in range(LAYERS)]
        self.layers = nn.ModuleList(made)
        nn.init.eye_(self.shorten.weight)  # the first numbers, which are the largest components after a PCA
        with torch.no_grad():  # queries and keys alike: a token attends to those that are like it
            self.layers[0].self_attn.in_proj_weight[: 2 * WIDTH] = torch.eye(WIDTH).repeat(2, 1)
        self.reach = nn.Parameter(torch.zeros(1))  # of φ

    def embed(self, p: Tensor) -> Tensor:
        """φ (B, n, WIDTH), of unit length, of points in pixels: waves of 64 to 2,048 pixels."""
        waves = 2 * math.pi / torch.logspace(6, 11, WIDTH // 4, base=2, device=p.device)
        angles = (p[..., None] * waves).flatten(2)  # (B, n, WIDTH / 2)
        return F.normalize(torch.cat([angles.sin(), angles.cos()], dim=2), dim=2)

    def side(self, picture: Tokens, segments: Tensor) -> Tensor:
        x, rows, points, _ = picture
        x = F.normalize(self.remap(x), dim=1) + segments[0]
        rows = F.normalize(self.shorten(rows), dim=2) + self.reach * self.embed(points) + segments[1]
        return torch.cat([x[:, None], rows], dim=1)

    def forward(self, query: Tokens, image: Tokens) -> Tensor:
        cls, sep = (each.expand(len(image[0]), 1, -1) for each in self.segments[:2])
        t = torch.cat([cls, self.side(query, self.segments[2:4]), sep, self.side(image, self.segments[4:])], dim=1)
        never = torch.zeros(len(t), 2, dtype=torch.bool, device=t.device)
        absent = torch.cat([never, query[3], never, image[3]], dim=1)
        for layer in self.layers:
            t = layer(t, src_key_padding_mask=absent)
        return self.score(t[:, 0])[:, 0]


def stack(own: Sequence[LocalFeatures], x: np.ndarray) -> Tokens:
    """Local features of B pictures, filled up with absent ones to the most that one has, and global descriptors."""
    rows = pad_sequence([torch.from_numpy(features.descriptors) for features in own], batch_first=True)
    points = pad_sequence([torch.from_numpy(features.points) for features in own], batch_first=True)
    absent = torch.arange(rows.shape[1]) >= torch.tensor([len(features) for features in own])[:, None]
    return torch.from_numpy(x), rows, points, absent


def fit(
    maps: Maps,
    labels: Sequence,
    descriptors: np.ndarray,
    *,
    features: str = "how",
    learned=None,
    count: int = 100,
    steps: int = 300,
    batch: int = 16,
    rate: float = 1e-3,
    shortlist: int = 100,
    seed: int = 0,
) -> Transformer:
    """What training pictures teach: maps, a label for each, and global descriptors (N, G) float32.

    `features`, `learned`, `count`: as for `local_ransac.prepare`; `batch`: as for `_shortlist.training_pairs`.
    """
    how = {"features": features, "learned": learned, "count": count}
    own = local_ransac.prepare(maps, **how)
    model = Transformer(own[0].descriptors.shape[1], descriptors.shape[1], how, seed)

    def logits(*pair: np.ndarray) -> Tensor:
        return model(*(stack([own[i] for i in ids], descriptors[ids]) for ids in pair))

    learn_pairs(model, logits, training_pairs(descriptors, labels, steps, batch, shortlist, seed), rate)
    return model


def prepare(database: Maps, *, learned: Transformer, **search) -> list[LocalFeatures]:
    """The local features of a database; what else `rerank` takes concerns the search and is not used here."""
    return local_ransac.prepare(database, **learned.features)


@torch.no_grad()
def rerank(
    queries: Maps,
    database: Maps,
    first: Ranking,
    *,
    learned: Transformer,
    descriptors: tuple[np.ndarray, np.ndarray],
    prepared: list[LocalFeatures] | None = None,
    shortlist: int | None = None,
    weight: float | None = None,
) -> Reranking:
    """Re-order the first `shortlist` images (400 or N unless given) by the score; without a `weight` it is z.

    `descriptors`: global ones of queries (Q, G) and database (N, G), float32. `learned`: what `fit` returned.
    Ties and what is behind the shortlist stand as in the first ranking. `cost`: see `_shortlist.reorder`.
    """
    stored = prepare(database, learned=learned) if prepared is None else prepared

    def score(i: int, own: LocalFeatures, ids: np.ndarray, before: np.ndarray) -> np.ndarray:
        query = stack([own] * len(ids), descriptors[0][[i] * len(ids)])
        z = learned(query, stack([stored[j] for j in ids], descriptors[1][ids])).double()
        return z.numpy() if weight is None else before + weight * z.sigmoid().numpy()

    each = np.mean([image.nbytes for image in stored]) + descriptors[1].nbytes / len(stored)
    return reorder(first, shortlist, partial(prepare, queries, learned=learned), stored, score, each)
