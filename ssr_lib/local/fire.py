"""FIRe's super-features as local features: learned templates gather the places of a map that fit them.

s_i: the i-th super-feature of a picture, from the iterative attention of `heads.lit`; ŝ_i: divided by its length.

    M = { i : ŝ_i and ŝ'_i are nearest to each other in two pictures of a landmark, ‖ŝ_i − ŝ'_i‖ ≤ 0.9 of the second }
    L = 0.02 Σ_{i ∈ M} ( ‖ŝ_i − ŝ'_i‖² + Σ_n [1.1 − ‖ŝ_i − n̂_i‖]₊² ) + 0.1 mean_{i ≠ j} cos(a_i, a_j)
    weight of i: ‖s_i‖,        descriptor of i: L2 of P (s_i − m)

n: pictures of other landmarks; a_i: the attention of i over the places. Source: Weinzaepfel et al., Learning
super-features for image retrieval, ICLR 2022, sections 3.1 and 3.2: reference [22] of the paper. What differs: the
network is frozen, pictures are of one scale, negatives are those of the batch, a_i is that of the finished s_i, in the
paper of the last iteration. Start: templates by k-means, keys and values by PCA; in the paper at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssr_lib.heads.lit import Head
from ssr_lib.local import STRIDE, LocalFeatures, batches_of, grid, sample, strongest
from ssr_lib.store import Maps
from ssr_lib.train import batch_ids
from ssr_lib.whitening import Whitening, fit_pca


@dataclass(frozen=True)
class Learned:
    """What `fit` returns; `losses`: L a step."""

    head: Head
    projection: Whitening
    losses: list[float]


def make_head(raw: np.ndarray, templates: int, iterations: int, seed: int) -> Head:
    """The attention as it starts, from places (n, C) of training maps."""
    import faiss  # only where it is needed

    normed = F.layer_norm(torch.from_numpy(raw).double(), raw.shape[1:]).numpy()
    axes = fit_pca(normed)
    white = ((normed - axes.mean) @ axes.projection.T).astype(np.float32)  # (n, D)
    means = faiss.Kmeans(white.shape[1], min(templates, len(white)), seed=seed, min_points_per_centroid=1)
    means.train(white)
    count, dims = means.centroids.shape
    head = Head((raw.shape[1],) * 3, seed=seed, templates=count, iterations=iterations, dims=dims)
    with torch.no_grad():
        head.norm_places.bias.copy_(torch.from_numpy(-axes.mean))
        for layer in (head.key, head.value):
            layer.weight.copy_(torch.from_numpy(axes.projection))
        head.templates.copy_(torch.from_numpy(means.centroids))
        head.query.weight.copy_(torch.eye(dims))
        for part in head.mlp[3].parameters():
            part.zero_()
    return head


def attention(head: Head, x: Tensor, s: Tensor) -> Tensor:
    """What super-features (B, N, D) take of a map (B, C, H, W): (B, N, HW), rows of sum 1, even where nothing fits."""
    keys = head.key(head.norm_places(x.flatten(2).transpose(1, 2)))  # (B, HW, D)
    queries = head.query(head.norm_templates(s))
    shares = (queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[2])).softmax(dim=1) + 1e-8
    return shares / shares.sum(dim=2, keepdim=True)


def matched(s: Tensor, other: Tensor, ratio: float = 0.9) -> Tensor:
    """M: ids of unit super-features (N, D) of one picture that match the same of another."""
    distances = torch.cdist(s, other)
    ids = torch.arange(len(s))
    mutual = (distances.argmin(dim=1) == ids) & (distances.argmin(dim=0) == ids)
    two = distances.sort(dim=1).values[:, :2]
    return ids[mutual & (two[:, 0] <= ratio * two[:, -1])]


def super_loss(s: Tensor, classes: Tensor, margin: float = 1.1) -> Tensor:
    """The first part of L, a mean over pairs, of super-features (B, N, D); pictures 2i and 2i + 1 are a pair."""
    unit = F.normalize(s, dim=2)
    total = s.sum() * 0
    for i in range(0, len(s) - 1, 2):
        ids = matched(unit[i].detach(), unit[i + 1].detach())
        near = (unit[i, ids] - unit[i + 1, ids]).square().sum(dim=1)
        far = (unit[i, ids] - unit[classes != classes[i]][:, ids]).norm(dim=2)  # (n, |M|)
        total = total + near.sum() + F.relu(margin - far).square().sum()
    return 2 * total / len(s)


def decorrelation(a: Tensor) -> Tensor:
    """The second part of L: the mean cosine of the attentions (B, N, HW) of two templates, 0 where there is one."""
    unit = F.normalize(a, dim=2)
    count = a.shape[1]
    total = (unit @ unit.transpose(1, 2)).sum(dim=(1, 2)).mean()  # of N x N cosines, N of them 1
    return (total - count) / max(1, count * (count - 1))


def fit(
    maps: Maps,
    labels,
    *,
    dims: int = 128,
    templates: int = 64,
    iterations: int = 3,
    steps: int = 60,
    batch: int = 16,
    rate: float = 1e-4,
    place: str = "mid",
    seed: int = 0,
) -> Learned:
    """The attention, trained on maps with a label for each, and the PCA whitening of its super-features to `dims`."""
    targets = np.unique(np.asarray(labels), return_inverse=True)[1]
    head = make_head(sample(maps, place, lambda x: (x, x[:, 0]), 2**15, seed), templates, iterations, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        ids = batch_ids(step, targets, batch, seed, per_class=2)
        s = torch.zeros(len(ids), *head.templates.shape)  # (B, N, D)
        apart = 0.0
        for own, x in batches_of(maps.take(ids), place):  # pictures of one size at a time
            found = head.super_features(x)
            s = s.index_put((torch.from_numpy(own),), found)
            apart = apart + decorrelation(attention(head, x, found)) * len(own) / len(ids)
        loss = 0.02 * super_loss(s, torch.from_numpy(targets[ids])) + 0.1 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    axes = fit_pca(np.concatenate([own for _, own, _ in _all(head, maps, place)]).reshape(-1, head.width))
    return Learned(head, replace(axes, projection=axes.projection[:dims]), losses)


def extract(maps: Maps, *, learned: Learned, count: int = 400, place: str = "mid") -> list[LocalFeatures]:
    """The `count` longest super-features of each map, at most N; each lies where its attention has its centre."""
    found: dict[int, LocalFeatures] = {}
    for ids, s, points in _all(learned.head, maps, place):
        for i, rows, own in zip(ids, s, points, strict=True):
            found[int(i)] = strongest(rows, np.linalg.norm(rows, axis=1), own, count, learned.projection)
    return [found[i] for i in range(len(maps))]


@torch.no_grad()
def _all(head: Head, maps: Maps, place: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids (B,) of pictures of one size, their super-features (B, N, D) and these' centres (B, N, 2), float32."""
    for ids, x in batches_of(maps, place):
        s = head.super_features(x)
        yield ids, s.numpy(), attention(head, x, s).numpy() @ grid(*x.shape[2:], STRIDE[place])
