"""DELF: places of a map, of which those are kept that a learned attention finds telling; PCA makes them short.

f_n: the L2-normalised places of the frozen map; α: two 1 × 1 convolutions with a ReLU between and a softplus behind.

    y = W Σ_n α(f_n) f_n        trained by the cross-entropy of y against the landmark
    weight of n: α(f_n),        descriptor of n: L2 of P (f_n − m)

Source: Noh et al., Large-scale image retrieval with attentive deep local features, ICCV 2017, sections 4.1 to 4.3:
reference [5] of the paper. The sum is divided by the number of places, so that pictures of several sizes are trained
together, and f_n is scaled by √C. What is left out: the fine-tuning of the descriptors before the attention is trained,
for the network is frozen here; random crops and sizes in training; the pyramid of scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import seeded
from ssr_lib.local import LocalFeatures, batches_of, features_of, sample
from ssr_lib.store import Maps
from ssr_lib.train import batch_ids
from ssr_lib.whitening import Whitening, fit_pca


class Attention(nn.Module):
    """f (B, C, H, W) → α (B, H, W). The last convolution starts at 0: the same α everywhere."""

    def __init__(self, channels: int, hidden: int = 512, *, seed: int = 0):
        super().__init__()
        with seeded(seed, "attention"):
            self.hidden = nn.Conv2d(channels, hidden, 1)
            self.score = nn.Conv2d(hidden, 1, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, f: Tensor) -> Tensor:
        return F.softplus(self.score(F.relu(self.hidden(f))))[:, 0]

    def pooled(self, f: Tensor) -> Tensor:
        """Σ α f over the number of places, (B, C)."""
        return (self(f)[:, None] * f).mean(dim=(2, 3))


@dataclass(frozen=True)
class Learned:
    """What `fit` returns; `accuracy`: share of the training batches' landmarks that y told, a row a step."""

    attention: Attention
    projection: Whitening
    accuracy: list[float]


def places(x: Tensor) -> Tensor:
    """f (B, C, H, W), of length √C."""
    return F.normalize(x, dim=1) * math.sqrt(x.shape[1])


def fit(
    maps: Maps,
    labels,
    *,
    dims: int = 40,
    whiten: bool = False,
    hidden: int = 512,
    steps: int = 200,
    batch: int = 32,
    rate: float = 4e-3,
    place: str = "mid",
    rows: int = 2**16,
    seed: int = 0,
) -> Learned:
    """The attention, trained on maps with a label for each, and the PCA to at most `dims` numbers (40 in the paper).

    `whiten`: divides them by their deviations too, which the paper does not. `rows`: places that the PCA sees.
    """
    targets = np.unique(np.asarray(labels), return_inverse=True)[1]
    attention = Attention(next(batches_of(maps, place))[1].shape[1], hidden, seed=seed)
    with seeded(seed, "classifier"):
        classifier = nn.Linear(attention.hidden.in_channels, targets.max() + 1)
    optimizer = torch.optim.AdamW([*attention.parameters(), *classifier.parameters()], lr=rate)
    accuracy = []
    for step in range(steps):
        ids = batch_ids(step, targets, batch, seed)
        pooled, wanted = [], []
        for own, x in batches_of(maps.take(ids), place):  # pictures of one size at a time
            pooled.append(attention.pooled(places(x)))
            wanted.append(torch.from_numpy(targets[ids[own]]))
        y, classes = classifier(torch.cat(pooled)), torch.cat(wanted)
        loss = F.cross_entropy(y, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy.append(float((y.argmax(dim=1) == classes).float().mean()))
    axes = fit_pca(sample(maps, place, lambda x: (places(x), x[:, 0]), rows, seed))
    directions = axes.projection[:dims]
    if not whiten:
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Learned(attention.eval(), Whitening(axes.mean, directions), accuracy)


def extract(maps: Maps, *, learned: Learned, count: int = 400, place: str = "mid") -> list[LocalFeatures]:
    """The `count` places of the highest α of each map; `learned`: what `fit` returned."""

    def describe(x: Tensor) -> tuple[Tensor, Tensor]:
        f = places(x)
        return f, learned.attention(f) * (x != 0).any(dim=1)  # a place of zeros has no direction

    return features_of(maps, place, describe, count, learned.projection)
