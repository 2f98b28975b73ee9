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
    """A surface that is drawn when it is first looked at: many walls never are. `glazed`: it may have windows."""

    def __init__(self, draw: Callable[[], Surface], glazed: bool):
        self._draw = draw
        self.glazed = glazed

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
    def axes(self) -> np.ndarray:
        """The directions along, up and out of the plane as columns (3, 3)."""
        return np.array((self.u, self.v, self.normal)).T

    def level(self, seen: float) -> int:
        """How often its texture is to be halved so that one texel is about one of the `seen` pixels."""
        texels = self.area * self.ppm**2 / (seen + 1.0)
        return min(6, max(0, round(0.5 * math.log2(texels) - 0.1)))

    @cached_property
    def area(self) -> float:
        """Square metres."""
        return cv2.contourArea(((self.points - self.origin) @ self.axes[:, :2]).astype(np.float32))

    @cached_property
    def middle(self) -> list[float]:
        """The mean of its corners (3,)."""
        return (np.add.reduce(self.points) / len(self.points)).tolist()

    def shifted(self, by: np.ndarray) -> Face:
        """The face moved by a vector (3,)."""
        face = Face(self.points + by, self.origin + by, self.u, self.v, self.normal, self.texture, self.ppm)
        face.__dict__.update(area=self.area, axes=self.axes)
        return face


def plane_face(points, u, texture: Surface | Texture, ppm: float = PPM) -> Face:
    """A face whose texture starts at the lowest, leftmost corner of its polygon; `u` lies in its plane."""
    points = np.asarray(points, float)
    u = unit(u)
    first, second, third = points[0], points[1], points[2]
    normal = unit(cross((second - first).tolist(), (third - first).tolist()))
    v = cross(normal.tolist(), u.tolist())
    if v[1] < 0:
        v = -v
    low = ((points - first) @ np.array((u, v)).T).min(0)
    return Face(points, first + u * low[0] + v * low[1], u, v, normal, texture, ppm)
