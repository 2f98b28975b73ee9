"""Drawing flat faces: texture, sun and shadow, window glass, distance."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .building import Block, Face
from .camera import Camera
from .facade import Surface
from .light import Light
from .openings import BASE

SHADOW_STEPS = 9


@dataclass
class Canvas:
    """A picture in the making: colour (size, size, 3) uint8 and, as 255, where the landmark is seen."""

    image: np.ndarray
    landmark: np.ndarray


@dataclass(frozen=True)
class Shade:
    """A shadow that falls on faces: the corners (n, 3) of what casts it."""

    points: np.ndarray


def draw_face(
    canvas: Canvas,
    camera: Camera,
    face: Face,
    light: Light,
    rng: np.random.Generator,
    *,
    landmark: bool = False,
    shades: tuple[np.ndarray, ...] = (),
    wrap: bool = False,
) -> None:
    """Draw one face over the canvas unless it is turned away. `shades`: convex solids (n, 3) that keep the sun off."""
    if np.dot(face.normal, camera.centre - face.points[0]) <= 0.02:
        return
    polygon = camera.project(face.points)
    if len(polygon) < 3:
        return
    size = camera.size
    x0, y0 = np.floor(np.clip(polygon.min(0), 0, size)).astype(int)
    x1, y1 = np.ceil(np.clip(polygon.max(0), 0, size)).astype(int) + 1
    x1, y1 = min(x1, size), min(y1, size)
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    bounded = np.clip(polygon - [x0, y0], -20000, 20000)
    cv2.fillPoly(mask, [np.round(bounded * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    level = _level(polygon, face)
    surface = face.surface.level(level)
    lit = shade_surface(surface, face, light, camera, level, rng, shades)
    h, w = lit.shape[:2]
    ppm = face.ppm / 2**level
    to_plane = np.array([[1 / ppm, 0, 0.5 / ppm], [0, -1 / ppm, (h - 0.5) / ppm], [0, 0, 1]])
    shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    matrix = shift @ camera.homography(face.origin, face.u, face.v) @ to_plane
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REPLICATE
    drawn = cv2.warpPerspective(lit, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=border)
    depth = float(np.linalg.norm(face.points.mean(0) - camera.centre))
    fade = 1 - np.exp(-depth / light.visibility)
    if fade > 0.02:
        drawn = cv2.addWeighted(drawn, 1 - fade, np.full_like(drawn, light.haze.astype(np.uint8)), fade, 0)
    cv2.copyTo(drawn, mask, canvas.image[y0:y1, x0:x1])
    canvas.landmark[y0:y1, x0:x1][mask > 0] = 255 if landmark else 0


def _level(polygon: np.ndarray, face: Face) -> int:
    """The halving of the texture at which one texel is about one pixel."""
    seen = abs(_area(polygon)) + 1.0
    plane = np.stack([(face.points - face.origin) @ face.u, (face.points - face.origin) @ face.v], 1) * face.ppm
    return int(np.clip(round(0.5 * np.log2(abs(_area(plane)) / seen) - 0.1), 0, 6))


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def shade_surface(
    surface: Surface, face: Face, light: Light, camera: Camera, level: int, rng, shades: tuple[np.ndarray, ...]
) -> np.ndarray:
    """The surface (h, w, 3) uint8 as lit: textures hold about the square root of reflectance, so light does, too."""
    normal = face.normal
    h, w = surface.colour.shape[:2]
    ambient = light.ambient(normal)
    facing = float(normal @ light.towards)
    direct = light.direct * max(0.0, facing)
    sunlit = None
    if facing > 0.04 and light.direct.max() > 0:
        ppm = face.ppm / 2**level
        sun = np.array([face.u @ light.towards, -(face.v @ light.towards)]) / facing  # image axes of the texture
        sunlit = np.full((h, w), 255, np.uint8)
        if surface.relief is not None:
            _cast(sunlit, surface.relief, sun, ppm / 100)
        for solid in shades:
            _shadow_of(sunlit, solid, face, light, ppm)
        if light.kind == "night":
            falloff = np.linspace(70, 255, h).astype(np.uint8)
            sunlit = cv2.multiply(sunlit, np.repeat(falloff[:, None], w, 1), scale=1 / 255)
    if sunlit is None:
        gain = np.sqrt(np.clip(ambient, 0, None))
        lit = cv2.multiply(surface.colour, (*gain.tolist(), 0.0))
    else:
        ramp = np.linspace(0, 1, 256)[:, None] * direct + ambient
        table = np.clip(np.sqrt(ramp) * 160, 0, 255).astype(np.uint8)[None]
        lit = cv2.multiply(surface.colour, cv2.LUT(cv2.merge([sunlit] * 3), table), scale=1 / 160)
    if surface.relief is not None:
        _reveals(lit, surface, face, camera, face.ppm / 2**level)
        _glaze(lit, surface, light, rng)
    return lit


def _cast(sunlit: np.ndarray, relief: np.ndarray, sun: np.ndarray, ppc: float) -> None:
    """Darken, in place, what the wall's own relief keeps in shadow; `ppc` pixels per cm."""
    highest = int(relief.max()) - BASE + 25
    reach = np.linalg.norm(sun) * highest * ppc
    if reach < 0.7:
        return
    steps = int(min(SHADOW_STEPS, max(2, np.ceil(reach))))
    h, w = relief.shape
    for k in range(1, steps + 1):
        up = highest * k / steps
        dx, dy = (int(round(v * up * ppc)) for v in sun)
        if (dx, dy) == (0, 0) or abs(dx) >= w or abs(dy) >= h:
            continue
        here = (slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx)))
        there = (slice(max(0, dy), h - max(0, -dy)), slice(max(0, dx), w - max(0, -dx)))
        higher = cv2.subtract(relief[there], relief[here])
        sunlit[here][higher >= up - 1.5] = 0


