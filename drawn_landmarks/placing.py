"""Upright pictures on the ground: trees, people, cars, lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np

from . import foliage, spec, street
from .camera import Camera
from .chance import pick
from .light import Light
from .render import Canvas
from .shading import darken, dim
from .structures import Structure

FRONTAL = np.array([0.0, 0.0, 1.0])  # normals
FOLIAGE = np.array([0.0, 0.6, 0.8])


@dataclass(frozen=True)
class Thing:
    """Something that stands before a building."""

    what: str  # tree, person, car, lamp
    at: np.ndarray  # (3,) its foot, metres
    height: float  # of a tree, metres
    seed: int

    def shadow(self, slope: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ellipses (centre, radii) on the ground, x and z, that its shadow is made of."""
        foot = self.at[[0, 2]]
        if self.what == "tree":
            crown = self.height * 0.28
            return [(foot + slope * self.height * share, np.array([crown, crown * 0.8])) for share in (0.45, 0.7)]
        if self.what == "person":
            return [(foot + slope * share, np.array([0.25, 0.25])) for share in (0.3, 0.9, 1.4)]
        return [(foot, np.array([2.2, 1.0]))] if self.what == "car" else []


def draw_things(rng: np.random.Generator, camera: Camera, structure: Structure, kerb: float | None) -> list[Thing]:
    """Random trees, cars, lamps and people before a building, the farthest first; cars along a `kerb`, if any."""
    depth = max(camera.centre[2], 6.0)
    things = []

    def place(what: str, z: float) -> None:
        share = min(1.0, max(0.0, z / depth))
        middle = structure.width / 2 * (1 - share) + camera.centre[0] * share
        spread = (structure.width + 8) * (1 - 0.6 * share)
        at = np.array([middle + rng.uniform(-0.75, 0.75) * spread, 0.0, z])
        things.append(Thing(what, at, float(rng.uniform(4.5, 12.0)), int(rng.integers(1 << 30))))

    for _ in range(rng.poisson(spec.TREES)):
        place("tree", rng.uniform(0.12, 0.62) * depth if kerb is None or rng.random() < 0.3 else kerb - 0.8)
    for _ in range(rng.poisson(spec.PEOPLE)):
        place("person", rng.uniform(0.08, 0.8) * depth if rng.random() < 0.6 else rng.uniform(0.8, 3.0))
    for _ in range(rng.poisson(spec.CARS if kerb is not None else 0.3 * spec.CARS)):
        place("car", rng.uniform(0.2, 0.5) * depth if kerb is None else kerb + pick(rng, (1.2, 1.2, 4.5)))
    for _ in range(rng.poisson(spec.LAMPS)):
        place("lamp", rng.uniform(0.2, 0.6) * depth if kerb is None else kerb - 0.5)
    return sorted((thing for thing in things if thing.at[2] < 0.85 * depth), key=lambda thing: thing.at[2])


def stand_things(canvas: Canvas, camera: Camera, light: Light, things: list[Thing]) -> None:
    """Draw what stands before the building, and note that it hides what is behind it."""
    strength = light.ambient(FRONTAL) + light.direct * max(0.25, light.towards[2]) * 0.8
    gain = np.minimum(np.sqrt(strength), 1.15)
    for thing in things:
        rng = np.random.default_rng(thing.seed)
        if thing.what == "tree":
            stand_tree(canvas, camera, light, rng, thing.at, thing.height)
            continue
        sprites = street.picture(thing.what, int(rng.integers(street.NUMBER)), thing.what == "lamp" and light.lit > 0.1)
        tall = len(sprites[0]) / street.SCALE
        stand(canvas, camera, light, sprites, partial(tinted, gain=gain), thing.at, tall, thing.what != "lamp")


