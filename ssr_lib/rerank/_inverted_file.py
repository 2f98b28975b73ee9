"""The inverted file of match kernels: for every visual word the images that have it, with their bits there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class InvertedFile:
    """The images of word c are ids[starts[c] : starts[c + 1]], and their b(X_c) stand in the same rows of `bits`.

    `starts` (K + 1,) int64, `ids` (P,) int32, `bits` (P, ⌈D / 8⌉) uint8, `counts` (N,) int32: words of each image.
    """

    starts: np.ndarray
    ids: np.ndarray
    bits: np.ndarray
    counts: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.ids.nbytes + self.bits.nbytes + self.counts.nbytes


def invert(images: Iterable[tuple[np.ndarray, np.ndarray]], size: int) -> InvertedFile:
    """The inverted file of images, each given by its words (w,) and V of each (w, D), for a codebook of that size."""
    words, ids, bits = [], [], []
    for i, (present, sums) in enumerate(images):
        words.append(present)
        ids.append(np.full(len(present), i, np.int32))
        bits.append(np.packbits(sums > 0, axis=1))  # b = sign V
    counts = np.array([len(present) for present in words], np.int32)
    words = np.concatenate(words)
    order = words.argsort(kind="stable")
    starts = np.searchsorted(words[order], np.arange(size + 1))
    return InvertedFile(starts, np.concatenate(ids)[order], np.concatenate(bits)[order], counts)


def kernel(words: np.ndarray, sums: np.ndarray, file: InvertedFile, alpha: float, threshold: float) -> np.ndarray:
    """K (N,) of a query, given by its words (w,) and V of each (w, D), with all images; 0 without a common word."""
    scores = np.zeros(len(file.counts))
    for word, bits in zip(words, np.packbits(sums > 0, axis=1), strict=True):
        images = slice(file.starts[word], file.starts[word + 1])
        h = np.bitwise_count(file.bits[images] ^ bits).sum(axis=1, dtype=np.int64)
        u = 1 - 2 * h / sums.shape[1]
        scores[file.ids[images]] += np.where(u > threshold, np.sign(u) * np.abs(u) ** alpha, 0)  # σ_α(u)
    return scores / np.sqrt(max(1, len(words)) * np.maximum(1, file.counts))  # γ(X) γ(Y)
