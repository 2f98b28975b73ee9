"""Drawing flat faces: texture, sun and shadow, window glass, distance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from .building import Block, Face
from .camera import FIELD, NEAR, Camera
from .facade import Surface
from .light import Light
from .openings import BASE

SHADOW_STEPS = 8
SOLID = 8  # corners of a solid; an outline has any other number
TINY = 60.0  # pixels: smaller faces are filled with one colour
REVEAL = 0.22  # metres: how deep windows lie in the wall, for oblique views


@dataclass
class Canvas:
    """A picture in the making: colour (size, size, 3) uint8 and, as 255, where the landmark is seen."""

    image: np.ndarray
    landmark: np.ndarray


def draw_face(
    canvas: Canvas,
    camera: Camera,
    face: Face,
    polygon: np.ndarray,
    light: Light,
    rng: np.random.Generator,
    *,
    landmark: bool = False,
    shades: tuple[np.ndarray, ...] = (),
    wrap: bool = False,
) -> None:
    """Draw one face that is turned to the camera and projects to `polygon` (n, 2).

    `shades`: convex solids (8, 3) and outlines (n, 3) that keep the sun off it.
    """
    if len(polygon) < 3:
        return
    size = camera.size
    (x0, y0), (x1, y1) = polygon.min(0).tolist(), polygon.max(0).tolist()
    x0, y0, x1, y1 = max(0, int(x0)), max(0, int(y0)), min(size, int(x1) + 2), min(size, int(y1) + 2)
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [np.rint((polygon - (x0, y0)) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    mask = mask[top : top + height, left : left + width]
    x0, y0, x1, y1 = x0 + left, y0 + top, x0 + left + width, y0 + top + height
    there, ids = canvas.image[y0:y1, x0:x1], canvas.landmark[y0:y1, x0:x1]
    seen = cv2.contourArea(polygon.astype(np.float32))
    fade = 1 - np.exp(-float(np.linalg.norm(face.middle - camera.centre)) / light.visibility)
    gain = np.sqrt(light.ambient(face.normal) + light.direct * max(0.0, float(face.normal @ light.towards)))
    (cv2.bitwise_or if landmark else cv2.subtract)(ids, mask, ids)
    if seen < TINY or len(face.surface.colour) == 1:
        there[mask > 0] = ((1 - fade) * face.surface.mean * gain + fade * light.haze).clip(0, 255)
        return
    texels = face.area * face.ppm**2 / (seen + 1.0)
    level = int(min(6, max(0, round(0.5 * np.log2(texels) - 0.1))))  # at which one texel is about one pixel
    surface = face.surface.level(level)
    ppm = face.ppm / 2**level
    to_plane = np.array([[1 / ppm, 0, 0.5 / ppm], [0, -1 / ppm, (len(surface.colour) - 0.5) / ppm], [0, 0, 1]])
    matrix = camera.matrix @ (face.plane @ to_plane)  # texture to image
    if surface.relief is None and not shades:
        lit, tone = surface.colour, (1 - fade) * gain
    else:
        left, top, surface = _visible_part(surface, matrix, (x0, y0, x1, y1), 0.8 * ppm)
        lit, tone = shade_surface(surface, face, light, camera, ppm, (left, top), rng, shades), np.full(3, 1 - fade)
        matrix = matrix @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    matrix[0] -= x0 * matrix[2]
    matrix[1] -= y0 * matrix[2]
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REPLICATE
    drawn = cv2.warpPerspective(lit, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=border)
    cv2.copyTo(dim(drawn, tone, fade * light.haze), mask, there)


def dim(image: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`image` (h, w, 3) uint8 times `gain` (3,) plus `offset` (3,)."""
    return cv2.transform(image, np.concatenate([np.diag(gain), np.reshape(offset, (3, 1))], 1))


