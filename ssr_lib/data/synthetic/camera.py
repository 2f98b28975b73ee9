"""A pinhole camera, and the projection of flat faces.

World axes: x to the right along the street, y up, z from the building's front towards the street; metres.
Image axes: x to the right, y down; pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.4  # metres: what is nearer to the lens is cut away


def unit(vector) -> np.ndarray:
    """The vector (3,) scaled to length 1."""
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and how it looks: `rotation` rows are its right, down and forward axes."""

    centre: np.ndarray  # (3,) metres
    rotation: np.ndarray  # (3, 3)
    focal: float  # pixels
    size: int  # pixels: images are square

    @classmethod
    def look_at(cls, centre, target, focal: float, size: int, roll: float = 0.0) -> Camera:
        """The camera at `centre` that looks at `target`; `roll` in radians."""
        forward = unit(np.subtract(target, centre))
        right = unit(np.cross(forward, (0.0, 1.0, 0.0)))
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward])
        return cls(np.asarray(centre, dtype=np.float64), rotation, float(focal), int(size))

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) in camera coordinates (n, 3): right, down, depth."""
        return (np.asarray(points, dtype=np.float64) - self.centre) @ self.rotation.T

    def to_image(self, seen: np.ndarray) -> np.ndarray:
        """Camera coordinates (n, 3) with positive depth as pixels (n, 2)."""
        return self.focal * seen[:, :2] / seen[:, 2:] + self.size / 2

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points of one polygon (n, 3) as pixels (m, 2), cut at the near plane; m = 0 behind the camera."""
        seen = self.to_camera(points)
        inside = seen[:, 2] >= NEAR
        if inside.all():
            return self.to_image(seen)
        if not inside.any():
            return np.empty((0, 2))
        kept = []
        for i in range(len(seen)):  # Sutherland and Hodgman, one plane
            a, b = seen[i - 1], seen[i]
            if inside[i - 1] != inside[i]:
                kept.append(a + (NEAR - a[2]) / (b[2] - a[2]) * (b - a))
            if inside[i]:
                kept.append(b)
        return self.to_image(np.array(kept))

    def homography(self, origin, u, v) -> np.ndarray:
        """The (3, 3) map from plane coordinates (s, t, 1), metres along `u` and `v` from `origin`, to pixels."""
        k = np.array([[self.focal, 0, self.size / 2], [0, self.focal, self.size / 2], [0, 0, 1.0]])
        return k @ np.stack([self.rotation @ u, self.rotation @ v, self.to_camera(origin[None])[0]], axis=1)

    def horizon(self) -> float:
        """The row of the horizon in the middle of the image, pixels (may lie outside)."""
        forward = self.rotation[2]
        level = unit((forward[0], 0.0, forward[2]))
        seen = self.rotation @ level
        return float(self.focal * seen[1] / seen[2] + self.size / 2)
