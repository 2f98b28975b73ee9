"""Trees: trunks that branch, crowns of thousands of leaves in clusters; drawn once, then tinted and placed."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .chance import weighted
from .noise import ASSETS, halvings
from .shading import colours

SPRITE = 256  # pixels; a sprite shows one tree, its foot in the middle of the lower edge
KINDS = ("broad", "broad", "broad", "slender", "bare", "conifer", "bush")
SPECIMENS = 4  # different trees of each kind


@lru_cache(maxsize=64)
def tree(kind: str, specimen: int) -> tuple[np.ndarray, ...]:
    """A tree (SPRITE, SPRITE, 3) uint8: shade of leaf or bark, 255 where bark, opacity; and its halvings.

    Lit from the upper left."""
    rng = np.random.default_rng([ASSETS, 31, specimen, sum(kind.encode())])
    big = np.zeros((2 * SPRITE, 2 * SPRITE, 3), np.uint8)
    foot = np.array([SPRITE, 2 * SPRITE - 2.0])
    if kind == "bush":
        _leaves(rng, big, np.array([SPRITE, 1.62 * SPRITE]), (0.85 * SPRITE, 0.36 * SPRITE), 90, 26, 5)
    elif kind == "conifer":
        _branch(big, foot, np.array([SPRITE, 0.1 * SPRITE]), 10, 0.6)
        for y in np.linspace(0.12, 1.7, 26):
            half = (0.06 + 0.36 * y) * rng.uniform(0.8, 1.1) * SPRITE
            _leaves(rng, big, np.array([SPRITE, y * SPRITE]), (half, 0.09 * SPRITE), 12 + int(14 * y), 14, 4)
    else:
        tips: list[np.ndarray] = []
        spread, length = {"broad": (0.5, 0.5), "slender": (0.26, 0.56), "bare": (0.6, 0.52)}[kind]
        depth = 7 if kind == "bare" else 5
        _grow(rng, big, foot, -np.pi / 2, length * SPRITE, 17 if kind != "slender" else 12, spread, depth, tips)
        if kind != "bare":
            middle = np.array([SPRITE, 0.8 * SPRITE])
            crown = (0.72 * SPRITE, 0.6 * SPRITE) if kind == "broad" else (0.28 * SPRITE, 0.68 * SPRITE)
            _leaves(rng, big, middle, crown, 150 if kind == "broad" else 90, 34, 6, tips)
    return halvings(cv2.resize(big, (SPRITE, SPRITE), interpolation=cv2.INTER_AREA))


def _branch(big, start, end, thick: float, taper: float) -> None:
    along = (end - start) / (np.linalg.norm(end - start) + 1e-6)
    side = np.array([-along[1], along[0]]) * thick / 2
    points = np.array([start - side, start + side, end + side * taper, end - side * taper])
    fill = np.round(points * 16).astype(np.int32)
    cv2.fillConvexPoly(big, fill, (92, 255, 255), cv2.LINE_AA, 4)
    lit = np.array([start - side, start - side * 0.1, end - side * 0.1, end - side * taper])
    if side[0] > 0:
        lit = np.array([start + side, start + side * 0.1, end + side * 0.1, end + side * taper])
    cv2.fillConvexPoly(big, np.round(lit * 16).astype(np.int32), (150, 255, 255), cv2.LINE_AA, 4)


def _grow(rng, big, start, angle, length, thick, spread, depth, tips) -> None:
    """A branch and what grows from it; the tips carry the leaves."""
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    _branch(big, start, end, max(thick, 1.3), 0.72)
    tips.append(end)
    if depth == 0:
        return
    for _ in range(2 if rng.random() < 0.75 else 3):
        turn = angle + rng.normal(0, spread) * 0.85 + 0.12 * (-np.pi / 2 - angle)
        _grow(rng, big, end, turn, length * rng.uniform(0.58, 0.82), thick * 0.66, spread, depth - 1, tips)


def _leaves(rng, big, middle, radii, clusters: int, each: int, size: float, tips=None) -> None:
    """Clusters of leaves filling an ellipse (ragged at its edge) and about the branch tips, back to front."""
    lobes = rng.uniform(-0.52, 0.52, (7, 2))  # a crown is several rounded masses
    size_of = rng.uniform(0.34, 0.6, 7)
    lobe = rng.integers(7, size=clusters)
    angle, reach = rng.uniform(0, 2 * np.pi, clusters), np.sqrt(rng.uniform(0, 1, clusters))
    offset = np.stack([np.cos(angle), np.sin(angle)], 1) * (reach * size_of[lobe])[:, None]
    centres = middle + (lobes[lobe] * [1.0, 0.8] + offset) * radii
    if tips:
        some = np.array(tips)[rng.permutation(len(tips))[: clusters // 3]]
        inside = (np.abs((some - middle) / radii) < 1.05).all(1)
        centres = np.concatenate([centres, some[inside]])
    front = rng.random(len(centres))
    relative = (centres - middle) / radii
    light = 0.45 - 0.26 * relative[:, 1] - 0.14 * relative[:, 0] + 0.3 * (front - 0.5)
    wide = 0.17 * min(radii) + 0.05 * max(radii)
    order = np.argsort(front)
    draws = []
    for _ in order:
        here = rng.normal(0, wide * 0.5, (each, 2)).T
        draws.append((*here, rng.normal(0, 0.09, each), rng.uniform(0, np.pi, each), rng.uniform(0.7, 1.5, each)))
    x, y, grain, turn, long = np.swapaxes(draws, 0, 1)  # (clusters, leaves)
    x, y = x * 1.15, y * 0.85
    tone = light[order, None] + 0.22 * (-y - 0.5 * x) / wide + grain
    axis = np.stack([np.cos(turn), np.sin(turn)], 2) * (size * long)[..., None]
    across = np.stack([-axis[..., 1], axis[..., 0]], 2) * 0.5
    at = np.stack([x, y], 2) + centres[order, None]
    quads = np.stack([at - axis, at + across, at + axis, at - across], 2).reshape(-1, 4, 2)
    shades = np.clip(tone * 255, 12, 250).astype(int).ravel().tolist()
    for quad, shade in zip(np.round(quads * 16).astype(np.int32), shades, strict=True):
        cv2.fillConvexPoly(big, quad, (shade, 0, 255), cv2.LINE_AA, 4)


LEAVES = (  # shade, middle, sunlit; sRGB
    ((18, 28, 16), (62, 88, 38), (142, 162, 78)),
    ((16, 26, 20), (48, 78, 44), (112, 142, 82)),
    ((24, 30, 14), (84, 98, 36), (170, 174, 84)),
    ((34, 24, 12), (140, 86, 30), (212, 160, 66)),
    ((36, 18, 12), (128, 58, 30), (196, 112, 56)),
)
LEAF_ODDS = {0: 0.36, 1: 0.3, 2: 0.2, 3: 0.09, 4: 0.05}


def _ramp(places, values) -> np.ndarray:
    """Colours (256, 3) between some `values` (n, 3) at `places` (n,)."""
    return np.stack([np.interp(np.arange(256), places, channel) for channel in np.transpose(values)], 1)


LEAF_RAMPS = [_ramp((0, 115, 255), leaves) for leaves in LEAVES]
BARK = _ramp((0, 255), ((22, 18, 14), (150, 132, 112)))


def draw_tint(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A random colour ramp of leaves (256, 3) float; conifers are never autumnal."""
    which = weighted(rng, LEAF_ODDS) if kind != "conifer" else 1
    return LEAF_RAMPS[which] * rng.uniform(0.85, 1.1)


def paint_tree(sprite: np.ndarray, tint: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The colour (h, w, 3) uint8 of a tree (h, w, 3), its shade, bark and opacity, in light of `gain` (3,)."""
    shade, bark, _ = cv2.split(sprite)
    leaf, wood = colours(shade, tint * gain), colours(shade, BARK * gain)
    return cv2.copyTo(wood, cv2.threshold(bark, 128, 255, cv2.THRESH_BINARY)[1], leaf)
