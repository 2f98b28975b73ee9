"""Around a landmark: neighbours that are nobody's landmark, a backdrop of far houses, the ground and its shadows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from . import spec
from .building import Block, build
from .camera import Camera
from .facade import Surface
from .faces import FRONT, RIGHT, UP, Face
from .light import Light, draw_light
from .materials import TILE, cover
from .noise import ASSETS, patch
from .placing import Thing, blend, stand_tree
from .render import Canvas, draw_blocks, draw_face
from .shading import colours, dim
from .structures import Structure, draw_structure
from .styles import draw_style

POOL = 18  # buildings
STRIPS = 3  # backdrops
STRIP_WIDTH, STRIP_HEIGHT, STRIP_PPM = 110.0, 26.0, 8
GROUND_PPM = 14
CIRCLE = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 14, endpoint=False)])


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
            row, x = [], 0.0
            while x < STRIP_WIDTH:
                block = self.blocks[rng.integers(len(self.blocks))]
                row.append(replace(moved(block, x - block.left, 0.0), landmark=True))  # to know where they are
                x += block.right - block.left + rng.choice([0.0, 0.0, 4.0])
            size, away = round(STRIP_WIDTH * STRIP_PPM), 900.0
            eye = (STRIP_WIDTH / 2, 1.7, away)
            camera = Camera.look_at(eye, (STRIP_WIDTH / 2, 1.7, 0.0), STRIP_PPM * away, size)
            light = replace(draw_light(rng, kind), visibility=1e9)
            canvas = Canvas(np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8))
            draw_blocks(canvas, camera, row, light, rng)
            foot = size // 2 + round(1.7 * STRIP_PPM)
            rows = slice(foot - round(STRIP_HEIGHT * STRIP_PPM), foot)
            self._strips[index, kind] = cv2.merge([canvas.image[rows], canvas.landmark[rows]])
        return self._strips[index, kind]


def moved(block: Block, dx: float, dz: float) -> Block:
    """The block shifted along the street and in depth."""
    by = np.array([dx, 0.0, dz])
    faces = tuple(face.shifted(by) for face in block.faces)
    return replace(
        block, left=block.left + dx, right=block.right + dx, front=block.front + dz, back=block.back + dz, faces=faces
    )


def beside(rng: np.random.Generator, structure: Structure, pool: list[Block]) -> tuple[list[Block], list[Block]]:
    """Neighbours to the left and to the right of a building, each from left to right."""
    sides: tuple[list[Block], list[Block]] = ([], [])
    for side in (0, 1):
        if rng.random() > spec.NEIGHBOUR:
            continue
        gap = rng.choice([0.0, 0.0, rng.uniform(1, 9)])
        edge = -gap if side == 0 else structure.width + gap
        back = rng.uniform(-4, 0.5)
        for _ in range(2):
            block = pool[rng.integers(len(pool))]
            width = block.right - block.left
            left = edge - width if side == 0 else edge
            sides[side].append(moved(block, left - block.left, back))
            edge = left if side == 0 else left + width
    return sides[0][::-1], sides[1]


def draw_background(
    canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator, town: Neighbourhood
) -> None:
    """Far behind: rows of houses in the haze, and trees."""
    forward = camera.rotation[2]
    centre = camera.centre[0] - forward[0] / min(-0.2, forward[2]) * (camera.centre[2] + 45)
    if rng.random() < 0.65:
        strip = town.backdrop(int(rng.integers(STRIPS)), light.kind)
        flip, start, z = rng.random() < 0.5, rng.uniform(-30, 30), rng.uniform(-75, -35)
        if flip:
            strip = np.ascontiguousarray(strip[:, ::-1])
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
    lit = light.ambient(np.array([0.0, 0.4, 0.9])) + 0.5 * light.direct
    for away, low, high, far in ((2400.0, 10, 90, 0.82), (420.0, 3, 17, 0.55)):
        tops = patch(rng, (2, 40), 2.0, scale=0.25)[0] + 0.25 * patch(rng, (2, 40), 1.0)[0]
        heights = low + (high - low) * (tops - tops.min())
        x, z = camera.centre[0] + away * np.sin(angles), camera.centre[2] - away * np.cos(angles)
        ridge = np.stack([x, heights, z], 1)
        foot = np.stack([x, np.full(40, -30.0), z], 1)[::-1]
        polygon = camera.project(np.concatenate([ridge, foot]))
        if len(polygon) >= 3:
            green = np.array((66, 78, 52) if away < 1000 else (84, 92, 84)) * np.sqrt(lit)
            colour = (1 - far) * green + far * light.haze
            cv2.fillPoly(canvas.image, [np.rint(polygon).astype(np.int32)], colour.tolist())


def _billboard(canvas: Canvas, camera: Camera, light: Light, strip: np.ndarray, left: float, z: float) -> None:
    points = np.array(
        [(left, 0, z), (left + STRIP_WIDTH, 0, z), (left + STRIP_WIDTH, STRIP_HEIGHT, z), (left, STRIP_HEIGHT, z)]
    )
    polygon = camera.project(points)
    if len(polygon) < 4:
        return
    x0, y0 = np.maximum(0, polygon.min(0)).astype(int)
    x1, y1 = np.minimum(camera.size, polygon.max(0) + 1).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    plane = np.array([[1.0, 0, left], [0, 1.0, 0], [0, 0, z], [0, 0, 1]])
    to_plane = np.array([[1 / STRIP_PPM, 0, 0], [0, -1 / STRIP_PPM, STRIP_HEIGHT], [0, 0, 1]])
    shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    drawn = cv2.warpPerspective(strip, shift @ camera.matrix @ plane @ to_plane, (x1 - x0, y1 - y0))
    fade = 1 - np.exp(-(camera.centre[2] - z) / light.visibility)
    colour = dim(np.ascontiguousarray(drawn[..., :3]), np.full(3, 1 - fade), light.haze * fade)
    blend(canvas.image[y0:y1, x0:x1], colour, np.ascontiguousarray(drawn[..., 3]))


GROUNDS = {
    "asphalt": (112, 111, 109),
    "paving": (168, 162, 150),
    "cobbles": (138, 132, 124),
    "grass": (92, 108, 62),
    "gravel": (178, 167, 146),
    "kerb": (158, 156, 150),
    "paint": (212, 210, 204),
}


@lru_cache(maxsize=32)
def _ground_surface(material: str, variant: int) -> Surface:
    rng = np.random.default_rng([ASSETS, 77, variant, sum(material.encode())])
    colour = tuple(int(c) for c in np.clip(np.array(GROUNDS[material]) * rng.uniform(0.88, 1.1), 0, 255))
    if material in ("kerb", "paint"):
        return Surface(np.array([[colour]], np.uint8))
    return Surface(cover(rng, material, colour, (TILE, TILE))[0])


@dataclass(frozen=True)
class Ground:
    """What lies before a building: a pavement of `strip` metres along its front, then the rest."""

    kind: str  # street, square, lawn
    first: str  # material of the strip
    main: str
    strip: float
    road: float  # width of the carriageway of a street, metres
    variant: int
    lines: bool  # painted on the road


def draw_plan(rng: np.random.Generator) -> Ground:
    """A random ground."""
    kind = ("street", "street", "square", "lawn")[rng.integers(4)]
    square = ("paving", "cobbles", "gravel")[rng.integers(3)]
    first, main = {"street": ("paving", "asphalt"), "square": (square, square), "lawn": ("gravel", "grass")}[kind]
    strip, road = rng.uniform(2.5, 5.0), rng.uniform(6.0, 9.5)
    # Two numbers are drawn, one is used: what follows in this stream, and so every picture, stays as it was.
    return Ground(kind, first, main, strip, road, int(rng.integers(4)), bool(rng.random(2)[0] < 0.5))


def draw_ground(
    canvas: Canvas, camera: Camera, light: Light, rng, ground: Ground, row: list[Block], things: list[Thing]
) -> None:
    """Draw the ground, and on it the shadows of the blocks of `row` and of trees and lamps among `things`."""
    x0, x1, near = camera.centre[0] - 170, camera.centre[0] + 170, camera.centre[2] + 2
    cuts = (-170.0, max(-169.0, near - 27.0), near - 10.0, near)  # bands in depth, each with a resolution of its own
    bands = [(z0, z1, ground.main) for z0, z1 in pairwise(cuts)]
    bands.append((-8.0, ground.strip, ground.first))
    if ground.kind == "street":
        far_side = ground.strip + ground.road
        bands.append((ground.strip, ground.strip + 0.2, "kerb"))
        if ground.lines:
            bands += [(z, z + 0.12, "paint") for z in (ground.strip + 0.5, far_side - 0.6)]
        if far_side + 1 < near:
            bands += [(far_side, near, "paving"), (far_side, far_side + 0.2, "kerb")]
    for z0, z1, material in bands:
        face = _flat(x0, x1, z0, z1, _ground_surface(material, ground.variant))
        draw_face(canvas, camera, face, camera.project(face.points), light, rng, wrap=True)
    if ground.kind == "street" and ground.lines:
        middle = ground.strip + ground.road / 2
        for x in np.arange(x0 + 145, x1 - 145, 5.0):
            dash = _flat(x, x + 2.5, middle, middle + 0.14, _ground_surface("paint", 0))
            draw_face(canvas, camera, dash, camera.project(dash.points), light, rng)
    _shadows(canvas, camera, light, [block.solid for block in row], things)


def _flat(x0: float, x1: float, z0: float, z1: float, surface: Surface) -> Face:
    """A rectangle of ground."""
    points = np.array([(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)])
    return Face(points, points[0], RIGHT, -FRONT, UP, surface, GROUND_PPM)


def _shadows(canvas: Canvas, camera: Camera, light: Light, solids: list[np.ndarray], things: list[Thing]) -> None:
    """Darken the ground where the sun does not reach it, and close to walls, where the sky is half hidden."""
    first = max(0, int(camera.horizon()) - camera.size // 12)  # row; the ground lies below
    if first >= camera.size:
        return
    mask = np.zeros((camera.size - first, camera.size), np.uint8)
    foot = np.full(mask.shape, 255, np.uint8)
    if light.direct.max() > 0 and light.towards[1] > 0.05:
        slope = -light.towards[[0, 2]] / light.towards[1]  # of a shadow, metres for each metre of height
        for solid in solids:
            on = solid[:, [0, 2]] + solid[:, 1:2] * slope
            _fill(mask, first, camera, cv2.convexHull(on.astype(np.float32))[:, 0], 255)
        for thing in things:
            for centre, radii in thing.shadow(slope):
                _fill(mask, first, camera, centre + CIRCLE * radii, 235)
    for solid in solids:
        (x0, _, _), (x1, _, z) = solid[0], solid[-1]
        for out, tone in ((1.2, 232), (0.5, 196)):
            near, far = z + out, z - 9
            corners = np.array([(x0 - out, near), (x1 + out, near), (x1 + out, far), (x0 - out, far)])
            _fill(foot, first, camera, corners, tone)
    full = light.sky + light.direct * max(light.towards[1], 0.0)
    lost = 1 - np.sqrt(light.sky / np.maximum(full, 1e-6))
    gain = colours(cv2.blur(mask, (5, 5)), 255 - np.arange(256)[:, None] * lost)
    gain = cv2.multiply(gain, cv2.merge([cv2.blur(foot, (5, 5))] * 3), scale=1 / 255)
    there = canvas.image[first:]
    cv2.multiply(there, gain, there, scale=1 / 255)
    if light.kind == "night":  # the flood lights stand on the ground before the walls
        pool = np.zeros(mask.shape, np.uint8)
        for solid in solids:
            (x0, _, _), (x1, _, z) = solid[0], solid[-1]
            _fill(pool, first, camera, np.array([(x0, z + 3.5), (x1, z + 3.5), (x1, z), (x0, z)]), 255)
        shine = colours(cv2.blur(pool, (15, 7)), np.arange(256)[:, None] * light.direct)
        cv2.add(there, cv2.multiply(cv2.add(there, (50, 50, 50, 0)), shine, scale=4 / 255), there)


def _fill(mask: np.ndarray, first: int, camera: Camera, corners: np.ndarray, value: int) -> None:
    """Fill a polygon (n, 2) of the ground, x and z, in a mask of the rows from `first` on."""
    polygon = camera.project(np.insert(corners, 1, 0.0, axis=1))
    if len(polygon) >= 3:
        cv2.fillPoly(mask, [np.rint(polygon - (0, first)).astype(np.int32)], value)


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
