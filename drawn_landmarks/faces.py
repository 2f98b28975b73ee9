"""Flat faces in space, each with its texture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .camera import cross, unit
from .materials import PPM
from .surface import Surface

RIGHT, UP, FRONT = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])


class Texture:
    """A surface that is drawn when it is first looked at: many walls never are."""

    def __init__(self, draw: Callable[[], Surface]):
        self._draw = draw

    @cached_property
    def surface(self) -> Surface:
        return self._draw()


@dataclass(frozen=True)
class Face:
    """A polygon in a plane: `points` (n, 3); the texture's lower left corner at `origin`, its axes `u` and `v`."""

    points: np.ndarray
    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    normal: np.ndarray  # outward, unit length
    texture: Surface | Texture
    ppm: float = PPM

    @property
    def surface(self) -> Surface:
        return self.texture.surface if isinstance(self.texture, Texture) else self.texture

    @cached_property
    def plane(self) -> np.ndarray:
        """The map (4, 3) from plane coordinates (s, t, 1), in metres, to homogeneous world points."""
        return np.array([[*self.u, 0.0], [*self.v, 0.0], [*self.origin, 1.0]]).T

    def texture_plane(self, ppm: float, rows: int) -> np.ndarray:
        """The map (4, 3) from pixels of a texture of so many rows to homogeneous world points."""
        return self.plane @ np.array([[1 / ppm, 0, 0.5 / ppm], [0, -1 / ppm, (rows - 0.5) / ppm], [0, 0, 1]])

    def level(self, seen: float) -> int:
        """How often its texture is to be halved so that one texel is about one of the `seen` pixels."""
        texels = self.area * self.ppm**2 / (seen + 1.0)
        return min(6, max(0, round(0.5 * math.log2(texels) - 0.1)))

    @cached_property
    def area(self) -> float:
        """Square metres."""
        out = self.points - self.origin
        return cv2.contourArea(np.stack([out @ self.u, out @ self.v], 1).astype(np.float32))

    @cached_property
    def middle(self) -> list[float]:
        """The mean of its corners (3,)."""
        return (np.add.reduce(self.points) / len(self.points)).tolist()

    def shifted(self, by: np.ndarray) -> Face:
        """The face moved by a vector (3,)."""
        face = Face(self.points + by, self.origin + by, self.u, self.v, self.normal, self.texture, self.ppm)
        face.__dict__["area"] = self.area
        return face


def plane_face(points, u, texture: Surface | Texture, ppm: float = PPM) -> Face:
    """A face whose texture starts at the lowest, leftmost corner of its polygon; `u` lies in its plane."""
    points = np.asarray(points, float)
    u = unit(u)
    normal = unit(cross(points[1] - points[0], points[2] - points[0]))
    v = cross(normal, u)
    if v[1] < 0:
        v = -v
    out = points - points[0]
    origin = points[0] + u * (out @ u).min() + v * (out @ v).min()
    return Face(points, origin, u, v, normal, texture, ppm)
