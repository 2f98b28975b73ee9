"""Light on a textured surface: sun, shadow, the depth of window reveals, glass; and helpers that tint pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .camera import Camera
from .faces import Face
from .light import Incident, Light
from .materials import BASE
from .surface import Surface

SHADOW_STEPS = 8
SOLID = 8  # corners of a solid; an outline has any other number
LAMPLIGHT = np.array((255, 204, 128))
SHARES = np.linspace(0, 1, 256)[:, None]
SIDE = (0.78,) * 3  # of the light on a wall: on the sides of its windows
REVEAL = 0.22  # metres: how deep windows lie in the wall, for oblique views


def dim(image: np.ndarray, gain: Sequence[float], offset: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """`image` (h, w, 3) uint8 times `gain` (3,) plus `offset` (3,)."""
    (r, g, b), (x, y, z) = gain, offset
    return cv2.transform(image, np.array(((r, 0, 0, x), (0, g, 0, y), (0, 0, b, z))))


def darken(there: np.ndarray, gain: np.ndarray) -> None:
    """Multiply a picture (h, w, 3), in place, with `gain` of equal shape, in which 255 stands for 1; all uint8."""
    cv2.multiply(there, gain, there, scale=1 / 255)


def colours(index: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The colours (h, w, 3) uint8 that a table (256, 3) of numbers >= 0 gives to the values of `index` (h, w) uint8."""
    return cv2.applyColorMap(index, np.minimum(table, 255.0).astype(np.uint8)[:, None])


def shade_surface(
    surface: Surface, face: Face, incident: Incident, light: Light, camera: Camera, ppm: float, corner, rng, shades
) -> np.ndarray:
    """The surface (h, w, 3) uint8 as lit.

    `corner`: where in the face's whole texture this part begins, x and y. `shades`: as of a `Piece`.
    """
    ambient, facing, _ = incident
    if facing > 0.04 and light.sunny:
        sunlit = _sunlit(surface, face, light, facing, ppm, corner, shades)
        ramp = np.sqrt(SHARES * (facing * light.direct) + ambient)
        lit = cv2.multiply(surface.colour, colours(sunlit, ramp * 160), scale=1 / 160)
    else:
        lit = dim(surface.colour, np.sqrt(ambient))
    if surface.relief is not None:
        _reveals(lit, surface, face, camera, ppm)
        if cv2.hasNonZero(surface.glass):
            glass = cv2.cvtColor(surface.glass, cv2.COLOR_GRAY2RGB)
            shown = cv2.multiply(colours(surface.panes, reflections(light, rng)), glass, scale=1 / 255)
            cv2.add(lit, shown, lit)
    return lit


def _sunlit(surface: Surface, face: Face, light: Light, facing: float, ppm: float, corner, shades) -> np.ndarray:
    """Where sun or flood light reaches the surface, (h, w) uint8."""
    h, w = surface.colour.shape[:2]
    sunlit = np.full((h, w), 255, np.uint8)
    along, up, _ = (light.towards @ face.axes / facing).tolist()  # metres to the sun for each metre out
    if surface.relief is not None:
        _cast(sunlit, surface.relief, (along, -up), ppm / 100)
    whole = len(face.surface.colour) * ppm / face.ppm  # rows of the face's whole texture
    for solid in shades:
        local = (solid - face.origin) @ face.axes  # (n, 3), metres along, up and out
        if local[:, 2].max() >= 0.05:
            out = np.maximum(local[:, 2], 0.02)  # its part before the face
            spots = np.empty((len(local), 2))  # its shadow, pixels of this part of the texture
            spots[:, 0] = (local[:, 0] - along * out) * ppm - corner[0]
            spots[:, 1] = whole - (local[:, 1] - up * out) * ppm - corner[1]
            _blacken(sunlit, spots)
    if light.kind == "night":  # flood lights stand on the ground
        height = (np.arange(h)[::-1] + 0.5) / ppm + (face.points[:, 1].max() - h / ppm - corner[1] / ppm)
        falloff = (255 / (1 + np.maximum(height, 0) / 14)).astype(np.uint8)
        sunlit = cv2.multiply(sunlit, np.repeat(falloff[:, None], w, 1), scale=1 / 255)
    return sunlit


