"""What heads share that start by PCA, regression or k-means: places of maps, k-means centres, settled batch norms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

BATCHES = 6  # of training pictures from which a head's start is computed
PLACES = 2**13  # of a batch that k-means and regressions see: all, unless pictures are large


def some_batches(batches: Iterable[tuple]) -> list[tuple[Tensor | None, Tensor, nn.Module]]:
    """The first batches of what `forward` takes."""
    return list(islice(batches, BATCHES))


def places(x: Tensor) -> Tensor:
    """Descriptors of all places of a batch of maps, (B, C, H, W) → (N, C), evenly thinned out to `PLACES`."""
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    if len(rows) > PLACES:
        rows = rows[torch.linspace(0, len(rows) - 1, PLACES, device=rows.device).long()]
    return rows


def soft_assignment(x: Tensor, count: int, seed: int, ratio=10.0, tries=1) -> tuple[Tensor, Tensor, Tensor]:
    """K-means centres (K, D) of descriptors x (N, D), and weights (K, D) and biases (K,) whose softmax assigns to them.

    The logits are −β|x − c|² without the term common to all centres, 2βc·x − β|c|². β is such that the nearest centre
    gets `ratio` times what the second gets, on average over the logarithm. `tries`: of k-means, the best counts.
    """
    import faiss  # only where it is needed

    means = faiss.Kmeans(x.shape[1], count, seed=seed, nredo=tries, min_points_per_centroid=1)
    means.train(x.float().cpu().numpy())
    centres = torch.from_numpy(means.centroids).to(x)  # (K, D)
    nearest = torch.cdist(x, centres).square().sort(dim=1).values[:, :2]
    gap = (nearest[:, -1] - nearest[:, 0]).mean()  # 0 where there is one centre, or they are equal
    beta = math.log(ratio) / gap.clamp(min=1e-6)
    return centres, 2 * beta * centres, -beta * centres.square().sum(dim=1)


def settle_norms(head: nn.Module, batches: Iterable[tuple]) -> None:
    """Give the batch norms of `head` the statistics of some batches, so that an LDA that follows sees them."""
    norms = [module for module in head.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of what they see
    head.train()
    for mid, last, project in batches:
        if len(last) > 1:  # of one picture there is no variance
            head(mid, last, project)
    head.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
