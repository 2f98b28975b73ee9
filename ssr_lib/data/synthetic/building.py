"""Buildings: a structure in a style as flat faces in space."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .camera import cross, unit
from .facade import Surface, compose_wall
from .materials import PPM, cover, weather
from .openings import Openings
from .structures import BLANK, WINDOW, Mass, Structure
from .styles import Style

RIGHT, UP, FRONT = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])
FRAMES = {  # the outward side of a block: its direction along the wall, and its normal
    "front": (RIGHT, FRONT),
    "right": (-FRONT, RIGHT),
    "left": (FRONT, -RIGHT),
}


@dataclass(frozen=True)
class Face:
    """A polygon in a plane: `points` (n, 3); the texture's lower left corner at `origin`, its axes `u` and `v`."""

    points: np.ndarray
    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    normal: np.ndarray  # outward, unit length
    surface: Surface
    ppm: float = PPM

    @cached_property
    def plane(self) -> np.ndarray:
        """The map (4, 3) from plane coordinates (s, t, 1), in metres, to homogeneous world points."""
        return np.array([[*self.u, 0.0], [*self.v, 0.0], [*self.origin, 1.0]]).T

    @cached_property
    def area(self) -> float:
        """Square metres."""
        flat = np.stack([(self.points - self.origin) @ self.u, (self.points - self.origin) @ self.v], 1)
        return cv2.contourArea(flat.astype(np.float32))

    @cached_property
    def middle(self) -> np.ndarray:
        return self.points.mean(0)

    def shifted(self, by: np.ndarray) -> Face:
        """The face moved by a vector (3,)."""
        face = Face(self.points + by, self.origin + by, self.u, self.v, self.normal, self.surface, self.ppm)
        face.__dict__["area"] = self.area
        return face


@dataclass(frozen=True)
class Block:
    """A mass as drawn: faces in an order in which later ones may cover earlier ones, and its bounding box."""

    left: float
    right: float
    front: float
    back: float
    eaves: float  # height of its walls
    faces: tuple[Face, ...]
    landmark: bool

    @cached_property
    def solid(self) -> np.ndarray:
        """The corners (8, 3) of its walls, for the shadow it casts."""
        ys = (0.0, self.eaves)
        return np.array([(x, y, z) for x in (self.left, self.right) for y in ys for z in (self.back, self.front)])

    @cached_property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """All corners of all faces (n, 3), and where each face's begin."""
        points = [face.points for face in self.faces]
        return np.concatenate(points), np.cumsum([0, *map(len, points)])

    @cached_property
    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Normals (n, 3) of the faces, and the planes' distances from the origin along them (n,)."""
        normals = np.array([face.normal for face in self.faces])
        return normals, (normals * np.array([face.points[0] for face in self.faces])).sum(1)


def plane_face(points, u, surface: Surface, ppm: float = PPM) -> Face:
    """A face whose texture starts at the lowest, leftmost corner of its polygon; `u` lies in its plane."""
    points = np.asarray(points, float)
    u = unit(u)
    normal = unit(cross(points[1] - points[0], points[2] - points[0]))
    v = cross(normal, u)
    if v[1] < 0:
        v = -v
    origin = points[0] + u * ((points - points[0]) @ u).min() + v * ((points - points[0]) @ v).min()
    return Face(points, origin, u, v, normal, surface, ppm)


def build(structure: Structure, style: Style, rng: np.random.Generator, *, landmark: bool = True) -> list[Block]:
    """The blocks of a building, left to right; every texture is drawn here, once."""
    roof, openings = _roof_surface(rng, style, structure), Openings(style)
    return [_block(rng, mass, openings, roof, landmark) for mass in structure.masses]


def _roof_surface(rng, style: Style, structure: Structure) -> Surface:
    longest = max(max(mass.width, mass.depth) for mass in structure.masses) + 3
    shape = (round(11 * PPM), min(1100, round(longest * PPM)))
    return Surface(weather(rng, cover(rng, style.roof_material, style.roof_colour, shape)[0], 1.4))


def _top_height(style: Style) -> float:
    return {"eaves": 0.0, "parapet": 0.8, "balustrade": 1.0, "crenels": 1.1}[style.edge]