def _overlap(shape: tuple[int, int], dx: int, dy: int):
    """Slices of an array and of itself shifted by (dx, dy), or None where they do not meet."""
    h, w = shape
    if (dx == 0 and dy == 0) or abs(dx) >= w or abs(dy) >= h:
        return None
    here = (slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx)))
    there = (slice(max(0, dy), h - max(0, -dy)), slice(max(0, dx), w - max(0, -dx)))
    return here, there


def _cast(sunlit: np.ndarray, relief: np.ndarray, sun: tuple[float, float], ppc: float) -> None:
    """Darken, in place, what the wall's own relief keeps in shadow; `ppc` pixels per cm."""
    highest = int(cv2.minMaxLoc(relief)[1]) - BASE + 25
    reach = math.hypot(*sun) * highest * ppc
    if reach < 0.7:
        return
    steps = min(SHADOW_STEPS, max(2, math.ceil(reach)))
    last = (0, 0)
    for k in range(1, steps + 1):
        up = highest * k / steps
        shift = (round(sun[0] * up * ppc), round(sun[1] * up * ppc))
        cut = None if shift == last else _overlap(relief.shape, *shift)
        last = shift
        if cut:
            here, there = cut
            _, dark = cv2.threshold(cv2.subtract(relief[there], relief[here]), up - 1.5, 255, cv2.THRESH_BINARY)
            cv2.subtract(sunlit[here], dark, sunlit[here])


def _blacken(sunlit: np.ndarray, spots: np.ndarray) -> None:
    """Darken, in place, the shadow of a convex solid's corners (8, 2) or of an outline (n, 2)."""
    h, w = sunlit.shape
    xs, ys = spots.T.tolist()
    if max(xs) > 0 and max(ys) > 0 and min(xs) < w and min(ys) < h:
        spots = spots.clip(-20000, 20000)
        outline = cv2.convexHull(spots.astype(np.float32)) if len(spots) == SOLID else spots
        cv2.fillPoly(sunlit, [np.rint(outline).astype(np.int32)], 0)


def _reveals(lit: np.ndarray, surface: Surface, face: Face, camera: Camera, ppm: float) -> None:
    """Where the eye looks obliquely into a recess, it sees the wall's thickness, not the window."""
    eye = camera.centre - face.middle
    scale = REVEAL * ppm / max(float(eye @ face.normal), 0.1)
    dx, dy = round(-float(eye @ face.u) * scale), round(float(eye @ face.v) * scale)
    cut = _overlap(surface.relief.shape, max(-8, min(8, dx)), max(-8, min(8, dy)))
    if cut:
        here, there = cut
        deep = cv2.subtract(surface.relief[there], surface.relief[here])
        _, hidden = cv2.threshold(deep, 14, 255, cv2.THRESH_BINARY)
        cv2.copyTo(dim(lit[there], SIDE), hidden, lit[here])


def reflections(light: Light, rng: np.random.Generator) -> np.ndarray:
    """What each window shows, (256, 3), sRGB: the sky mirrored, each a little differently, and lamps behind some."""
    mirror = rng.uniform(0.05, 0.75, (256, 1))
    table = (mirror * np.sqrt(mirror)) * light.reflection
    lamps = np.flatnonzero(rng.random(256) < light.lit)
    if len(lamps):
        bright = rng.uniform(0.5, 0.95, (len(lamps), 1))
        table[lamps] = np.maximum(LAMPLIGHT * bright + rng.normal(0, 12, (len(lamps), 3)), 0)
    table[0] = 0
    return table