def colours(index: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The colours (h, w, 3) uint8 that a table (256, 3) gives to the values of `index` (h, w) uint8."""
    table = table.clip(0, 255).astype(np.uint8)
    return cv2.merge([cv2.LUT(index, np.ascontiguousarray(table[:, c])) for c in range(3)])


def _visible_part(surface: Surface, matrix: np.ndarray, window: tuple[int, int, int, int], margin: float):
    """The part of a surface that a window of the image can show: its left, its top, and the cut surface."""
    h, w = surface.colour.shape[:2]
    x0, y0, x1, y1 = window
    back = np.linalg.inv(matrix) @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1.0]])
    if (back[2] > 0).all() or (back[2] < 0).all():
        xs, ys = back[:2] / back[2]
        left, top = max(0, int(xs.min() - margin)), max(0, int(ys.min() - margin))
        right, bottom = min(w, int(xs.max() + margin) + 2), min(h, int(ys.max() + margin) + 2)
        if left < right and top < bottom and (right - left) * (bottom - top) < 0.8 * w * h:
            return left, top, surface.part(slice(top, bottom), slice(left, right))
    return 0, 0, surface


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
    mirror = rng.uniform(0.05, 0.75, 256) ** 1.5
    table = mirror[:, None] * light.reflection
    lamps = np.flatnonzero(rng.random(256) < light.lit)
    table[lamps] = np.array([255, 204, 128]) * rng.uniform(0.5, 0.95, (len(lamps), 1)) + rng.normal(
        0, 12, (len(lamps), 3)
    )
    table[0] = 0
    shown = colours(surface.panes, table)
    cv2.add(lit, cv2.multiply(shown, cv2.merge([surface.glass] * 3), scale=1 / 255), lit)


def project_faces(camera: Camera, block: Block) -> list[np.ndarray]:
    """The polygon (n, 2) of every face of a block, all empty where none is in the frame."""
    points, starts = block.corners
    seen = points @ camera.matrix[:, :3].T + camera.matrix[:, 3]
    if seen[:, 2].min() < NEAR:
        return [camera.project(face.points) for face in block.faces]
    pixels = seen[:, :2] / seen[:, 2:]
    if np.abs(pixels).max() > FIELD * camera.size:
        return [camera.project(face.points) for face in block.faces]
    return [pixels[a:b] for a, b in pairwise(starts)]


def in_frame(polygons: list[np.ndarray], size: int) -> bool:
    """Whether the common bounding box of polygons meets the frame."""
    points = np.concatenate(polygons)
    return len(points) > 0 and points.max() > 0 and bool((points.max(0) > 0).all() and (points.min(0) < size).all())


def draw_blocks(
    canvas: Canvas, camera: Camera, blocks: list[Block], light: Light, rng, opposite: np.ndarray | None = None
) -> None:
    """Draw blocks that stand side by side, those farther along the street first; `opposite` shades their fronts."""
    x = camera.centre[0]
    distance = [max(block.left - x, x - block.right, 0.0) for block in blocks]
    sunny = light.direct.max() > 0 and light.kind != "night"
    across = (opposite,) if sunny and opposite is not None and light.towards[2] > 0 else ()
    for i in np.argsort(distance, kind="stable")[::-1]:
        block = blocks[i]
        polygons = project_faces(camera, block)
        if not in_frame(polygons, camera.size):
            continue
        beside = (*blocks[max(0, i - 2) : i], *blocks[i + 1 : i + 3]) if sunny else ()
        forward = tuple(b.solid for b in beside if b.front > block.front + 0.1)  # what may shade the front
        higher = tuple(b.solid for b in beside if b.eaves > block.eaves + 0.5)  # what may shade sides and roof
        normals, offsets = block.planes
        for k in np.flatnonzero(normals @ camera.centre - offsets > 0.02):
            face = block.faces[k]
            front = face.normal[2] > 0.5 and abs(face.normal[1]) < 0.1
            shades = () if face.area < 4.0 else (*forward, *across) if front else higher
            draw_face(canvas, camera, face, polygons[k], light, rng, landmark=block.landmark, shades=shades)
