"""A pinhole camera, and the projection of flat faces.

World axes: x to the right along the street, y up, z from the building's front towards the street; metres.
Image axes: x to the right, y down; pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

NEAR = 0.4  # metres: what is nearer to the lens is cut away
FIELD = 12  # picture widths: what is farther from the picture than this is cut away


def unit(vector) -> np.ndarray:
    """The vector (3,) scaled to length 1."""
    vector = np.asarray(vector, dtype=np.float64)
    return vector / math.sqrt(vector.dot(vector))


def cross(a, b) -> np.ndarray:
    """The cross product of two vectors (3,); much faster for them than NumPy's."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


Point = tuple[float, float, float]


def _cut(points: list[Point], side: list[float]) -> list[Point]:
    """The part of a polygon where `side`, linear in the points, is positive; Sutherland and Hodgman."""
    kept = []
    for i, (x, y, z) in enumerate(points):
        before, here = side[i - 1], side[i]
        if (before >= 0) != (here >= 0):
            share = before / (before - here)
            x0, y0, z0 = points[i - 1]
            kept.append((x0 + share * (x - x0), y0 + share * (y - y0), z0 + share * (z - z0)))
        if here >= 0:
            kept.append((x, y, z))
    return kept


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
        right = unit(cross(forward, (0.0, 1.0, 0.0)))
        down = cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward])
        return cls(np.asarray(centre, dtype=np.float64), rotation, float(focal), int(size))

    @cached_property
    def _linear(self) -> tuple[np.ndarray, np.ndarray]:
        """The projection as a product (3, 3) and a sum (3,) for rows of points."""
        return np.ascontiguousarray(self.matrix[:, :3].T), self.matrix[:, 3].copy()

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) of one polygon as pixels (m, 2), cut where they leave a wide field; m = 0 outside it."""
        return self.project_all(points, np.array((0, len(points))))[0]

    def project_all(self, points: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """As `project`, for polygons whose points (n, 3) follow each other: `starts` of each, and n."""
        turned, shift = self._linear
        seen = points @ turned + shift  # (n, 3): pixels times depth, and depth
        depth = seen[:, 2:]
        pixels = seen[:, :2] / depth
        places = pairwise(starts.tolist())
        if depth.min() >= NEAR and np.abs(pixels).max() < FIELD * self.size:
            return [pixels[a:b] for a, b in places]
        outside = (np.abs(pixels).max(1) >= FIELD * self.size) | (depth[:, 0] < NEAR)
        cut = np.logical_or.reduceat(outside, starts[:-1]).tolist()
        return [self._clip(seen[a:b]) if c else pixels[a:b] for (a, b), c in zip(places, cut, strict=True)]

    def _clip(self, seen: np.ndarray) -> np.ndarray:
        """The pixels (m, 2) of a polygon (n, 3) of pixels times depth, and depth; cut where it leaves a wide field."""
        wide = FIELD * self.size
        points = seen.tolist()
        for a, b, c, d in ((0, 0, 1, -NEAR), (1, 0, wide, 0), (-1, 0, wide, 0), (0, 1, wide, 0), (0, -1, wide, 0)):
            side = [a * x + b * y + c * z + d for x, y, z in points]
            if min(side) < 0:
                points = _cut(points, side)
                if len(points) < 3:
                    return np.empty((0, 2))
        return np.array([(x / z, y / z) for x, y, z in points])

    def plane_to_image(self, origin: np.ndarray, u: np.ndarray, v: np.ndarray, ppm: float, rows: int) -> list[list]:
        """The map (3, 3) from pixels of a picture in a plane, so many rows high, to homogeneous pixels of the image.

        `origin`: its lower left corner, metres; `u`, `v`: its axes; `ppm`: its pixels in a metre.
        """
        (o0, o1, o2), (u0, u1, u2), (v0, v1, v2) = origin.tolist(), u.tolist(), v.tolist()
        lines = []
        for a, b, c, d in self.matrix.tolist():
            across, up = (a * u0 + b * u1 + c * u2) / ppm, (a * v0 + b * v1 + c * v2) / ppm
            lines.append([across, -up, a * o0 + b * o1 + c * o2 + d + 0.5 * across + (rows - 0.5) * up])
        return lines

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