def _block(rng, mass: Mass, openings: Openings, roof: Surface, landmark: bool) -> Block:
    style = openings.style
    tower = mass.kind == "tower"
    crowned = tower and style.cap in ("flat", "crenels")
    edge = "crenels" if tower and style.cap == "crenels" else "parapet" if crowned else style.edge
    if mass.gable and style.roof != "flat":
        edge = "eaves"
    top = {"eaves": 0.0, "parapet": 0.8, "balustrade": 1.0, "crenels": 1.1}[edge]
    if tower and not crowned:
        top, edge = 0.0, "eaves"
    span, rise = _gable(mass, style) if mass.gable and not tower else (0.0, 0.0)
    gable = (mass.attic, span) if rise > 0 else None
    front = compose_wall(rng, openings, mass.cells, mass.bays, mass.floors, max(top, rise), gable)
    cells = mass.cells if tower else mass.side_cells
    bays = mass.bays if tower else (mass.depth / mass.side_bays,) * mass.side_bays
    side = compose_wall(rng, openings, cells, bays, mass.floors, top)
    x0, x1, z1 = mass.left, mass.right, mass.front
    z0 = z1 - mass.depth
    height = mass.height
    faces = []
    for name, surface in (("left", side), ("right", side), ("front", front)):
        u, normal = FRAMES[name]
        corner = {"left": (x0, 0, z0), "right": (x1, 0, z1), "front": (x0, 0, z1)}[name]
        length = mass.width if name == "front" else mass.depth
        line = _top_line(style, edge, length, height, top, span, rise if name == "front" else 0.0)
        corner = np.array(corner, float)
        points = corner + line[:, :1] * u + line[:, 1:] * UP
        faces.append(Face(points, corner, u, UP, normal, surface))
    above = _cap(mass, style, roof, height + top) if tower else _roof(mass, style, roof, height, span, rise, edge)
    # Seen from the street a wall hides the foot of the roof where it stands higher than it (parapets, gables).
    high_front = edge != "eaves" or rise > 0
    ordered = [*above, *faces] if high_front else [*faces, *above]
    details = (
        [] if tower else [*_dormers(rng, mass, openings, roof, height), *_chimneys(rng, mass, style, height, rise)]
    )
    ordered += details
    if mass.porch is not None:
        ordered += _porch(rng, mass, openings, roof)
    return Block(x0, x1, z1, z0, height + top, tuple(ordered), landmark)


def _gable(mass: Mass, style: Style) -> tuple[float, float]:
    """Width and height of the gable on a front, metres: as wide as the front unless that is broad or the gable ornate."""
    span = mass.width
    if style.gable in ("stepped", "curved") and span > 10.5:
        span = max(6.0, 0.5 * span)
    elif span > 15:
        span = 0.45 * span
    if style.gable == "pediment":
        return span, span * 0.2
    return span, min(span * 0.5 * max(style.pitch, 0.6), 7.5) + (0.6 if style.gable != "plain" else 0.0)


def _top_line(
    style: Style, edge: str, length: float, height: float, top: float, span: float, rise: float
) -> np.ndarray:
    """The outline (n, 2) of a wall, along and up, counter-clockwise from its lower left corner."""
    start = [(0.0, 0.0), (length, 0.0)]
    if rise > 0:
        side = (length - span) / 2
        line = [(side + x, height + y) for x, y in _gable_line(style.gable, span, rise)]
        return np.array(start + ([(length, height), *line, (0.0, height)] if side > 0 else line))
    if edge == "crenels":
        teeth, up = max(3, round(length / 1.5)) * 2 + 1, height + top
        xs = np.linspace(length, 0, teeth + 1)
        line = []
        for i in range(teeth):
            y = up if i % 2 == 0 else up - 0.6
            line += [(xs[i], y), (xs[i + 1], y)]
        return np.array(start + line)
    return np.array([*start, (length, height + top), (0.0, height + top)])


def _gable_line(kind: str, span: float, rise: float) -> list[tuple[float, float]]:
    """The upper edge of a gable from right to left, from its foot."""
    half = {  # distance from the middle and height, as shares of half the span and of the rise
        "stepped": [(1 - i / 5, y / 5) for i in range(5) for y in (i, i + 1)],
        "curved": [
            (1.0, 0.0), (0.86, 0.05), (0.74, 0.16), (0.66, 0.32), (0.64, 0.45), (0.70, 0.47), (0.70, 0.53), (0.56, 0.58),
            (0.46, 0.68), (0.42, 0.80), (0.46, 0.82), (0.46, 0.86), (0.36, 0.90), (0.22, 0.97), (0.0, 1.0),
        ],
    }.get(kind, [(1.0, 0.0), (0.0, 1.0)])  # fmt: skip
    right = [(span / 2 * (1 + x), rise * y) for x, y in half]
    left = [(span - x, y) for x, y in right[::-1]]
    return right + (left if kind == "stepped" else left[1:])


