"""Where the photographer stands. Depends on a building's structure alone, never on its style."""

from __future__ import annotations

import numpy as np

from . import spec
from .camera import Camera
from .structures import Structure


def draw_camera(rng: np.random.Generator, structure: Structure, size: int, *, query: bool = False) -> Camera:
    """A random place in the street from which some of the building is seen; for a query, most of it."""
    width, height = structure.width, structure.height * 1.12
    span = np.exp(rng.uniform(*np.log(spec.QUERY_SPAN if query else spec.SPAN)))
    limit = spec.QUERY_AZIMUTH_LIMIT if query else spec.AZIMUTH_LIMIT
    azimuth = np.radians(np.clip(rng.normal(0, spec.AZIMUTH), -limit, limit))
    field = np.radians(rng.uniform(*spec.FIELD_OF_VIEW))
    extent = max(width * np.cos(azimuth) + 5 * abs(np.sin(azimuth)), height)  # as seen from there, metres
    distance = span * extent / (2 * np.tan(field / 2)) + 0.25 * width * abs(np.sin(azimuth))
    if distance < spec.NEAREST:
        distance = spec.NEAREST
        field = 2 * np.arctan(span * extent / (2 * distance))
    tall = rng.uniform(1.5, 1.8) if rng.random() < 0.78 else rng.uniform(2.5, 8.0)
    across, foot, top = width * np.cos(azimuth), np.arctan2(-tall, distance), np.arctan2(height - tall, distance)
    frame = 2 * distance * np.tan(field / 2)
    stray = 0.10 * frame + max(0.0, across - 0.8 * frame) * 0.5  # keeps some of it in the picture
    x = width / 2 + rng.uniform(-1, 1) * stray
    room = field - (top - foot)  # angles: above and below the building together
    if room > 0:
        tilt = foot - room * rng.uniform(0.10, 0.40) + field / 2
    else:
        tilt = rng.uniform(top - field / 2, max(foot + field * 0.42, top - field / 2 + 0.01))
        tilt = min(tilt, np.radians(32))
    centre = np.array([x + distance * np.sin(azimuth), tall, max(6.5, distance * np.cos(azimuth))])
    away = np.hypot(centre[0] - x, centre[2])
    target = np.array([x, tall + away * np.tan(tilt), 0.0])
    roll = np.radians(rng.normal(0, spec.ROLL))
    return Camera.look_at(centre, target, size / 2 / np.tan(field / 2), size, float(roll))
