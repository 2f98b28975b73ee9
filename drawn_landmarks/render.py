"""Faces in a picture: which of them is seen where, and how each is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from .building import Block
from .camera import Camera
from .faces import Face
from .light import Light
from .shading import dim, reflections, shade_surface
from .surface import Surface

FACING = 0.02  # metres before a face's plane from which on it is drawn
TINY = 60.0  # pixels: smaller faces are filled with one colour
LANDMARK = 128  # pieces of the landmark have numbers from here on, all others lower ones
Window = tuple[int, int, int, int]  # left, top, right, bottom, pixels of the picture


@dataclass
class Piece:
    """A face as it lies in the picture, turned to the camera."""

    face: Face
    polygon: np.ndarray  # (n, 2) float pixels
    window: Window  # that it may cover
    landmark: bool = False
    shades: Sequence[np.ndarray] = ()  # convex solids (8, 3) and outlines (n, 3) that keep the sun off it
    wrap: bool = False  # its texture repeats
    fixed: np.ndarray | None = None  # (n, 2) int32, the polygon in sixteenths of a pixel
    area: float = 0.0  # pixels of the polygon, also those outside the picture
    number: int = 0  # in the canvas


class Canvas:
    """A picture in the making: colour (size, size, 3) uint8; the number of the piece that is seen at each place, until
    `mark_landmark` is called, and then 255 where the landmark is seen, (size, size) uint8."""

    def __init__(self, image: np.ndarray, pieces: Sequence[Piece]):
        """`pieces`: all that will be drawn, later ones over earlier ones."""
        self.image = image
        self.numbers, self.landmark = np.zeros((2, *image.shape[:2]), np.uint8)
        if not pieces:
            return
        points = np.concatenate([piece.polygon for piece in pieces])
        fixed, small = np.rint(points * 16).astype(np.int32), points.astype(np.float32)
        end = 0
        for count, piece in enumerate(pieces, 1):
            start, end = end, end + len(piece.polygon)
            piece.fixed, piece.area = fixed[start:end], cv2.contourArea(small[start:end])
            piece.number = min(count, LANDMARK - 1)  # the same for all where there are more, which is rare
            if piece.landmark:
                piece.number += LANDMARK
            cv2.fillPoly(self.numbers, [piece.fixed], piece.number, cv2.LINE_8, 4)
        self.pixels = cv2.calcHist([self.numbers], [0], None, [256], [0, 256]).ravel().tolist()  # seen of each number

    def covers(self, window: Window) -> bool:
        """Whether pieces that are still to be drawn cover all of a window."""
        x0, y0, x1, y1 = window
        return cv2.countNonZero(self.numbers[y0:y1, x0:x1]) == (x1 - x0) * (y1 - y0)

    def mark_landmark(self) -> None:
        """All pieces are drawn; what is drawn from now on stands before the landmark."""
        cv2.threshold(self.numbers, LANDMARK - 1, 255, cv2.THRESH_BINARY, self.landmark)
        self.numbers.fill(0)


def window_of(polygon: np.ndarray, size: int) -> Window | None:
    """The part of the picture that a polygon (n, 2) may cover, if any."""
    if len(polygon) < 3:
        return None
    xs, ys = polygon.T.tolist()
    x0, y0 = max(0, int(min(xs))), max(0, int(min(ys)))
    x1, y1 = min(size, int(max(xs)) + 2), min(size, int(max(ys)) + 2)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def draw_piece(canvas: Canvas, camera: Camera, piece: Piece, light: Light, rng: np.random.Generator) -> None:
    """Draw one piece into the picture."""
    face = piece.face
    hidden = canvas.pixels[piece.number] == 0  # what comes later covers it
    if hidden and (piece.area < TINY or not face.texture.glazed):
        return
    fade = 1 - math.exp(-math.dist(face.middle, camera.centre) / light.visibility)
    incident = light.incident(face.normal)
    if piece.area < TINY or len(face.surface.colour) == 1:
        flat = ((1 - fade) * face.surface.mean * incident.gain + fade * light.haze).tolist()
        cv2.fillPoly(canvas.image, [piece.fixed], [min(255.0, max(0.0, tone)) for tone in flat], cv2.LINE_8, 4)
        return
    x0, y0, x1, y1 = piece.window
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [piece.fixed], 255, cv2.LINE_8, 4, (-16 * x0, -16 * y0))
    x, y, width, height = cv2.boundingRect(mask)  # the smaller window that it fills
    if width == 0:
        return
    x0, y0 = x0 + x, y0 + y
    window = (x0, y0, x0 + width, y0 + height)
    level = face.level(piece.area)
    surface = face.surface.level(level)
    ppm = face.ppm / 2**level
    matrix = camera.plane_to_image(face.origin, face.u, face.v, ppm, len(surface.colour))
    if surface.relief is None and not piece.shades:
        lit = surface.colour
        tone = (1 - fade) * incident.gain
    else:
        left, top, surface = _visible_part(surface, matrix, window, 0.8 * ppm)
        if hidden:
            if cv2.hasNonZero(surface.glass):  # what follows gets the same random numbers as if it were seen
                reflections(light, rng)
            return
        lit = shade_surface(surface, face, incident, light, camera, ppm, (left, top), rng, piece.shades)
        tone = (1 - fade,) * 3
        for line in matrix:
            line[2] += left * line[0] + top * line[1]
    across, down, depth = matrix
    across = [a - x0 * d for a, d in zip(across, depth, strict=True)]
    down = [a - y0 * d for a, d in zip(down, depth, strict=True)]
    matrix = np.array((across, down, depth))
    border = cv2.BORDER_WRAP if piece.wrap else cv2.BORDER_REPLICATE
    drawn = cv2.warpPerspective(lit, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
    there = canvas.image[y0 : y0 + height, x0 : x0 + width]
    cv2.copyTo(dim(drawn, tone, fade * light.haze), mask[y : y + height, x : x + width], there)


def _visible_part(surface: Surface, matrix: list[list[float]], window: Window, margin: float):
    """The part of a surface that a window of the image can show: its left, its top, and the cut surface."""
    h, w = surface.colour.shape[:2]
    x0, y0, x1, y1 = window
    (a, b, c), (d, e, f), (g, p, q) = cv2.invert(np.array(matrix))[1].tolist()
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


@dataclass
class Outline:
    """The faces of a block as a camera sees them."""

    polygons: list[np.ndarray]  # (n, 2) pixels
    facing: list[float]  # metres that the camera stands before each face's plane


def outline_blocks(camera: Camera, blocks: Sequence[Block]) -> list[Outline]:
    """The outlines of blocks."""
    if not blocks:
        return []
    corners = np.concatenate([block.corners for block in blocks])
    starts = np.cumsum(np.concatenate([[0], *(block.lengths for block in blocks)]))
    normals = np.concatenate([block.normals for block in blocks])
    polygons = iter(camera.project_all(corners, starts))
    facing = iter((normals @ camera.centre - (normals * corners[starts[:-1]]).sum(1)).tolist())
    counts = [len(block.faces) for block in blocks]
    return [Outline(list(islice(polygons, count)), list(islice(facing, count))) for count in counts]


def lay_blocks(
    camera: Camera, blocks: list[Block], outlines: list[Outline], light: Light, opposite: np.ndarray | None = None
) -> list[Piece]:
    """Blocks that stand side by side, those farther along the street first; `opposite` shades their fronts."""
    x = float(camera.centre[0])
    distance = [max(block.left - x, x - block.right, 0.0) for block in blocks]
    sunny = light.sunny and light.kind != "night"
    across = [opposite] if sunny and opposite is not None and light.towards[2] > 0 else []
    pieces = []
    for i in np.argsort(distance, kind="stable")[::-1].tolist():
        block, outline = blocks[i], outlines[i]
        points = np.concatenate(outline.polygons)
        if not len(points) or min(points.max(0).tolist()) <= 0 or max(points.min(0).tolist()) >= camera.size:
            continue  # their common bounding box does not meet the frame
        beside = [*blocks[max(0, i - 2) : i], *blocks[i + 1 : i + 3]] if sunny else []
        forward = [b.solid for b in beside if b.front > block.front + 0.1]  # what may shade the front
        higher = [b.solid for b in beside if b.eaves > block.eaves + 0.5]  # what may shade sides and roof
        for k, (polygon, before) in enumerate(zip(outline.polygons, outline.facing, strict=True)):
            window = window_of(polygon, camera.size) if before > FACING else None
            if window is None:
                continue
            face = block.face(k)
            front = face.normal[2] > 0.5 and abs(face.normal[1]) < 0.1
            shades = forward + across if front else higher
            if face.area < 4.0:
                shades = []
            pieces.append(Piece(face, polygon, window, block.landmark, shades))
    return pieces
