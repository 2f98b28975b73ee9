"""Around a landmark: neighbours that are nobody's landmark, far houses and hills."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from . import spec
from .building import Block, build
from .camera import Camera
from .chance import pick
from .light import Light, draw_light
from .noise import patch
from .placing import blend, stand_tree
from .render import Canvas, draw_piece, lay_blocks, outline_blocks
from .shading import dim
from .structures import Structure, draw_structure
from .styles import draw_style

POOL = 18  # buildings
STRIPS = 3  # backdrops
STRIP_WIDTH, STRIP_HEIGHT, STRIP_PPM = 110.0, 26.0, 8
HILLSIDE = np.array([0.0, 0.4, 0.9])  # normal
# Distance, lowest and highest top, metres; share of haze; colour.
HILLS = ((2400.0, 10, 90, 0.82, (84, 92, 84)), (420.0, 3, 17, 0.55, (66, 78, 52)))


@dataclass
class Neighbourhood:
    """A pool of buildings that stand beside and, as backdrops, far behind landmarks."""

    blocks: list[Block]
    seed: tuple[int, ...]
    _strips: dict = field(default_factory=dict, repr=False)

    @classmethod
    def draw(cls, seed: tuple[int, ...]) -> Neighbourhood:
        """The pool that belongs to a seed."""
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        blocks = []
        for _ in range(POOL):
            mass = next(mass for mass in draw_structure(rng).masses if mass.kind == "body")
            mass = replace(mass, left=0.0, front=0.0, porch=None)
            blocks += build(Structure((mass,)), draw_style(rng), rng, landmark=False)
        return cls(blocks, tuple(seed))

    def backdrop(self, index: int, kind: str) -> np.ndarray:
        """A row of houses in light of a kind as seen from afar: (h, w, 4) uint8, its last channel the opacity."""
        if (index, kind) not in self._strips:
            rng = np.random.default_rng(np.random.SeedSequence([*self.seed, index + 1]))
            row = []
            x = 0.0
            while x < STRIP_WIDTH:
                block = pick(rng, self.blocks)
                row.append(replace(block.moved(x - block.left, 0.0), landmark=True))  # to know where they are
                x += block.right - block.left + pick(rng, (0.0, 0.0, 4.0))
            size = round(STRIP_WIDTH * STRIP_PPM)
            away = 900.0
            eye = (STRIP_WIDTH / 2, 1.7, away)
            camera = Camera.look_at(eye, (STRIP_WIDTH / 2, 1.7, 0.0), STRIP_PPM * away, size)
            light = replace(draw_light(rng, kind), visibility=1e9)
            pieces = lay_blocks(camera, row, outline_blocks(camera, row), light)
            canvas = Canvas(np.zeros((size, size, 3), np.uint8), pieces)
            for piece in pieces:
                draw_piece(canvas, camera, piece, light, rng)
            canvas.mark_landmark()
            foot = size // 2 + round(1.7 * STRIP_PPM)
            rows = slice(foot - round(STRIP_HEIGHT * STRIP_PPM), foot)
            self._strips[index, kind] = cv2.merge([canvas.image[rows], canvas.landmark[rows]])
        return self._strips[index, kind]


def beside(rng: np.random.Generator, structure: Structure, pool: list[Block]) -> tuple[list[Block], list[Block]]:
    """Neighbours to the left and to the right of a building, each from left to right."""
    sides: tuple[list[Block], list[Block]] = ([], [])
    for side in (0, 1):
        if rng.random() > spec.NEIGHBOUR:
            continue
        gap = pick(rng, (0.0, 0.0, rng.uniform(1, 9)))
        edge = -gap if side == 0 else structure.width + gap
        back = rng.uniform(-4, 0.5)
        for _ in range(2):
            block = pick(rng, pool)
            width = block.right - block.left
            left = edge - width if side == 0 else edge
            sides[side].append(block.moved(left - block.left, back))
            edge = left if side == 0 else left + width
    return sides[0][::-1], sides[1]


def draw_background(canvas: Canvas, camera: Camera, light: Light, rng, town: Neighbourhood) -> None:
    """Far behind: rows of houses in the haze, and trees."""
    forward = camera.rotation[2]
    centre = camera.centre[0] - forward[0] / min(-0.2, forward[2]) * (camera.centre[2] + 45)
    if rng.random() < 0.65:
        strip = town.backdrop(int(rng.integers(STRIPS)), light.kind)
        if rng.random() < 0.5:
            strip = cv2.flip(strip, 1)
        start, z = rng.uniform(-30, 30), rng.uniform(-75, -35)
        for k in (-1, 0, 1):
            _billboard(canvas, camera, light, strip, centre + start + (k - 0.5) * STRIP_WIDTH, z)
    for _ in range(int(rng.integers(0, 6))):
        at = np.array([centre + rng.uniform(-55, 55), 0.0, rng.uniform(-34, -18)])
        stand_tree(canvas, camera, light, rng, at, rng.uniform(6, 13))


def draw_hills(canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    """Two lines of hills or woods at the horizon, the farther one paler."""
    forward = camera.rotation[2]
    middle = np.arctan2(forward[0], -forward[2])
    angles = middle + np.linspace(-1.1, 1.1, 40)
    sideways, away = np.sin(angles), np.cos(angles)
    bright = np.sqrt(light.ambient(HILLSIDE) + 0.5 * light.direct)
    for distance, low, high, far, green in HILLS:
        tops = patch(rng, (2, 40), 2.0, scale=0.25)[0] + 0.25 * patch(rng, (2, 40), 1.0)[0]
        points = np.full((80, 3), -30.0)
        points[:40, 0], points[:40, 2] = camera.centre[0] + distance * sideways, camera.centre[2] - distance * away
        points[40:] = points[39::-1]  # the foot, back from right to left
        points[40:, 1] = -30.0
        points[:40, 1] = low + (high - low) * (tops - tops.min())
        polygon = camera.project(points)
        if len(polygon) >= 3:
            colour = (1 - far) * np.array(green) * bright + far * light.haze
            cv2.fillPoly(canvas.image, [np.rint(polygon).astype(np.int32)], colour.tolist())


def _billboard(canvas: Canvas, camera: Camera, light: Light, strip: np.ndarray, left: float, z: float) -> None:
    right = left + STRIP_WIDTH
    points = np.array([(left, 0, z), (right, 0, z), (right, STRIP_HEIGHT, z), (left, STRIP_HEIGHT, z)])
    polygon = camera.project(points)
    if len(polygon) < 4:
        return
    x0, y0 = np.maximum(0, polygon.min(0)).astype(int).tolist()
    x1, y1 = np.minimum(camera.size, polygon.max(0) + 1).astype(int).tolist()
    if x1 <= x0 or y1 <= y0 or canvas.covers((x0, y0, x1, y1)):
        return
    plane = np.array([[1.0, 0, left], [0, 1.0, 0], [0, 0, z], [0, 0, 1]])
    to_plane = np.array([[1 / STRIP_PPM, 0, 0], [0, -1 / STRIP_PPM, STRIP_HEIGHT], [0, 0, 1]])
    shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    drawn = cv2.warpPerspective(strip, shift @ camera.matrix @ plane @ to_plane, (x1 - x0, y1 - y0))
    fade = 1 - np.exp(-(camera.centre[2] - z) / light.visibility)
    colour = dim(cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB), (1 - fade,) * 3, light.haze * fade)
    blend(canvas.image[y0:y1, x0:x1], colour, cv2.extractChannel(drawn, 3))


def opposite(rng: np.random.Generator, structure: Structure) -> np.ndarray | None:
    """Houses across the street, behind the camera, whose shadow may climb the front: their outline (n, 3), or none."""
    if rng.random() < 0.5:
        return None
    z, x = rng.uniform(18, 40), -20.0 - rng.uniform(0, 12)
    line = [(x, 0.0, z)]
    while x < structure.width + 20:
        width, height = rng.uniform(9, 22), rng.uniform(4, 14)
        line += [(x, height, z), (x + width, height, z)]
        x += width
        if rng.random() < 0.4:  # a side street
            line += [(x, 0.0, z), (x + 5.0, 0.0, z)]
            x += 5.0
    return np.array([*line, (x, 0.0, z)])
