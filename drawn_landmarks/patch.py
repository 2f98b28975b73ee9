"""Small pictures of colour, relief and glass that are pasted into walls, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .materials import BASE, PPM

PAD = PPM  # pixels around an opening for its surround


@dataclass(frozen=True)
class Patch:
    """An opening with `PAD` pixels around it; only where `mask` is set it replaces the wall."""

    colour: np.ndarray  # (h, w, 3) uint8
    relief: np.ndarray  # (h, w) uint8
    glass: np.ndarray  # (h, w) uint8: 255 where glass
    mask: np.ndarray  # (h, w) uint8

    @classmethod
    def blank(cls, height: int, width: int) -> Patch:
        """A patch that replaces nothing yet."""
        shape = (height, width)
        colour, relief = np.zeros((*shape, 3), np.uint8), np.full(shape, BASE, np.uint8)
        return cls(colour, relief, np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))

    def part(self, rows: slice, columns: slice) -> Patch:
        """A rectangle of the patch, not a copy."""
        cut = (rows, columns)
        return Patch(self.colour[cut], self.relief[cut], self.glass[cut], self.mask[cut])


STEPS = np.linspace(0, 1, 13)
ARC = np.pi * (1 - STEPS)
ARC = np.stack([np.cos(ARC), np.sin(ARC)], 1)  # a half circle from left to right
CIRCLE = 2 * np.pi * np.linspace(0, 1, 24, endpoint=False)
CIRCLE = np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1)
LANCET = 1 - np.sqrt(np.clip(1 - (0.86 * STEPS) ** 2, 0, 1))  # an arc of a circle, from springing to point


def outline(shape: str, width: float, height: float) -> np.ndarray:
    """The outline (n, 2) of an opening, x in [0, width], y down in [0, height]."""
    half = width / 2
    feet = [(width, height), (0.0, height)]
    if shape == "circle":
        return np.array((half, height / 2)) + np.array((half, height / 2)) * CIRCLE
    if shape in ("round", "horseshoe"):
        rise = min(half, height * 0.6)
        arch = np.array((half, rise)) + np.array((half, -rise)) * ARC
        if shape == "horseshoe":
            left, right = 0.12 * width, 0.88 * width
            return np.concatenate(
                [[(left, rise * 1.35)], arch, [(right, rise * 1.35), (right, height), (left, height)]]
            )
    elif shape == "pointed":
        rise = min(width * 0.9, height * 0.6)
        left = np.stack([half * LANCET / LANCET[-1], rise * (1 - STEPS)], 1)
        arch = np.concatenate([left, left[::-1] * (-1, 1) + (width, 0)])
    elif shape == "segmental":
        rise = min(0.16 * width, height * 0.3)
        arch = np.stack([STEPS * width, rise * (2 * STEPS - 1) ** 2], 1)
    else:
        arch = [(0.0, 0.0), (width, 0.0)]
    return np.concatenate([arch, feet])


def paint(points, *layers) -> None:
    """Fill a polygon (n, 2), pixels, in several layers, each given with its value."""
    fixed = [np.rint(np.asarray(points) * 16).astype(np.int32)]
    for target, value in layers:
        cv2.fillPoly(target, fixed, value, cv2.LINE_8, 4)


def fill(target: np.ndarray, value) -> None:
    """Set all of `target` (h, w) or (h, w, 3) uint8, in place; much faster than NumPy's assignment of a colour."""
    if target.size:
        cv2.rectangle(target, (0, 0), (target.shape[1], target.shape[0]), value, -1)


def stamp(target: np.ndarray, mask: np.ndarray, value) -> None:
    """Set `target` (h, w) or (h, w, 3), in place, to a value where `mask` (h, w) is 255; all uint8."""
    sheet = np.empty(target.shape, np.uint8)
    fill(sheet, value)
    cv2.copyTo(sheet, mask, target)