def _shadow_of(sunlit: np.ndarray, solid: np.ndarray, face: Face, light: Light, ppm: float) -> None:
    """Darken, in place, where a convex solid stands between the face and the sun."""
    heights = (solid - face.origin) @ face.normal
    if heights.max() < 0.05:
        return
    above = solid + np.clip(0.02 - heights, 0, None)[:, None] * face.normal  # its part before the face
    along = ((above - face.origin) @ face.normal) / (face.normal @ light.towards)
    on = above - along[:, None] * light.towards - face.origin
    spots = np.stack([on @ face.u * ppm, sunlit.shape[0] - on @ face.v * ppm], 1)
    hull = cv2.convexHull(np.clip(spots, -20000, 20000).astype(np.float32))
    cv2.fillConvexPoly(sunlit, np.round(hull).astype(np.int32), 0)


def _reveals(lit: np.ndarray, surface: Surface, face: Face, camera: Camera, ppm: float) -> None:
    """Where the eye looks obliquely into a recess, it sees the wall's thickness, not the window."""
    eye = camera.centre - face.points.mean(0)
    out = float(eye @ face.normal)
    dx = int(round(-(eye @ face.u) / out * 0.22 * ppm))
    dy = int(round((eye @ face.v) / out * 0.22 * ppm))
    h, w = surface.relief.shape
    dx, dy = int(np.clip(dx, -8, 8)), int(np.clip(dy, -8, 8))
    if (dx, dy) == (0, 0) or abs(dx) >= w or abs(dy) >= h:
        return
    here = (slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx)))
    there = (slice(max(0, dy), h - max(0, -dy)), slice(max(0, dx), w - max(0, -dx)))
    hidden = (cv2.subtract(surface.relief[there], surface.relief[here]) > 14).astype(np.uint8)
    side = cv2.multiply(np.ascontiguousarray(lit[there]), (0.78, 0.78, 0.78, 0.0))
    lit[here] = cv2.copyTo(side, hidden, np.ascontiguousarray(lit[here]))


def _glaze(lit: np.ndarray, surface: Surface, light: Light, rng) -> None:
    """Add what the glass shows: the sky mirrored, each window a little differently, and lamps behind some."""
    mirror = rng.uniform(0.05, 0.75, 256) ** 1.5
    table = mirror[:, None] * light.reflection
    lamps = np.where(rng.random(256) < light.lit)[0]
    warm = np.array([255, 204, 128]) * rng.uniform(0.55, 1.0, (len(lamps), 1)) + rng.normal(0, 12, (len(lamps), 3))
    table[lamps] = warm
    table[0] = 0
    shown = cv2.LUT(cv2.merge([surface.panes] * 3), np.clip(table, 0, 255).astype(np.uint8)[None])
    cv2.add(lit, cv2.multiply(shown, cv2.merge([surface.glass] * 3), scale=1 / 255), lit)


def draw_blocks(canvas: Canvas, camera: Camera, blocks: list[Block], light: Light, rng, shades=()) -> None:
    """Draw blocks that stand side by side: those farther along the street from the camera first."""
    x = camera.centre[0]
    distance = [max(block.left - x, x - block.right, 0.0) for block in blocks]
    solids = [solid_of(block) for block in blocks]
    for i in np.argsort(distance, kind="stable")[::-1]:
        others = tuple(s for j, s in enumerate(solids) if j != i and abs(j - i) <= 2)
        for face in blocks[i].faces:
            draw_face(canvas, camera, face, light, rng, landmark=blocks[i].landmark, shades=(*others, *shades))


def solid_of(block: Block) -> np.ndarray:
    """The corners (8, 3) of a block's walls, for the shadow it casts."""
    top = max(float(face.points[:, 1].max()) for face in block.faces if abs(face.normal[1]) < 1e-6)
    return np.array(
        [(x, y, z) for x in (block.left, block.right) for y in (0.0, top) for z in (block.back, block.front)]
    )
