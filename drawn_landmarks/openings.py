"""Windows and doors: small pictures of colour, relief and glass, pasted into walls."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from .materials import PPM
from .structures import ARCADE, CLOCK, DOOR, OCULUS, PAIR, SHOP, SMALL, TALL, WIDE
from .styles import Style

BASE = 70  # relief of the wall's own surface; relief is in cm, uint8
GLASS = (30, 33, 38)  # what shows through a window by day; reflections are added to it
PAD = PPM  # pixels around an opening for its surround


@dataclass(frozen=True)
class Patch:
    """An opening with `PAD` pixels around it; only where `mask` is set it replaces the wall."""

    colour: np.ndarray  # (h, w, 3) uint8
    relief: np.ndarray  # (h, w) uint8
    glass: np.ndarray  # (h, w) uint8: 255 where glass
    mask: np.ndarray  # (h, w) uint8


def outline(shape: str, width: float, height: float) -> np.ndarray:
    """The outline (n, 2) of an opening, x in [0, width], y down in [0, height]."""
    t = np.linspace(0, 1, 13)
    half = width / 2
    if shape == "circle":
        a = 2 * np.pi * np.linspace(0, 1, 24, endpoint=False)
        return np.stack([half + half * np.cos(a), height / 2 + half * np.sin(a)], 1)
    if shape in ("round", "horseshoe"):
        rise = min(half, height * 0.6)
        a = np.pi * (1 - t)
        arch = np.stack([half + half * np.cos(a), rise - rise * np.sin(a)], 1)
        if shape == "horseshoe":
            arch = np.concatenate([[[0.12 * width, rise * 1.35]], arch, [[0.88 * width, rise * 1.35]]])
            foot = [[0.88 * width, height], [0.12 * width, height]]
            return np.concatenate([arch, foot])
    elif shape == "pointed":
        rise = min(width * 0.9, height * 0.6)
        across = 1 - np.sqrt(np.clip(1 - (0.86 * t) ** 2, 0, 1))  # an arc of a circle, from springing to point
        left = np.stack([half * across / across[-1], rise * (1 - t)], 1)
        arch = np.concatenate([left, left[::-1] * [-1, 1] + [width, 0]])
    elif shape == "segmental":
        rise = min(0.16 * width, height * 0.3)
        arch = np.stack([t * width, rise * (2 * t - 1) ** 2], 1)
    else:
        arch = np.array([[0, 0], [width, 0]], float)
    return np.concatenate([arch, [[width, height], [0, height]]])


def _fill(target, points, value) -> None:
    _paint(points, (target, value))


def _paint(points, *layers) -> None:
    """Fill a polygon (n, 2), pixels, in several layers, each given with its value."""
    fixed = [np.rint(np.asarray(points) * 16).astype(np.int32)]
    for target, value in layers:
        cv2.fillPoly(target, fixed, value, cv2.LINE_8, 4)


def _scaled(points, factor_x, factor_y, centre):
    return (points - centre) * [factor_x, factor_y] + centre


class Openings:
    """The openings of one style, each drawn when it is first wanted."""

    def __init__(self, style: Style):
        self.style = style
        self._drawn: dict[tuple[int, int, int, int], Patch] = {}

    def get(self, kind: int, bay: int, floor: int, variant: int = 0) -> Patch:
        """As `opening`."""
        key = (kind, bay, floor, variant)
        if key not in self._drawn:
            self._drawn[key] = opening(self.style, *key)
        return self._drawn[key]


def opening(style: Style, kind: int, bay: int, floor: int, variant: int) -> Patch:
    """The picture of one opening of a style for a cell of `bay` x `floor` pixels. Variants differ in shop signs."""
    rng = np.random.default_rng([kind, bay, floor, variant, int(style.width * 1e6)])
    share = {TALL: (1.0, 1.16), SMALL: (0.8, 0.5), OCULUS: (0.9, 0.5), PAIR: (1.25, 1.0), WIDE: (1.45, 1.05)}
    fx, fy = share.get(kind, (1.0, 1.0))
    width = int(np.clip(bay * style.width * fx, 8, bay * 0.9))
    height = int(np.clip(floor * style.height * fy, 9, floor * 0.82))
    if kind == DOOR:
        width, height = int(min(bay * 0.7, max(1.3 * PPM, bay * 0.45))), int(floor * 0.74)
    if kind in (ARCADE, SHOP):
        width, height = int(bay * (0.74 if kind == ARCADE else 0.86)), int(floor * 0.84)
    if kind == CLOCK:
        width = height = int(min(bay * 0.62, floor * 0.66))
    if kind == OCULUS:
        width = height = min(width, height)
    shape_name = {"strip": "rect", "lancets": "pointed"}.get(style.window, style.window)
    if kind in (OCULUS, CLOCK):
        shape_name = "circle"
    if kind == SHOP:
        shape_name = "rect"
    h, w = height + 2 * PAD, width + 2 * PAD
    colour = np.zeros((h, w, 3), np.uint8)
    relief = np.full((h, w), BASE, np.uint8)
    glass, mask = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    whole = outline(shape_name, width, height)
    centre = np.array([width / 2, height / 2])
    _surround(style, kind, shape_name, whole, centre, (width, height), colour, relief, mask)
    if kind in PLAIN:
        PLAIN[kind](rng, style, whole + PAD, colour, relief, glass, mask)
        return Patch(colour, relief, glass, mask)
    lights = [whole + PAD]
    if (kind == PAIR or style.window == "lancets") and kind not in (OCULUS, DOOR):
        narrow = outline(shape_name, width * 0.42, height)
        lights = [narrow + PAD, narrow + np.array([PAD + width * 0.58, PAD])]
    for light in lights:
        _light(rng, style, kind, light, colour, relief, glass, mask)
    return Patch(colour, relief, glass, mask)


def _surround(style, kind, shape, whole, centre, size, colour, relief, mask):
    """Trim around the opening, sill, hood and shutters."""
    width, height = size
    paint = lambda points, value, up: _paint(points + PAD, (colour, value), (relief, BASE + up), (mask, 255))
    trim = style.trim
    dark = tuple(int(v * 0.86) for v in trim)
    if style.shutters and kind not in (DOOR, OCULUS, WIDE, *PLAIN) and shape != "circle":
        sw = min(width // 2, PAD - 3)
        for x in (-sw - 2, width + 2):
            paint(np.array([[x, 2], [x + sw, 2], [x + sw, height - 1], [x, height - 1]], float), style.shutters, 5)
            slat = tuple(int(v * 0.8) for v in style.shutters)
            for y in range(5, height - 2, 4):
                cv2.line(colour, (PAD + x + 1, PAD + y), (PAD + x + sw - 1, PAD + y), slat, 1)
    if style.surround != "none":
        t = 4.0 if style.surround in ("flat", "keyed") else 5.0
        paint(_scaled(whole, (width + 2 * t) / width, (height + 2 * t) / height, centre), trim, 5)
    if style.surround == "keyed" and shape != "circle":
        k = max(3.0, width * 0.1)
        top = np.array([[width / 2 - k * 1.3, -8], [width / 2 + k * 1.3, -8], [width / 2 + k, 3], [width / 2 - k, 3]])
        paint(top, tuple(int(min(255, v * 1.05)) for v in trim), 9)
    if style.surround in ("hood", "pediment") and shape != "circle":
        paint(np.array([[-7, -9], [width + 7, -9], [width + 7, -5], [-7, -5]], float), trim, 18)
        if style.surround == "pediment" and kind in (TALL, DOOR, WIDE, PAIR):
            paint(np.array([[-8, -9], [width + 8, -9], [width / 2, -19]], float), dark, 12)
            paint(np.array([[-9, -9], [width / 2, -22], [width / 2, -18], [-4, -9]], float), trim, 20)
            paint(np.array([[width + 9, -9], [width / 2, -22], [width / 2, -18], [width + 4, -9]], float), trim, 20)
    if kind not in (DOOR, *PLAIN) and shape != "circle":  # the sill
        paint(np.array([[-5, height], [width + 5, height], [width + 5, height + 4], [-5, height + 4]], float), trim, 12)


def _light(rng, style, kind, points, colour, relief, glass, mask):
    """One opening in the wall: reveal, frame, panes; or a door's leaf under its fanlight."""
    corner = np.maximum(0, np.floor(points.min(0)).astype(int) - 1)
    cut = (slice(corner[1], int(points[:, 1].max()) + 2), slice(corner[0], int(points[:, 0].max()) + 2))
    colour, relief, glass, mask, points = colour[cut], relief[cut], glass[cut], mask[cut], points - corner
    inside = np.zeros(mask.shape, np.uint8)
    leaf = style.door if kind == DOOR else style.frame
    deep = BASE - (38 if style.material in ("ashlar", "rubble") else 24)
    _paint(points, (inside, 255), (mask, 255), (colour, leaf), (relief, deep))
    x0, y0 = points.min(0)
    x1, y1 = points.max(0)
    width, height = x1 - x0, y1 - y0
    panes = np.zeros(mask.shape, np.uint8)
    across, down = style.bars
    if kind == DOOR:
        top = y0 + height * 0.26
        cv2.rectangle(panes, (int(x0 + 3), int(y0 + 3)), (int(x1 - 4), int(top - 3)), 255, -1)
        for i in range(2):  # two leaves with panels
            a, b = x0 + width * i / 2, x0 + width * (i + 1) / 2
            for y in np.linspace(top + 3, y1 - 2, 4)[:-1]:
                cv2.rectangle(
                    colour,
                    (int(a + 3), int(y)),
                    (int(b - 3), int(y + (y1 - top) / 3 - 6)),
                    tuple(int(v * 0.72) for v in leaf),
                    1,
                )
        cv2.line(colour, (int(x0 + width / 2), int(top)), (int(x0 + width / 2), int(y1)), (20, 18, 18), 1)
    else:
        if width < 14:
            across = min(across, 2)
        xs = np.linspace(x0 + 1.5, x1 - 1.5, across + 1)
        ys = np.linspace(y0 + 1.5, y1 - 1.5, down + 1)
        for a, b in itertools.pairwise(xs):
            for c, d in itertools.pairwise(ys):
                cv2.rectangle(panes, (round(a + 1), round(c + 1)), (round(b - 1), round(d - 1)), 255, -1)
        eroded = cv2.erode(inside, np.ones((3, 3), np.uint8))
        panes &= eroded
    clear = panes > 0
    colour[clear] = GLASS
    glass[clear] = 255
    relief[clear] = deep - 6


