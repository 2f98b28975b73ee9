"""A pinhole camera, and the projection of flat faces.

World axes: x to the right along the street, y up, z from the building's front towards the street; metres.
Image axes: x to the right, y down; pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAR = 0.4  # metres: what is nearer to the lens is cut away
FIELD = 12  # picture widths: what is farther from the picture than this is cut away


def unit(vector) -> np.ndarray:
    """The vector (3,) scaled to length 1."""
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def cross(a, b) -> np.ndarray:
    """The cross product of two vectors (3,); much faster for them than NumPy's."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _cut(points: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """The part of a polygon (n, 3) on the positive side of a plane (4,), (m, 3); Sutherland and Hodgman."""
    side = points @ plane[:3] + plane[3]
    if side.min() >= 0:
        return points
    kept = []
    for i in range(len(points)):
        before, here = side[i - 1], side[i]
        if (before >= 0) != (here >= 0):
            kept.append(points[i - 1] + before / (before - here) * (points[i] - points[i - 1]))
        if here >= 0:
            kept.append(points[i])
    return np.array(kept)


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and how it looks: `rotation` rows are its right, down and forward axes."""

    centre: np.ndarray  # (3,) metres
    rotation: np.ndarray  # (3, 3)
    focal: float  # pixels
    size: int  # pixels: images are square

    @cached_property
    def matrix(self) -> np.ndarray:
        """The projection (3, 4) of homogeneous world points to homogeneous pixels; its third row gives the depth."""
        k = np.array([[self.focal, 0, self.size / 2], [0, self.focal, self.size / 2], [0, 0, 1.0]])
        return k @ np.concatenate([self.rotation, -(self.rotation @ self.centre)[:, None]], axis=1)

    @classmethod
    def look_at(cls, centre, target, focal: float, size: int, roll: float = 0.0) -> Camera:
        """The camera at `centre` that looks at `target`; `roll` in radians."""
        forward = unit(np.subtract(target, centre))
        right = unit(np.cross(forward, (0.0, 1.0, 0.0)))
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward])
        return cls(np.asarray(centre, dtype=np.float64), rotation, float(focal), int(size))

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) of one polygon as pixels (m, 2), cut where they leave a wide field; m = 0 outside it."""
        seen = points @ self.matrix[:, :3].T + self.matrix[:, 3]  # (n, 3): pixels times depth, and depth
        if seen[:, 2].min() >= NEAR:
            pixels = seen[:, :2] / seen[:, 2:]
            if np.abs(pixels).max() < FIELD * self.size:
                return pixels
        wide = FIELD * self.size
        for plane in ((0, 0, 1, -NEAR), (1, 0, wide, 0), (-1, 0, wide, 0), (0, 1, wide, 0), (0, -1, wide, 0)):
            seen = _cut(seen, np.array(plane, float))
            if len(seen) < 3:
                return np.empty((0, 2))
        return seen[:, :2] / seen[:, 2:]

    def locate(self, point: np.ndarray) -> tuple[float, float, float]:
        """A world point's pixel x and y, and its depth in metres (meaningless pixels where that is not positive)."""
        x, y, depth = self.matrix[:, :3] @ point + self.matrix[:, 3]
        return x / depth, y / depth, depth

    def horizon(self) -> float:
        """The row of the horizon in the middle of the image, pixels (may lie outside)."""
        forward = self.rotation[2]
        level = unit((forward[0], 0.0, forward[2]))
        seen = self.rotation @ level
        return float(self.focal * seen[1] / seen[2] + self.size / 2)
