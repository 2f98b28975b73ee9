"""Maps in which only the arrangement of places identifies the landmark: what a head must learn that sees structure.

A landmark is 4 of the 12 offsets of half a 5 × 5 window. In a view each place copies, with probability q, the code that
stands one of these offsets before it, else keeps a fresh one. Codes are drawn anew for every view: what a place looks
like says nothing, and which places look alike says everything. docs/method.md, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

OFFSETS = [(u, v) for u in range(3) for v in range(-2, 3) if (u, v) > (0, 0)]  # none of the 12 is another's negative
LANDMARKS = np.array(list(combinations(OFFSETS, 4)))  # (495, 4, 2): all that there can be
SPREAD = 2.5  # of a channel over places, as in the last map of tf_efficientnet_lite0, whose channels average 0
ALIKE = 0.15  # cosine of the appearance of two views of a landmark: above chance, and far below 1


def arrangement_views(
    landmarks: Sequence[int], views: int, seed: int, *, q=0.9, share=1.0, channels=64, side=8, shuffled=False
) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, side, side, channels) float16 of `views` views of each landmark, by number, and the landmarks (N,).

    `share` of a map's variance is arrangement; the rest is appearance, the same at all places of a view and similar in
    the views of a landmark. `shuffled`: the places of every view change theirs at random: only appearance is left.
    """
    labels = np.repeat(np.asarray(landmarks), views)
    rng, everywhere = np.random.default_rng(seed), np.arange(len(labels))
    x = rng.standard_normal((len(labels), side, side, channels), dtype=np.float32)
    for row, column in np.ndindex(side, side):  # in reading order: what is copied is in its place already
        source = (row, column) - LANDMARKS[labels, rng.integers(0, 4, len(labels))]  # (N, 2)
        copies = (source >= 0).all(axis=1) & (source < side).all(axis=1) & (rng.random(len(labels)) < q)
        x[copies, row, column] = x[everywhere[copies], *source[copies].T]
    if shuffled:
        order = rng.permuted(np.tile(np.arange(side * side), (len(labels), 1)), axis=1)
        x = x.reshape(len(labels), -1, channels)[everywhere[:, None], order].reshape(x.shape)
    if share < 1:
        looks = np.random.default_rng(0).standard_normal((len(LANDMARKS), channels), dtype=np.float32)
        fresh = rng.standard_normal((len(labels), channels), dtype=np.float32)
        appearance = np.sqrt(ALIKE) * looks[labels] + np.sqrt(1 - ALIKE) * fresh  # (N, C)
        x = np.sqrt(share) * x + np.sqrt(1 - share) * appearance[:, None, None]
    return (SPREAD * x).astype(np.float16), labels