def _clock(rng, style, points, colour, relief, glass, mask) -> None:
    """A dial with its hands."""
    x, y = points.mean(0)
    radius = np.ptp(points[:, 0]) / 2
    _fill(mask, points, 255)
    _fill(relief, points, BASE + 4)
    _fill(colour, points, (46, 44, 44))
    _fill(colour, (points - (x, y)) * 0.86 + (x, y), (226, 220, 204))
    centre = (round(x), round(y))
    for hour in range(12):
        a = hour * np.pi / 6
        ends = [(round(x + r * radius * np.sin(a)), round(y - r * radius * np.cos(a))) for r in (0.66, 0.8)]
        cv2.line(colour, *ends, (40, 38, 38), 2 if hour % 3 == 0 else 1)
    for a, r in ((-0.9, 0.42), (1.15, 0.66)):
        end = (round(x + r * radius * np.sin(a)), round(y - r * radius * np.cos(a)))
        cv2.line(colour, centre, end, (30, 28, 28), 2, cv2.LINE_AA)


def _arcade(rng, style, points, colour, relief, glass, mask) -> None:
    """An open arch with a passage in shadow behind it."""
    _fill(mask, points, 255)
    _fill(relief, points, BASE - 60)
    inside = np.zeros(mask.shape, np.uint8)
    _fill(inside, points, 255)
    rows = np.arange(len(mask), dtype=np.float32)[:, None]
    depth = np.clip((rows - points[:, 1].min()) / np.ptp(points[:, 1]), 0, 1)
    tone = 0.16 + 0.26 * depth**2
    shadowed = (tone[..., None] * np.float32(style.wall)).astype(np.uint8)
    colour[inside > 0] = np.broadcast_to(shadowed, colour.shape)[inside > 0]
    x, y1 = points[:, 0].mean(), points[:, 1].max()
    half, tall = np.ptp(points[:, 0]) * 0.2, np.ptp(points[:, 1]) * 0.5
    door = np.array([[x - half, y1], [x + half, y1], [x + half, y1 - tall], [x - half, y1 - tall]])
    _fill(colour, door, tuple(int(v * 0.3) for v in style.door))