def tinted(sprite: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The colour (h, w, 3) of a picture with opacity (h, w, 4), times `gain` (3,)."""
    return dim(cv2.cvtColor(sprite, cv2.COLOR_RGBA2RGB), gain)


def stand_tree(canvas: Canvas, camera: Camera, light: Light, rng, at: np.ndarray, height: float) -> None:
    """A random tree of about `height` metres with its foot at `at`."""
    kind = pick(rng, foliage.KINDS)
    sprites = foliage.tree(kind, int(rng.integers(foliage.SPECIMENS)))
    if kind == "bush":
        height *= 0.3
    if (light.towards[0] > 0) != (rng.random() < 0.1):
        height = -height  # mirrored
    strength = light.ambient(FOLIAGE) + light.direct * (0.25 if light.kind == "night" else 0.7)
    paint = partial(foliage.paint_tree, tint=foliage.draw_tint(rng, kind), gain=np.sqrt(strength))
    stand(canvas, camera, light, sprites, paint, at, height, True)


def stand(canvas, camera, light, sprites, paint, at: np.ndarray, height: float, shadow: bool) -> None:
    """Put an upright sprite on the ground at `at`, facing the camera; mirrored if `height` is negative.

    `sprites`: the picture (h, w, c) uint8, its last channel the opacity, and its halvings. `paint` turns it, at its
    final size, into a colour (h, w, 3).
    """
    x, y, depth = camera.locate(at)
    if depth < 1.5:
        return
    h, w = sprites[0].shape[:2]
    factor = camera.focal / depth * abs(height) / h
    if factor * h < 2 or abs(x - camera.size / 2) > camera.size / 2 + factor * w / 2:
        return
    if shadow:
        _contact(canvas, x, y, w * factor * 0.24)
    left, top, right = x - w * factor / 2, y - h * factor, x + w * factor / 2
    x0, y0, x1, y1 = max(0, int(left)), max(0, int(top)), min(camera.size, int(right) + 1), min(camera.size, int(y) + 1)
    if x1 <= x0 or y1 <= y0 or canvas.covers((x0, y0, x1, y1)):
        return
    level = min(len(sprites) - 1, max(0, math.floor(-math.log2(factor) + 0.4)))
    step = factor * h / sprites[level].shape[0]
    across = (-step, 0, right - x0) if height < 0 else (step, 0, left - x0)
    matrix = np.array([across, (0, step, top - y0)])
    drawn = cv2.warpAffine(sprites[level], matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    colour, opacity = paint(drawn), cv2.extractChannel(drawn, drawn.shape[2] - 1)
    fade = 1 - math.exp(-depth / light.visibility)
    if fade > 0.02:
        colour = dim(colour, (1 - fade,) * 3, light.haze * fade)
    blend(canvas.image[y0:y1, x0:x1], colour, opacity)
    hidden = cv2.threshold(opacity, 110, 255, cv2.THRESH_BINARY_INV)[1]
    there = canvas.landmark[y0:y1, x0:x1]
    cv2.bitwise_and(there, hidden, there)


def blend(there: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
    """Lay a colour (h, w, 3) over `there`, in place, with an opacity (h, w); all uint8."""
    three = cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB)
    darken(colour, three)
    darken(there, cv2.bitwise_not(three))
    cv2.add(colour, there, there)


def _contact(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """The soft shadow under what stands on the ground."""
    wide, flat = max(2, round(radius)), max(1, round(radius * 0.22))
    left, top, size = round(x) - 2 * wide, round(y) - 3 * flat, canvas.image.shape[0]
    x0, x1, y0, y1 = max(0, left), min(size, left + 4 * wide), max(0, top), min(size, top + 6 * flat)
    if x1 > x0 and y1 > y0 and not canvas.covers((x0, y0, x1, y1)):
        darken(canvas.image[y0:y1, x0:x1], _soft(wide, flat)[y0 - top : y1 - top, x0 - left : x1 - left])


@lru_cache(maxsize=256)
def _soft(wide: int, flat: int) -> np.ndarray:
    """What the ground is darkened with, (6 flat, 4 wide, 3) uint8."""
    across = np.exp(-((np.arange(-2 * wide, 2 * wide) / wide) ** 2))
    along = np.exp(-((np.arange(-3 * flat, 3 * flat) / flat) ** 2))
    return cv2.cvtColor((255 * (1 - 0.45 * along[:, None] * across)).astype(np.uint8), cv2.COLOR_GRAY2RGB)
