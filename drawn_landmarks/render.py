"""Drawing the faces of buildings into a picture, and where the landmark is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from .building import Block
from .camera import FIELD, NEAR, Camera
from .facade import Surface
from .faces import Face
from .light import Light
from .shading import dim, shade_surface

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
    fixed = np.rint(polygon * 16).astype(np.int32)
    seen = cv2.contourArea(polygon.astype(np.float32))
    fade = 1 - math.exp(-math.dist(face.middle, camera.centre) / light.visibility)
    gain = light.gain(face.normal)
    cv2.fillPoly(canvas.landmark, [fixed], 255 if landmark else 0, cv2.LINE_8, 4)
    if seen < TINY or len(face.surface.colour) == 1:
        flat = ((1 - fade) * face.surface.mean * gain + fade * light.haze).clip(0, 255)
        cv2.fillPoly(canvas.image, [fixed], flat.tolist(), cv2.LINE_8, 4)
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [fixed - np.array([x0, y0], np.int32) * 16], 255, cv2.LINE_8, 4)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    mask = mask[top : top + height, left : left + width]
    x0, y0, x1, y1 = x0 + left, y0 + top, x0 + left + width, y0 + top + height
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
    cv2.copyTo(dim(drawn, tone, fade * light.haze), mask, canvas.image[y0:y1, x0:x1])


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
