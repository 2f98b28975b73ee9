"""Light on a textured surface: sun, shadow, the depth of window reveals, glass; and helpers that tint pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .camera import Camera
from .faces import Face
from .light import Light
from .materials import BASE
from .surface import Surface

SHADOW_STEPS = 8
SOLID = 8  # corners of a solid; an outline has any other number
LAMPLIGHT = np.array((255, 204, 128))
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
    surface: Surface,
    face: Face,
    light: Light,
    camera: Camera,
    ppm: float,
    corner: tuple[int, int],
    rng,
    shades: tuple[np.ndarray, ...],
) -> np.ndarray:
    """The surface (h, w, 3) uint8 as lit: textures hold about the square root of reflectance, so light does, too.

    `corner`: where in the face's whole texture this part begins.
    """
    ambient = light.ambient(face.normal)
    facing = float(face.normal @ light.towards)
    if facing > 0.04 and light.direct.max() > 0:
        sunlit = _sunlit(surface, face, light, facing, ppm, corner, shades)
        ramp = np.linspace(0, facing, 256)[:, None] * light.direct + ambient
        lit = cv2.multiply(surface.colour, colours(sunlit, np.sqrt(ramp) * 160), scale=1 / 160)
    else:
        lit = dim(surface.colour, np.sqrt(ambient), np.zeros(3))
    if surface.relief is not None:
        _reveals(lit, surface, face, camera, ppm)
        _glaze(lit, surface, light, rng)
    return lit


def _sunlit(surface: Surface, face: Face, light: Light, facing: float, ppm: float, corner, shades) -> np.ndarray:
    """Where sun or flood light reaches the surface, (h, w) uint8."""
    h, w = surface.colour.shape[:2]
    sunlit = np.full((h, w), 255, np.uint8)
    if surface.relief is not None:
        sun = (float(face.u @ light.towards) / facing, -float(face.v @ light.towards) / facing)  # axes of the texture
        _cast(sunlit, surface.relief, sun, ppm / 100)
    for solid in shades:
        _shadow_of(sunlit, solid, face, light, ppm, corner)
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
    highest = int(relief.max()) - BASE + 25
    reach = np.hypot(*sun) * highest * ppc
    if reach < 0.7:
        return
    steps = int(min(SHADOW_STEPS, max(2, np.ceil(reach))))
    last = (0, 0)
    for k in range(1, steps + 1):
        up = highest * k / steps
        shift = (round(sun[0] * up * ppc), round(sun[1] * up * ppc))
        cut = None if shift == last else _overlap(relief.shape, *shift)
        last = shift
        if cut:
            here, there = cut
            _, dark = cv2.threshold(cv2.subtract(relief[there], relief[here]), up - 1.5, 255, cv2.THRESH_BINARY)
            sunlit[here] = cv2.subtract(sunlit[here], dark)


def _shadow_of(sunlit: np.ndarray, solid: np.ndarray, face: Face, light: Light, ppm: float, corner) -> None:
    """Darken, in place, where a convex solid or an upright outline stands between the face and the sun."""
    heights = (solid - face.origin) @ face.normal
    if heights.max() < 0.05:
        return
    above = solid + np.maximum(0.02 - heights, 0)[:, None] * face.normal  # its part before the face
    along = ((above - face.origin) @ face.normal) / (face.normal @ light.towards)
    on = above - along[:, None] * light.towards - face.origin
    whole = len(face.surface.colour) * ppm / face.ppm  # rows of the face's whole texture
    spots = np.stack([on @ face.u * ppm - corner[0], whole - on @ face.v * ppm - corner[1]], 1).clip(-20000, 20000)
    h, w = sunlit.shape
    low, high = spots.min(0), spots.max(0)
    if high[0] > 0 and high[1] > 0 and low[0] < w and low[1] < h:
        outline = cv2.convexHull(spots.astype(np.float32)) if len(solid) == SOLID else spots
        cv2.fillPoly(sunlit, [np.rint(outline).astype(np.int32)], 0)


def _reveals(lit: np.ndarray, surface: Surface, face: Face, camera: Camera, ppm: float) -> None:
    """Where the eye looks obliquely into a recess, it sees the wall's thickness, not the window."""
    eye = camera.centre - face.middle
    scale = REVEAL * ppm / max(float(eye @ face.normal), 0.1)
    dx, dy = (max(-8, min(8, round(v * scale))) for v in (-float(eye @ face.u), float(eye @ face.v)))
    cut = _overlap(surface.relief.shape, dx, dy)
    if cut:
        here, there = cut
        deep = cv2.subtract(surface.relief[there], surface.relief[here])
        _, hidden = cv2.threshold(deep, 14, 255, cv2.THRESH_BINARY)
        side = dim(lit[there], np.full(3, 0.78), np.zeros(3))
        lit[here] = cv2.copyTo(side, hidden, np.ascontiguousarray(lit[here]))


def _glaze(lit: np.ndarray, surface: Surface, light: Light, rng) -> None:
    """Add what the glass shows: the sky mirrored, each window a little differently, and lamps behind some."""
    if not surface.glass.any():
        return
    mirror = rng.uniform(0.05, 0.75, 256) ** 1.5
    table = mirror[:, None] * light.reflection
    lamps = np.flatnonzero(rng.random(256) < light.lit)
    bright = rng.uniform(0.5, 0.95, (len(lamps), 1))
    table[lamps] = np.maximum(LAMPLIGHT * bright + rng.normal(0, 12, (len(lamps), 3)), 0)
    table[0] = 0
    shown = colours(surface.panes, table)
    cv2.add(lit, cv2.multiply(shown, cv2.merge([surface.glass] * 3), scale=1 / 255), lit)