SIGNS = ((40, 62, 52), (96, 34, 34), (36, 44, 70), (196, 186, 164), (58, 52, 48), (150, 116, 60), (60, 90, 96))


def _shop(rng, style, points, colour, relief, glass, mask) -> None:
    """A shop window under its sign, sometimes with an awning."""
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    box = lambda a, b, c, d: np.array([[a, b], [c, b], [c, d], [a, d]])
    paint = SIGNS[rng.integers(len(SIGNS))]
    _fill(mask, points, 255)
    _fill(colour, points, paint)
    _fill(relief, points, BASE + 4)
    sign, riser, width = y0 + 0.17 * (y1 - y0), y1 - 0.16 * (y1 - y0), x1 - x0
    letters = (222, 212, 186) if sum(paint) < 380 else (60, 52, 48)
    for x in np.arange(x0 + 0.2 * width, x0 + rng.uniform(0.5, 0.8) * width, 4.0):
        _fill(colour, box(x, y0 + 5, x + rng.uniform(1.5, 3.0), sign - 4), letters)
    door = x0 + width * rng.choice([0.08, 0.4, 0.7])
    for a, b, c, d in ((x0 + 3, sign + 2, x1 - 3, riser), (door, sign + 2, door + 0.24 * width, y1 - 2)):
        _fill(colour, box(a, b, c, d), (52, 50, 48))
        _fill(relief, box(a, b, c, d), BASE - 12)
        _fill(glass, box(a, b, c, d), 255)
    for x in (door, door + 0.24 * width, x0 + 0.5 * width):
        _fill(colour, box(x - 1, sign, x + 1, y1), paint)
        _fill(glass, box(x - 1, sign, x + 1, y1), 0)
    if rng.random() < 0.45:
        cloth = SIGNS[rng.integers(len(SIGNS))]
        low = sign + 0.2 * (y1 - y0)
        for k, x in enumerate(np.arange(x0 - 2, x1, 7.0)):
            stripe = cloth if k % 2 else (214, 208, 194)
            _fill(colour, box(x, sign - 2, min(x + 7.0, x1 + 2), low), stripe)
        for target, value in ((relief, BASE + 80), (glass, 0), (mask, 255)):
            _fill(target, box(x0 - 2, sign - 2, x1 + 2, low), value)


PLAIN = {CLOCK: _clock, ARCADE: _arcade, SHOP: _shop}  # openings that are no window and no door
