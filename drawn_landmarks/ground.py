"""The ground before a building: pavement, carriageway, square or lawn, and the shadows on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from .building import Block
from .camera import Camera
from .chance import pick
from .faces import FRONT, RIGHT, UP, Face
from .light import Light
from .materials import TILE, cover
from .noise import ASSETS
from .placing import Thing
from .render import Canvas, Piece, window_of
from .shading import colours, darken
from .surface import Surface

GROUND_PPM = 14
CIRCLE = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 14, endpoint=False)])
GROUNDS = {"asphalt": (112, 111, 109), "paving": (168, 162, 150), "cobbles": (138, 132, 124), "grass": (92, 108, 62)}
GROUNDS |= {"gravel": (178, 167, 146), "kerb": (158, 156, 150), "paint": (212, 210, 204)}


@lru_cache(maxsize=32)
def _ground_surface(material: str, variant: int) -> Surface:
    rng = np.random.default_rng([ASSETS, 77, variant, sum(material.encode())])
    colour = tuple(int(c) for c in np.clip(np.array(GROUNDS[material]) * rng.uniform(0.88, 1.1), 0, 255))
    if material in ("kerb", "paint"):
        return Surface(np.array([[colour]], np.uint8))
    return Surface(cover(rng, material, colour, (TILE, TILE)))


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
    kind = pick(rng, ("street", "street", "square", "lawn"))
    square = pick(rng, ("paving", "cobbles", "gravel"))
    first, main = {"street": ("paving", "asphalt"), "square": (square, square), "lawn": ("gravel", "grass")}[kind]
    strip, road = rng.uniform(2.5, 5.0), rng.uniform(6.0, 9.5)
    # Two numbers are drawn, one is used: what follows in this stream, and so every picture, stays as it was.
    return Ground(kind, first, main, strip, road, int(rng.integers(4)), bool(rng.random(2)[0] < 0.5))


def lay_ground(camera: Camera, ground: Ground) -> list[Piece]:
    """The ground around the camera."""
    x0, x1, near = camera.centre[0] - 170, camera.centre[0] + 170, camera.centre[2] + 2
    cuts = (-170.0, max(-169.0, near - 27.0), near - 10.0, near)  # bands in depth, each with a resolution of its own
    bands = [(x0, x1, z0, z1, ground.main) for z0, z1 in pairwise(cuts)]
    bands.append((x0, x1, -8.0, ground.strip, ground.first))
    if ground.kind == "street":
        far_side = ground.strip + ground.road
        bands.append((x0, x1, ground.strip, ground.strip + 0.2, "kerb"))
        if ground.lines:
            bands += [(x0, x1, z, z + 0.12, "paint") for z in (ground.strip + 0.5, far_side - 0.6)]
        if far_side + 1 < near:
            bands += [(x0, x1, far_side, near, "paving"), (x0, x1, far_side, far_side + 0.2, "kerb")]
        if ground.lines:
            middle = ground.strip + ground.road / 2
            dashes = np.arange(x0 + 145, x1 - 145, 5.0)
            bands += [(x, x + 2.5, middle, middle + 0.14, "dash") for x in dashes]
    corners = np.zeros((4 * len(bands), 3))
    for i, (x0, x1, z0, z1, _) in enumerate(bands):
        corners[4 * i : 4 * i + 4, 0] = (x0, x1, x1, x0)
        corners[4 * i : 4 * i + 4, 2] = (z1, z1, z0, z0)
    pieces = []
    for i, polygon in enumerate(camera.project_all(corners, np.arange(0, len(corners) + 1, 4))):
        window = window_of(polygon, camera.size)
        if window is not None:
            material, points = bands[i][4], corners[4 * i : 4 * i + 4]
            surface = _ground_surface("paint", 0) if material == "dash" else _ground_surface(material, ground.variant)
            face = Face(points, points[0], RIGHT, -FRONT, UP, surface, GROUND_PPM)
            pieces.append(Piece(face, polygon, window, wrap=True))
    return pieces


def draw_shadows(canvas: Canvas, camera: Camera, light: Light, row: list[Block], things: list[Thing]) -> None:
    """Darken the ground where the sun does not reach it, and close to walls, where the sky is half hidden."""
    first = max(0, int(camera.horizon()) - camera.size // 12)  # row; the ground lies below
    if first >= camera.size:
        return
    solids = [block.solid for block in row]
    shape = (camera.size - first, camera.size)
    mask, foot = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    _fill(mask, first, camera, _cast(light, solids, things))
    _fill(foot, first, camera, _feet(solids))
    full = light.sky + light.direct * max(light.towards[1], 0.0)
    lost = 1 - np.sqrt(light.sky / np.maximum(full, 1e-6))
    gain = colours(cv2.blur(mask, (5, 5)), 255 - np.arange(256)[:, None] * lost)
    there = canvas.image[first:]
    darken(there, cv2.multiply(gain, cv2.cvtColor(cv2.blur(foot, (5, 5)), cv2.COLOR_GRAY2BGR), scale=1 / 255))
    if light.kind == "night":  # the flood lights stand on the ground before the walls
        pool = np.zeros(shape, np.uint8)
        pools = []
        for solid in solids:
            (x0, _, _), (x1, _, z) = solid[0], solid[-1]
            pools.append((np.array([(x0, z + 3.5), (x1, z + 3.5), (x1, z), (x0, z)]), 255))
        _fill(pool, first, camera, pools)
        shine = colours(cv2.blur(pool, (15, 7)), np.arange(256)[:, None] * light.direct)
        cv2.add(there, cv2.multiply(cv2.add(there, (50, 50, 50, 0)), shine, scale=4 / 255), there)


Patches = list[tuple[np.ndarray, int]]  # polygons (n, 2) of the ground, x and z, and the value to fill each with


def _cast(light: Light, solids: list[np.ndarray], things: list[Thing]) -> Patches:
    """Where the sun does not reach the ground."""
    if not light.sunny or light.towards[1] <= 0.05:
        return []
    slope = -light.towards[[0, 2]] / light.towards[1]  # of a shadow, metres for each metre of height
    patches = []
    for solid in solids:
        on = solid[:, [0, 2]] + solid[:, 1:2] * slope
        patches.append((cv2.convexHull(on.astype(np.float32))[:, 0], 255))
    for thing in things:
        patches += [(centre + CIRCLE * radii, 235) for centre, radii in thing.shadow(slope)]
    return patches


def _feet(solids: list[np.ndarray]) -> Patches:
    """The ground close to walls."""
    patches = []
    for solid in solids:
        (x0, _, _), (x1, _, z) = solid[0].tolist(), solid[-1].tolist()
        for out, tone in ((1.2, 232), (0.5, 196)):
            near, far = z + out, z - 9
            corners = np.array([(x0 - out, near), (x1 + out, near), (x1 + out, far), (x0 - out, far)])
            patches.append((corners, tone))
    return patches


def _fill(mask: np.ndarray, first: int, camera: Camera, patches: Patches) -> None:
    """Fill patches of the ground, later ones over earlier ones, in a mask of the rows from `first` on."""
    if not patches:
        return
    flat = np.concatenate([corners for corners, _ in patches])
    points = np.zeros((len(flat), 3))
    points[:, 0], points[:, 2] = flat.T
    starts = np.cumsum([0, *(len(corners) for corners, _ in patches)])
    polygons = camera.project_all(points, starts)
    pixels = np.rint(np.concatenate(polygons) - (0, first)).astype(np.int32)
    end = 0
    for polygon, (_, value) in zip(polygons, patches, strict=True):
        start, end = end, end + len(polygon)
        if len(polygon) >= 3:
            cv2.fillPoly(mask, [pixels[start:end]], value)
