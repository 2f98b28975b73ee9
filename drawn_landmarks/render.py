"""Drawing the faces of buildings into a picture, and where the landmark is in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .building import Block
from .camera import Camera
from .faces import Face
from .light import Light
from .shading import dim, shade_surface
from .surface import Surface

TINY = 60.0  # pixels: smaller faces are filled with one colour


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
    shades: Sequence[np.ndarray] = (),
    wrap: bool = False,
) -> None:
    """Draw one face that is turned to the camera and projects to `polygon` (n, 2).

    `shades`: convex solids (8, 3) and outlines (n, 3) that keep the sun off it.
    """
    window = _window(polygon, camera.size)
    if window is None:
        return
    fixed = np.rint(polygon * 16).astype(np.int32)
    seen = cv2.contourArea(polygon.astype(np.float32))
    fade = 1 - math.exp(-math.dist(face.middle, camera.centre) / light.visibility)
    cv2.fillPoly(canvas.landmark, [fixed], 255 if landmark else 0, cv2.LINE_8, 4)
    if seen < TINY or len(face.surface.colour) == 1:
        flat = ((1 - fade) * face.surface.mean * light.gain(face.normal) + fade * light.haze).tolist()
        cv2.fillPoly(canvas.image, [fixed], [min(255.0, max(0.0, tone)) for tone in flat], cv2.LINE_8, 4)
        return
    mask, (x0, y0, x1, y1) = _cut_out(fixed, window)
    if mask is None:
        return
    level = face.level(seen)
    surface = face.surface.level(level)
    ppm = face.ppm / 2**level
    matrix = camera.matrix @ face.texture_plane(ppm, len(surface.colour))  # texture to image
    if surface.relief is None and not shades:
        lit, tone = surface.colour, (1 - fade) * light.gain(face.normal)
    else:
        left, top, surface = _visible_part(surface, matrix, (x0, y0, x1, y1), 0.8 * ppm)
        lit = shade_surface(surface, face, light, camera, ppm, (left, top), rng, shades)
        tone = (1 - fade,) * 3
        matrix[:, 2] += left * matrix[:, 0] + top * matrix[:, 1]
    matrix[0] -= x0 * matrix[2]
    matrix[1] -= y0 * matrix[2]
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REPLICATE
    drawn = cv2.warpPerspective(lit, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=border)
    cv2.copyTo(dim(drawn, tone, fade * light.haze), mask, canvas.image[y0:y1, x0:x1])


Window = tuple[int, int, int, int]  # left, top, right, bottom, pixels of the picture


def _window(polygon: np.ndarray, size: int) -> Window | None:
    """The part of the picture that a polygon (n, 2) may cover, if any."""
    if len(polygon) < 3:
        return None
    xs, ys = polygon.T.tolist()
    x0, y0 = max(0, int(min(xs))), max(0, int(min(ys)))
    x1, y1 = min(size, int(max(xs)) + 2), min(size, int(max(ys)) + 2)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _cut_out(fixed: np.ndarray, window: Window) -> tuple[np.ndarray | None, Window]:
    """The mask of a polygon (n, 2) in sixteenths of a pixel, and the smaller window that it fills; None where empty."""
    x0, y0, x1, y1 = window
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [fixed - np.array((16 * x0, 16 * y0), np.int32)], 255, cv2.LINE_8, 4)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return None, window
    x0, y0 = x0 + left, y0 + top
    return mask[top : top + height, left : left + width], (x0, y0, x0 + width, y0 + height)


def _visible_part(surface: Surface, matrix: np.ndarray, window: Window, margin: float) -> tuple[int, int, Surface]:
    """The part of a surface that a window of the image can show: its left, its top, and the cut surface."""
    h, w = surface.colour.shape[:2]
    x0, y0, x1, y1 = window
    (a, b, c), (d, e, f), (g, p, q) = cv2.invert(matrix)[1].tolist()
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    depths = [g * x + p * y + q for x, y in corners]
    if min(depths) > 0 or max(depths) < 0:
        xs = [(a * x + b * y + c) / depth for (x, y), depth in zip(corners, depths, strict=True)]
        ys = [(d * x + e * y + f) / depth for (x, y), depth in zip(corners, depths, strict=True)]
        left, top = max(0, int(min(xs) - margin)), max(0, int(min(ys) - margin))
        right, bottom = min(w, int(max(xs) + margin) + 2), min(h, int(max(ys) + margin) + 2)
        if left < right and top < bottom and (right - left) * (bottom - top) < 0.8 * w * h:
            return left, top, surface.part(slice(top, bottom), slice(left, right))
    return 0, 0, surface


def _in_frame(polygons: list[np.ndarray], size: int) -> bool:
    """Whether the common bounding box of polygons meets the frame."""
    points = np.concatenate(polygons)
    return len(points) > 0 and min(points.max(0).tolist()) > 0 and max(points.min(0).tolist()) < size


def draw_blocks(
    canvas: Canvas, camera: Camera, blocks: list[Block], light: Light, rng, opposite: np.ndarray | None = None
) -> None:
    """Draw blocks that stand side by side, those farther along the street first; `opposite` shades their fronts."""
    x = camera.centre[0]
    distance = [max(block.left - x, x - block.right, 0.0) for block in blocks]
    sunny = light.direct.max() > 0 and light.kind != "night"
    across = [opposite] if sunny and opposite is not None and light.towards[2] > 0 else []
    for i in np.argsort(distance, kind="stable")[::-1].tolist():
        block = blocks[i]
        polygons = camera.project_rows(block.corners, block.starts)
        if not _in_frame(polygons, camera.size):
            continue
        beside = [*blocks[max(0, i - 2) : i], *blocks[i + 1 : i + 3]] if sunny else []
        forward = [b.solid for b in beside if b.front > block.front + 0.1]  # what may shade the front
        higher = [b.solid for b in beside if b.eaves > block.eaves + 0.5]  # what may shade sides and roof
        for k in block.facing(camera.centre, 0.02):
            face = block.face(k)
            front = face.normal[2] > 0.5 and abs(face.normal[1]) < 0.1
            shades = forward + across if front else higher
            if face.area < 4.0:
                shades = []
            draw_face(canvas, camera, face, polygons[k], light, rng, landmark=block.landmark, shades=shades)
