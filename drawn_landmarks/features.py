"""Openings that are no window and no door: clocks, arcades, shops."""

from __future__ import annotations

import cv2
import numpy as np

from .chance import pick
from .materials import BASE
from .patch import Patch, paint
from .structures import ARCADE, CLOCK, SHOP
from .styles import Style

SIGNS = ((40, 62, 52), (96, 34, 34), (36, 44, 70), (196, 186, 164), (58, 52, 48), (150, 116, 60), (60, 90, 96))


def _clock(rng: np.random.Generator, style: Style, points: np.ndarray, patch: Patch) -> None:
    """A dial with its hands."""
    x, y = points.mean(0)
    radius = np.ptp(points[:, 0]) / 2
    paint(points, (patch.mask, 255), (patch.relief, BASE + 4), (patch.colour, (46, 44, 44)))
    paint((points - (x, y)) * 0.86 + (x, y), (patch.colour, (226, 220, 204)))
    centre = (round(x), round(y))
    for hour in range(12):
        a = hour * np.pi / 6
        ends = [(round(x + r * radius * np.sin(a)), round(y - r * radius * np.cos(a))) for r in (0.66, 0.8)]
        cv2.line(patch.colour, *ends, (40, 38, 38), 2 if hour % 3 == 0 else 1)
    for a, r in ((-0.9, 0.42), (1.15, 0.66)):
        end = (round(x + r * radius * np.sin(a)), round(y - r * radius * np.cos(a)))
        cv2.line(patch.colour, centre, end, (30, 28, 28), 2, cv2.LINE_AA)


def _arcade(rng: np.random.Generator, style: Style, points: np.ndarray, patch: Patch) -> None:
    """An open arch with a passage in shadow behind it."""
    inside = np.zeros(patch.mask.shape, np.uint8)
    paint(points, (patch.mask, 255), (patch.relief, BASE - 60), (inside, 255))
    rows = np.arange(len(inside), dtype=np.float32)[:, None]
    depth = np.clip((rows - points[:, 1].min()) / np.ptp(points[:, 1]), 0, 1)
    tone = 0.16 + 0.26 * depth**2
    shadowed = (tone[..., None] * np.float32(style.wall)).astype(np.uint8)
    cv2.copyTo(np.repeat(shadowed, inside.shape[1], 1), inside, patch.colour)
    x, y1 = points[:, 0].mean(), points[:, 1].max()
    half, tall = np.ptp(points[:, 0]) * 0.2, np.ptp(points[:, 1]) * 0.5
    darker = tuple(int(v * 0.3) for v in style.door)
    paint(_box(x - half, y1 - tall, x + half, y1), (patch.colour, darker))


def _shop(rng: np.random.Generator, style: Style, points: np.ndarray, patch: Patch) -> None:
    """A shop window under its sign, sometimes with an awning."""
    colour, relief, glass = patch.colour, patch.relief, patch.glass
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    board = SIGNS[rng.integers(len(SIGNS))]
    paint(points, (patch.mask, 255), (colour, board), (relief, BASE + 4))
    sign, riser, width = y0 + 0.17 * (y1 - y0), y1 - 0.16 * (y1 - y0), x1 - x0
    letters = (222, 212, 186) if sum(board) < 380 else (60, 52, 48)
    for x in np.arange(x0 + 0.2 * width, x0 + rng.uniform(0.5, 0.8) * width, 4.0):
        paint(_box(x, y0 + 5, x + rng.uniform(1.5, 3.0), sign - 4), (colour, letters))
    door = x0 + width * pick(rng, (0.08, 0.4, 0.7))
    for pane in (_box(x0 + 3, sign + 2, x1 - 3, riser), _box(door, sign + 2, door + 0.24 * width, y1 - 2)):
        paint(pane, (colour, (52, 50, 48)), (relief, BASE - 12), (glass, 255))
    for x in (door, door + 0.24 * width, x0 + 0.5 * width):
        paint(_box(x - 1, sign, x + 1, y1), (colour, board), (glass, 0))
    if rng.random() < 0.45:
        cloth = SIGNS[rng.integers(len(SIGNS))]
        low = sign + 0.2 * (y1 - y0)
        for k, x in enumerate(np.arange(x0 - 2, x1, 7.0)):
            stripe = cloth if k % 2 else (214, 208, 194)
            paint(_box(x, sign - 2, min(x + 7.0, x1 + 2), low), (colour, stripe))
        paint(_box(x0 - 2, sign - 2, x1 + 2, low), (relief, BASE + 80), (glass, 0), (patch.mask, 255))


def _box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """The corners of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


FEATURES = {CLOCK: _clock, ARCADE: _arcade, SHOP: _shop}
