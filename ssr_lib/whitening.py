"""Whitening of global descriptors: PCA, learned from matching pairs, LDA from classes; fitted in float64."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh


@dataclass(frozen=True)
class Whitening:
    """y = projection · (x − mean), then y / (‖y‖ + 1e-6). `mean` (D,), `projection` (D', D) by falling importance."""

    mean: np.ndarray
    projection: np.ndarray
    varied: float = np.inf  # what this was learned from varies along so many rows; those behind have no order

    def rows(self, dims: int | None) -> np.ndarray:
        """The first `dims` rows of `projection`, or all: dims None, or more than `varied`."""
        return self.projection[: None if dims is None or dims > self.varied else dims]

    def apply(self, descriptors: np.ndarray, dims: int | None = None) -> np.ndarray:
        """Whitened unit descriptors (N, D') of (N, D) by `rows(dims)`, in the same dtype."""
        mean, projection = self.mean.astype(descriptors.dtype), self.rows(dims).astype(descriptors.dtype)
        whitened = (descriptors - mean) @ projection.T  # (N, D')
        return whitened / ((whitened**2).sum(1, keepdims=True) ** 0.5 + 1e-6)


def fit_pca(descriptors: np.ndarray) -> Whitening:
    """PCA whitening of (N, D): covariance divided by N, directions by falling variance, scaled to unit variance.

    Directions without variance (D ≥ N, or constant) are left out, so `projection` may have fewer than D rows, or none.
    """
    x = np.asarray(descriptors, dtype=np.float64)
    mean = x.mean(axis=0)
    values, vectors = eigh((x - mean).T @ (x - mean) / len(x))  # rising
    eps = np.finfo(np.float64).eps  # of equal rows the largest variance is rounding too
    kept = np.flatnonzero(values > len(values) * eps * max(values[-1], eps * mean @ mean))[::-1]
    return Whitening(mean, vectors[:, kept].T / np.sqrt(values[kept])[:, None])


def fit_learned(descriptors: np.ndarray, queries: np.ndarray, positives: np.ndarray) -> Whitening:
    """Learned whitening from matching pairs: descriptors (N, D), ids of queries (P,) and of their positives (P,).

    The scatter of pair differences is made white, then all turned to its principal axes; the mean is the query rows'.
    Source: Mikolajczyk & Matas, ICCV 2007; Radenović et al., TPAMI 2019.
    """
    x = np.asarray(descriptors, dtype=np.float64)
    if len(queries) != len(positives) or not len(queries):
        raise ValueError(f"{len(queries)} queries for {len(positives)} positives; one of each a pair is wanted")
    differences = x[queries] - x[positives]
    return _whiten(x, x[queries].mean(axis=0), differences.T @ differences / len(queries))


def fit_lda(descriptors: np.ndarray, labels: np.ndarray, shrinkage: float = 0.0) -> Whitening:
    """Linear discriminant analysis of descriptors (N, D) with a class for each, `labels` (N,).

    The scatter within classes, divided by N and with `shrinkage` times its average variance added to every direction's,
    is made white, then all turned to its principal axes, by falling total over (shrunk) inner variance; the mean is
    that of all rows. D near N needs shrinkage. Raises `ValueError` where no class has two rows.
    Source: Fukunaga, Introduction to Statistical Pattern Recognition, 1990; shrinkage: Friedman, JASA 1989.
    """
    x = np.asarray(descriptors, dtype=np.float64)
    classes, ids = np.unique(labels, return_inverse=True)
    if len(classes) == len(x):
        raise ValueError(f"each of {len(x)} descriptors is a class of its own; a class of two is wanted")
    sums = np.zeros((len(classes), x.shape[1]))
    np.add.at(sums, ids, x)
    deviations = x - (sums / np.bincount(ids)[:, None])[ids]
    within = deviations.T @ deviations / len(x)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    return _whiten(x, x.mean(axis=0), within)


def _whiten(x: np.ndarray, mean: np.ndarray, scatter: np.ndarray) -> Whitening:
    """`scatter` (D, D) made white, then everything turned to the principal axes of `x` (N, D).

    Where `scatter` is singular the smallest of 1e-10, 1e-9, … that helps is added to its diagonal.
    """
    total, jitter = (x - mean).T @ (x - mean), 0.0
    while True:
        try:
            values, vectors = eigh(total, scatter + jitter * np.eye(len(scatter)))
            variances = values / (vectors**2).sum(axis=0)  # of the columns of `x` along directions of length 1
            varied = (variances > variances.max() * len(values) * np.finfo(np.float64).eps).sum()
            return Whitening(mean, vectors[:, ::-1].T, varied)
        except np.linalg.LinAlgError:
            jitter = jitter * 10 or 1e-10
