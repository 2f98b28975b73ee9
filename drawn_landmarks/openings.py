"""Windows and doors of a style, as patches for its walls."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from .features import FEATURES
from .materials import BASE, PPM
from .patch import PAD, Patch, outline, paint, stamp
from .structures import ARCADE, CLOCK, DOOR, OCULUS, PAIR, SHOP, SMALL, TALL, WIDE
from .styles import Style

GLASS = (30, 33, 38)  # what shows through a window by day; reflections are added to it
SQUARE = np.ones((3, 3), np.uint8)


SHARES = {TALL: (1.0, 1.16), SMALL: (0.8, 0.5), OCULUS: (0.9, 0.5), PAIR: (1.25, 1.0), WIDE: (1.45, 1.05)}


def _size(style: Style, kind: int, bay: int, floor: int) -> tuple[int, int]:
    """Width and height of an opening, pixels."""
    if kind == DOOR:
        return int(min(bay * 0.7, max(1.3 * PPM, bay * 0.45))), int(floor * 0.74)
    if kind in (ARCADE, SHOP):
        return int(bay * (0.74 if kind == ARCADE else 0.86)), int(floor * 0.84)
    if kind == CLOCK:
        return (int(min(bay * 0.62, floor * 0.66)),) * 2
    across, up = SHARES.get(kind, (1.0, 1.0))
    width = int(min(max(bay * style.width * across, 8), bay * 0.9))
    height = int(min(max(floor * style.height * up, 9), floor * 0.82))
    return (min(width, height),) * 2 if kind == OCULUS else (width, height)


@lru_cache(maxsize=256)  # the openings of a few buildings
def opening(style: Style, kind: int, bay: int, floor: int, variant: int) -> Patch:
    """The picture of one opening of a style for a cell of `bay` x `floor` pixels. Variants differ in shop signs."""
    width, height = _size(style, kind, bay, floor)
    shape = {"strip": "rect", "lancets": "pointed"}.get(style.window, style.window)
    if kind in (OCULUS, CLOCK):
        shape = "circle"
    if kind == SHOP:
        shape = "rect"
    patch = Patch.blank(height + 2 * PAD, width + 2 * PAD)
    whole = outline(shape, width, height)
    _surround(patch, style, kind, shape, whole, (width, height))
    if kind in FEATURES:
        rng = np.random.default_rng([kind, bay, floor, variant, int(style.width * 1e6)])
        FEATURES[kind](rng, style, whole + PAD, patch)
        return patch
    lights = [whole + PAD]
    if (kind == PAIR or style.window == "lancets") and kind not in (OCULUS, DOOR):
        narrow = outline(shape, width * 0.42, height)
        lights = [narrow + PAD, np.add(narrow, (PAD + width * 0.58, PAD))]
    for light in lights:
        _light(style, kind, light, patch)
    return patch


def _surround(patch: Patch, style: Style, kind: int, shape: str, whole: np.ndarray, size: tuple[int, int]) -> None:
    """Trim around the opening, sill, hood and shutters."""
    width, height = size
    trim = style.trim

    def raised(points, value, up: int) -> None:
        paint(np.add(points, PAD), (patch.colour, value), (patch.relief, BASE + up), (patch.mask, 255))

    if style.shutters and kind not in (DOOR, OCULUS, WIDE, *FEATURES) and shape != "circle":
        wide = min(width // 2, PAD - 3)
        slat = tuple(int(v * 0.8) for v in style.shutters)
        for x in (-wide - 2, width + 2):
            raised([(x, 2), (x + wide, 2), (x + wide, height - 1), (x, height - 1)], style.shutters, 5)
            patch.colour[PAD + 5 : PAD + height - 2 : 4, PAD + x + 1 : PAD + x + wide] = slat
    if style.surround != "none":
        t = 4.0 if style.surround in ("flat", "keyed") else 5.0
        centre = np.array((width / 2, height / 2))
        raised((whole - centre) * ((width + 2 * t) / width, (height + 2 * t) / height) + centre, trim, 5)
    if shape == "circle":
        return
    x = width / 2
    if style.surround == "keyed":
        k = max(3.0, width * 0.1)
        lighter = tuple(int(min(255, v * 1.05)) for v in trim)
        raised([(x - k * 1.3, -8), (x + k * 1.3, -8), (x + k, 3), (x - k, 3)], lighter, 9)
    if style.surround in ("hood", "pediment"):
        raised([(-7, -9), (width + 7, -9), (width + 7, -5), (-7, -5)], trim, 18)
        if style.surround == "pediment" and kind in (TALL, DOOR, WIDE, PAIR):
            darker = tuple(int(v * 0.86) for v in trim)
            raised([(-8, -9), (width + 8, -9), (x, -19)], darker, 12)
            raised([(-9, -9), (x, -22), (x, -18), (-4, -9)], trim, 20)
            raised([(width + 9, -9), (x, -22), (x, -18), (width + 4, -9)], trim, 20)
    if kind not in (DOOR, *FEATURES):  # the sill
        raised([(-5, height), (width + 5, height), (width + 5, height + 4), (-5, height + 4)], trim, 12)


def _light(style: Style, kind: int, points: np.ndarray, patch: Patch) -> None:
    """One opening in the wall: reveal, frame, panes; or a door's leaf under its fanlight."""
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    left, top = max(0, math.floor(x0) - 1), max(0, math.floor(y0) - 1)
    patch = patch.part(slice(top, int(y1) + 2), slice(left, int(x1) + 2))
    points = points - (left, top)
    inside = np.zeros(patch.mask.shape, np.uint8)
    leaf = style.door if kind == DOOR else style.frame
    deep = BASE - (38 if style.material in ("ashlar", "rubble") else 24)
    paint(points, (inside, 255), (patch.mask, 255), (patch.colour, leaf), (patch.relief, deep))
    x0, y0, x1, y1 = x0 - left, y0 - top, x1 - left, y1 - top
    if kind == DOOR:
        fanlight = y0 + (y1 - y0) * 0.26
        panes = np.zeros(patch.mask.shape, np.uint8)
        cv2.rectangle(panes, (int(x0 + 3), int(y0 + 3)), (int(x1 - 4), int(fanlight - 3)), 255, -1)
        _leaves(patch.colour, leaf, (x0, fanlight, x1, y1))
    else:
        across, down = style.bars
        if x1 - x0 < 14:
            across = min(across, 2)
        rows, columns = _stripes(len(inside), y0, y1, down), _stripes(inside.shape[1], x0, x1, across)
        panes = cv2.erode(inside, SQUARE)
        panes &= rows[:, None]
        panes &= columns
    stamp(patch.colour, panes, GLASS)
    cv2.bitwise_or(patch.glass, panes, patch.glass)
    stamp(patch.relief, panes, deep - 6)


