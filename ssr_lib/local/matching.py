"""Matches of local features: features that are nearest to each other, as far as one map of the plane explains them.

x_i, y_j: unit descriptors of two pictures, p_i, q_j: their points.

    (i, j) is a match where  j = argmax_n x_i · y_n,  i = argmax_n x_n · y_j  and  x_i · y_j ≥ least
    and an inlier of a map T where  ‖T p_i − q_j‖ ≤ error

T is affine (6 numbers, from 3 matches) or a homography (8, from 4), the one of most inliers that RANSAC finds. Source:
Philbin et al., CVPR 2007: reference [32] of the paper. There a single match gives T, since its two features have a size
and a shape; a place of a map has neither, so that T comes from several matches, drawn at random.
"""

from __future__ import annotations

import cv2
import numpy as np

from ssr_lib.heads import check_choice
from ssr_lib.local import LocalFeatures

FEWEST = {"affine": 3, "homography": 4}  # matches that fix a map
DRAWS = 500  # of RANSAC at most: 4 of them hit an affine map on which a fifth of the matches agree


def mutual_nearest(x: np.ndarray, y: np.ndarray, least: float = -1.0) -> np.ndarray:
    """Ids (m, 2) of matches of unit descriptors (n, D) and (l, D), rising by the first; of equals the lower id."""
    if len(x) == 0 or len(y) == 0:
        return np.zeros((0, 2), np.int64)
    similarities = x @ y.T  # (n, l)
    there = similarities.argmax(axis=1)
    back = similarities.argmax(axis=0)
    here = np.arange(len(x))
    right = (back[there] == here) & (similarities[here, there] >= least)
    return np.stack([here, there], axis=1)[right]


def explained(here: np.ndarray, there: np.ndarray, model: str, error: float) -> np.ndarray:
    """Which (m,) of the matched points (m, 2) and (m, 2) one `model` explains within `error` pixels.

    None of them where there are too few. OpenCV's RANSAC draws from a generator of a fixed seed, so that the same
    points have the same answer.
    """
    check_choice("model", model, tuple(FEWEST))
    none = np.zeros(len(here), bool)
    if len(here) < FEWEST[model]:
        return none
    here, there = (np.ascontiguousarray(points, np.float32) for points in (here, there))
    if model == "affine":
        inliers = cv2.estimateAffine2D(here, there, None, cv2.RANSAC, error, DRAWS)[1]
    else:
        inliers = cv2.findHomography(here, there, cv2.RANSAC, error, None, DRAWS)[1]
    return none if inliers is None else inliers[:, 0] > 0


def inliers(
    query: LocalFeatures, image: LocalFeatures, *, model: str = "affine", error: float = 24.0, least: float = 0.0
) -> np.ndarray:
    """Ids (m, 2) of the matches of two pictures that one `model` explains within `error` pixels.

    24 pixels are one and a half places of a map of stride 16. `least`: the least cosine of a match.
    """
    pairs = mutual_nearest(query.descriptors, image.descriptors, least)
    return pairs[explained(query.points[pairs[:, 0]], image.points[pairs[:, 1]], model, error)]
