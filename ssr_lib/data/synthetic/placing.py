"""Upright pictures on the ground: trees, people, cars, lamps, wires."""

from __future__ import annotations

import cv2
import numpy as np

from . import foliage, spec, street
from .camera import Camera
from .light import Light
from .render import Canvas, dim
from .structures import Structure

FRONTAL = np.array([0.0, 0.0, 1.0])


def occluders(canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator, structure: Structure) -> None:
    """Draw what stands between camera and building, the farthest first."""
    depth = max(camera.centre[2], 6.0)

    def place(low: float, high: float) -> np.ndarray:
        share = rng.uniform(low, high)
        middle = structure.width / 2 * (1 - share) + camera.centre[0] * share
        spread = (structure.width + 8) * (1 - 0.6 * share)
        return np.array([middle + rng.uniform(-0.75, 0.75) * spread, 0.0, share * depth])

    things = [("tree", place(0.12, 0.62)) for _ in range(rng.poisson(spec.TREES))]
    things += [("person", place(0.08, 0.8)) for _ in range(rng.poisson(spec.PEOPLE))]
    kerb = rng.uniform(0.15, 0.5)
    things += [("car", place(kerb, kerb + 0.02)) for _ in range(rng.poisson(spec.CARS))]
    things += [("lamp", place(0.2, 0.6)) for _ in range(rng.poisson(spec.LAMPS))]
    for what, at in sorted(things, key=lambda thing: thing[1][2]):
        if what == "tree":
            stand_tree(canvas, camera, light, rng, at, rng.uniform(4.5, 12.0))
            continue
        number = int(rng.integers(street.NUMBER))
        sprites = street.picture(what, number, what == "lamp" and light.lit > 0.1)
        gain = np.sqrt(light.ambient(FRONTAL) + light.direct * max(0.25, light.towards[2]) * 0.8)
        paint = lambda image, gain=gain: dim(image, np.minimum(gain, 1.15), np.zeros(3))  # noqa: E731
        stand(canvas, camera, light, sprites, paint, at, len(sprites[0]) / street.SCALE, what != "lamp")


def stand_tree(canvas: Canvas, camera: Camera, light: Light, rng, at: np.ndarray, height: float) -> None:
    """A random tree of about `height` metres with its foot at `at`."""
    kind = foliage.KINDS[rng.integers(len(foliage.KINDS))]
    sprites = foliage.tree(kind, int(rng.integers(foliage.SPECIMENS)))
    if kind == "bush":
        height *= 0.3
    if (light.towards[0] > 0) != (rng.random() < 0.1):
        height = -height  # mirrored
    strength = light.ambient(np.array([0, 0.6, 0.8])) + light.direct * (0.25 if light.kind == "night" else 0.7)
    tint, gain = foliage.draw_tint(rng), np.sqrt(strength)
    stand(canvas, camera, light, sprites, lambda image: foliage.paint_tree(image, tint, gain), at, height, True)


def stand(canvas, camera, light, sprites, paint, at: np.ndarray, height: float, shadow: bool) -> None:
    """Put an upright sprite on the ground at `at`, facing the camera; mirrored if `height` is negative.

    `sprites`: the picture (h, w, c) uint8, its last channel the opacity, and its halvings. `paint` turns the other
    channels, at their final size, into a colour (h, w, 3).
    """
    x, y, depth = camera.locate(at)
    if depth < 1.5:
        return
    h, w = sprites[0].shape[:2]
    factor = camera.focal / depth * abs(height) / h
    if factor * h < 2 or abs(x - camera.size / 2) > camera.size / 2 + factor * w / 2:
        return
    if shadow:
        _contact(canvas, x, y, w * factor * 0.36)
    left, top, right = x - w * factor / 2, y - h * factor, x + w * factor / 2
    x0, y0, x1, y1 = max(0, int(left)), max(0, int(top)), min(camera.size, int(right) + 1), min(camera.size, int(y) + 1)
    if x1 <= x0 or y1 <= y0:
        return
    level = int(min(len(sprites) - 1, max(0, np.floor(-np.log2(factor) + 0.4))))
    step = factor * h / sprites[level].shape[0]
    matrix = np.array([[step, 0, left - x0], [0, step, top - y0]])
    if height < 0:
        matrix[0] = -step, 0, right - x0
    drawn = cv2.warpAffine(sprites[level], matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    colour, opacity = paint(np.ascontiguousarray(drawn[..., :-1])), np.ascontiguousarray(drawn[..., -1])
    fade = 1 - np.exp(-depth / light.visibility)
    if fade > 0.02:
        colour = dim(colour, np.full(3, 1 - fade), light.haze * fade)
    blend(canvas.image[y0:y1, x0:x1], colour, opacity)
    canvas.landmark[y0:y1, x0:x1][opacity > 110] = 0


def blend(there: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
    """Lay a colour (h, w, 3) over `there`, in place, with an opacity (h, w); all uint8."""
    three = cv2.merge([opacity] * 3)
    cv2.add(cv2.multiply(colour, three, scale=1 / 255), cv2.multiply(there, 255 - three, scale=1 / 255), there)


def _contact(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """The soft shadow under what stands on the ground."""
    wide, flat = max(2, round(radius)), max(1, round(radius * 0.22))
    x, y, size = round(x), round(y), canvas.image.shape[0]
    x0, x1, y0, y1 = max(0, x - 2 * wide), min(size, x + 2 * wide), max(0, y - 3 * flat), min(size, y + 3 * flat)
    if x1 <= x0 or y1 <= y0:
        return
    across = np.exp(-(((np.arange(x0, x1) - x) / wide) ** 2))
    along = np.exp(-(((np.arange(y0, y1) - y) / flat) ** 2))
    gain = (255 * (1 - 0.55 * along[:, None] * across)).astype(np.uint8)
    there = canvas.image[y0:y1, x0:x1]
    cv2.multiply(there, cv2.merge([gain] * 3), there, scale=1 / 255)