def _roof(mass: Mass, style: Style, roof: Surface, height: float, span: float, rise: float, edge: str) -> list[Face]:
    """The roof's planes over a body."""
    over = 0.35 if edge == "eaves" and rise == 0 else 0.0
    x0, x1, z1 = mass.left - over, mass.right + over, mass.front + over
    z0 = mass.front - mass.depth - over
    zm, xm = (z0 + z1) / 2, (x0 + x1) / 2
    y = height - 0.05
    corners = {
        k: np.array(v) for k, v in {"fl": (x0, y, z1), "fr": (x1, y, z1), "bl": (x0, y, z0), "br": (x1, y, z0)}.items()
    }
    fl, fr, bl, br = (corners[k] for k in ("fl", "fr", "bl", "br"))
    cross: list[Face] = []
    if rise > 0 and style.gable != "pediment":  # a ridge runs back from the gable
        full = span >= mass.width
        peak = y + rise * (1.0 if style.gable == "plain" else 0.8)
        zb = z0 if full else z1 - min((peak - y) / max(style.pitch, 0.3), mass.depth / 2)
        xl, xr = (x0, x1) if full else (xm - span * 0.45, xm + span * 0.45)
        a, b = np.array([xm, peak, z1 - 0.1]), np.array([xm, peak, zb])
        left = [np.array([xl, y, zb]), np.array([xl, y, z1 - 0.1]), a, b]
        right = [np.array([xr, y, z1 - 0.1]), np.array([xr, y, zb]), b, a]
        cross = [plane_face(left, FRONT, roof), plane_face(right, FRONT, roof)]
        if full:
            return cross
    if style.roof == "flat":
        return [plane_face([fl, fr, br, bl], RIGHT, roof), *cross]
    if style.roof == "mansard":
        up, inset = 2.6, 0.9
        low = [fl, fr, br, bl]
        high = [
            c + np.array([dx, up, dz])
            for c, dx, dz in zip(low, (inset, -inset, -inset, inset), (-inset, -inset, inset, inset), strict=True)
        ]
        return [
            plane_face([low[3], low[0], high[0], high[3]], FRONT, roof),
            plane_face([low[1], low[2], high[2], high[1]], FRONT, roof),
            plane_face([low[0], low[1], high[1], high[0]], RIGHT, roof),
            plane_face(high, RIGHT, roof),
            *cross,
        ]
    climb = min(style.pitch * (z1 - z0) / 2, 7.5)
    run = min((z1 - z0) / 2, (x1 - x0) / 2 - 0.2) if style.roof == "hip" else 0.0
    a, b = np.array([x0 + run, y + climb, zm]), np.array([x1 - run, y + climb, zm])
    ends = [plane_face([bl, fl, a], FRONT, roof), plane_face([fr, br, b], FRONT, roof)]
    slopes = [plane_face([br, bl, a, b], RIGHT, roof), plane_face([fl, fr, b, a], RIGHT, roof)]
    return [*ends, *slopes, *cross]


def _cap(mass: Mass, style: Style, roof: Surface, base: float) -> list[Face]:
    """What crowns a tower."""
    over = 0.3 if style.cap in ("pyramid", "spire") else 0.0
    x0, x1, z1 = mass.left - over, mass.right + over, mass.front + over
    z0 = mass.front - mass.depth - over
    xm, zm = (x0 + x1) / 2, (z0 + z1) / 2
    if style.cap in ("flat", "crenels"):
        y = base - 0.9
        return [plane_face([(x0, y, z1), (x1, y, z1), (x1, y, z0), (x0, y, z0)], RIGHT, roof)]
    if style.cap in ("dome", "onion"):
        return _turned(style.cap, xm, zm, base, (x1 - x0) / 2, (z1 - z0) / 2, roof)
    top = np.array([xm, base + (x1 - x0) * (0.75 if style.cap == "pyramid" else 2.1), zm])
    y = base - 0.05
    fl, fr, bl, br = (np.array(p, float) for p in ((x0, y, z1), (x1, y, z1), (x0, y, z0), (x1, y, z0)))
    return [
        plane_face([br, bl, top], RIGHT, roof),
        plane_face([bl, fl, top], FRONT, roof),
        plane_face([fr, br, top], FRONT, roof),
        plane_face([fl, fr, top], RIGHT, roof),
    ]


def _turned(kind: str, xm: float, zm: float, base: float, rx: float, rz: float, roof: Surface) -> list[Face]:
    """A dome or an onion: rings of narrow faces about an axis."""
    profile = {
        "dome": (
            (0.96, 0.0),
            (0.96, 0.25),
            (0.84, 0.6),
            (0.62, 0.88),
            (0.34, 1.05),
            (0.08, 1.12),
            (0.06, 1.5),
            (0.0, 1.75),
        ),
        "onion": (
            (0.7, 0.0),
            (0.95, 0.35),
            (0.98, 0.65),
            (0.75, 1.0),
            (0.4, 1.3),
            (0.16, 1.65),
            (0.05, 2.1),
            (0.0, 2.5),
        ),
    }[kind]
    r = min(rx, rz)
    angles = np.linspace(0, 2 * np.pi, 11)
    faces = []
    for (r0, y0), (r1, y1) in itertools.pairwise(profile):
        for a, b in itertools.pairwise(angles):
            ring = [(np.cos(t), np.sin(t)) for t in (b, a)]
            low = [(xm + rx * r0 * c, base + r * y0, zm + rz * r0 * s) for c, s in ring]
            high = [(xm + rx * r1 * c, base + r * y1, zm + rz * r1 * s) for c, s in ring[::-1]]
            points = np.array([*low, *high] if r1 > 0 else [*low, high[0]])
            faces.append(plane_face(points, points[1] - points[0], roof))
    return faces