def _stripes(length: int, start: float, end: float, number: int) -> np.ndarray:
    """255 where one of the panes between two frames is, (length,) uint8."""
    first, last = start + 1.5, end - 1.5
    step = (last - first) / number
    mask = np.zeros(length, np.uint8)
    for i in range(number):
        low = round(first + i * step + 1)
        high = round((last if i == number - 1 else first + (i + 1) * step) - 1)
        mask[max(0, min(low, high)) : max(low, high) + 1] = 255
    return mask


def _leaves(colour: np.ndarray, leaf, box: tuple[float, float, float, float]) -> None:
    """The two leaves of a door, with panels."""
    x0, y0, x1, y1 = box
    darker = tuple(int(v * 0.72) for v in leaf)
    for i in range(2):
        a, b = x0 + (x1 - x0) * i / 2, x0 + (x1 - x0) * (i + 1) / 2
        for y in np.linspace(y0 + 3, y1 - 2, 4)[:-1]:
            cv2.rectangle(colour, (int(a + 3), int(y)), (int(b - 3), int(y + (y1 - y0) / 3 - 6)), darker, 1)
    middle = int(x0 + (x1 - x0) / 2)
    cv2.line(colour, (middle, int(y0)), (middle, int(y1)), (20, 18, 18), 1)