def _box(x0, x1, y0, y1, z0, z1, front: Surface, side: Surface) -> list[Face]:
    """Front and sides of a small block."""
    corners = {"left": (x0, y0, z0), "right": (x1, y0, z1), "front": (x0, y0, z1)}
    faces = []
    for name in ("left", "right", "front"):
        u, normal = FRAMES[name]
        corner = np.array(corners[name], float)
        length = x1 - x0 if name == "front" else z1 - z0
        points = np.array([corner, corner + u * length, corner + u * length + UP * (y1 - y0), corner + UP * (y1 - y0)])
        faces.append(Face(points, corner, u, UP, normal, front if name == "front" else side))
    return faces


def _dormers(rng, mass: Mass, openings: Openings, roof: Surface, height: float) -> list[Face]:
    """Windows in the roof, above every second bay."""
    style = openings.style
    if not style.dormers or style.roof == "flat" or (mass.gable and style.gable != "pediment"):
        return []
    if style.roof != "mansard" and style.pitch * mass.depth / 2 < 2.6:
        return []
    width, tall = 1.5, 1.9
    window = compose_wall(rng, openings, ((WINDOW,),), (width,), (tall,), 0.0)
    cheek = Surface(cover(rng, style.roof_material, style.roof_colour, (round(tall * PPM), round(2 * PPM)))[0])
    centres = np.cumsum(mass.bays) - np.array(mass.bays) / 2 + mass.left
    faces: list[Face] = []
    back = 0.5 if style.roof == "mansard" else 0.4 / style.pitch
    for x in centres[:: 1 if len(centres) < 4 else 2]:
        z1, y = mass.front - back, height + 0.35
        z0 = z1 - (0.7 if style.roof == "mansard" else min(tall / style.pitch, 3.0))
        box = _box(x - width / 2, x + width / 2, y, y + tall, z0, z1, window, cheek)
        low = [np.array([x + s * (width / 2 + 0.15), y + tall, z1 + 0.15]) for s in (-1, 1)]
        top = np.array([x, y + tall + 0.8, z1 + 0.15])
        behind = np.array([0, 0, z0 - z1])
        faces += box
        faces.append(plane_face([low[0] + behind, low[0], top, top + behind], FRONT, roof))
        faces.append(plane_face([low[1], low[1] + behind, top + behind, top], FRONT, roof))
        faces.append(plane_face([low[0], low[1], top], RIGHT, Surface(window.colour[:4])))
    return faces


def _chimneys(rng, mass: Mass, style: Style, height: float, rise: float) -> list[Face]:
    if not style.chimneys or style.roof == "flat" or rise > 0:
        return []
    brick = Surface(cover(rng, "brick" if style.material != "ashlar" else "ashlar", style.wall, (4 * PPM, PPM))[0])
    climb = 2.6 if style.roof == "mansard" else min(style.pitch * mass.depth / 2, 7.5)
    zm = mass.front - mass.depth / 2
    inset = mass.depth / 2 if style.roof == "hip" else 0.3
    faces: list[Face] = []
    for x in (mass.left + inset, mass.right - inset - 0.9):
        if mass.left < x < mass.right - 0.8:
            faces += _box(x, x + 0.9, height + climb * 0.7, height + climb + 1.6, zm - 0.4, zm + 0.5, brick, brick)
    return faces


def _porch(rng, mass: Mass, openings: Openings, roof: Surface) -> list[Face]:
    """A projecting entrance with a pitched or flat top."""
    edges = mass.left + np.concatenate([[0], np.cumsum(mass.bays)])
    x0, x1 = edges[mass.porch] + 0.2, edges[mass.porch + 1] - 0.2
    tall, out = mass.floors[0] * 0.92, 1.8
    front = compose_wall(rng, openings, ((2,),), (x1 - x0,), (tall,), 0.0)
    side = compose_wall(rng, openings, ((BLANK,),), (out,), (tall,), 0.0)
    z0, z1 = mass.front, mass.front + out
    faces = _box(x0, x1, 0.0, tall, z0, z1, front, side)
    fl, fr = np.array([x0 - 0.2, tall, z1 + 0.2]), np.array([x1 + 0.2, tall, z1 + 0.2])
    up = np.array([0, 0.9, z0 - z1 - 0.2])
    return [*faces, plane_face([fl, fr, fr + up, fl + up], RIGHT, roof)]
