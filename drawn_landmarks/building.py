"""Buildings: a structure in a style as flat faces in space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from .facade import compose_wall
from .faces import FRONT, RIGHT, UP, Face, Texture, plane_face
from .materials import PPM, cover, weather
from .roofs import cap_faces, gable_size, roof_faces, top_line
from .structures import BLANK, DOOR, WINDOW, Mass, Structure
from .styles import Style
from .surface import Surface

FRAMES = {  # the outward side of a block: its direction along the wall, and its normal
    "front": (RIGHT, FRONT),
    "right": (-FRONT, RIGHT),
    "left": (FRONT, -RIGHT),
}
EDGES = {"eaves": 0.0, "parapet": 0.8, "balustrade": 1.0, "crenels": 1.1}  # metres above the eaves


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
    base: Block | None = None  # this block before it was moved; `faces` are where they were
    by: np.ndarray | None = None  # (3,), metres: how far it was moved

    @cached_property
    def solid(self) -> np.ndarray:
        """The corners (8, 3) of its walls, for the shadow it casts."""
        return np.array(list(product((self.left, self.right), (0.0, self.eaves), (self.back, self.front))))

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many corners each face has, (n,)."""
        return self.base.lengths if self.base else np.array([len(face.points) for face in self.faces])

    @cached_property
    def corners(self) -> np.ndarray:
        """All corners of all faces, (n, 3)."""
        return self.base.corners + self.by if self.base else np.concatenate([face.points for face in self.faces])

    @cached_property
    def normals(self) -> np.ndarray:
        """Of its faces, (n, 3)."""
        return self.base.normals if self.base else np.array([face.normal for face in self.faces])

    def face(self, number: int) -> Face:
        """A face where it stands."""
        return self.faces[number].shifted(self.by) if self.base else self.faces[number]

    def moved(self, dx: float, dz: float) -> Block:
        """The block, which was not moved before, shifted along the street and in depth."""
        x0, x1, z1, z0 = self.left + dx, self.right + dx, self.front + dz, self.back + dz
        return Block(x0, x1, z1, z0, self.eaves, self.faces, self.landmark, self, np.array([dx, 0.0, dz]))


def build(structure: Structure, style: Style, rng: np.random.Generator, *, landmark: bool = True) -> list[Block]:
    """The blocks of a building, left to right; each texture is drawn once, when it is first seen."""
    roof = _roof_surface(rng, style, structure)
    return [_block(rng, mass, style, roof, landmark) for mass in structure.masses]


def _wall(rng, *layout) -> Texture:
    """The texture of `compose_wall`, by a generator of its own: what is seen first does not matter."""
    seed = int(rng.integers(1 << 62))
    return Texture(lambda: compose_wall(np.random.default_rng(seed), *layout), glazed=True)


def _roof_surface(rng, style: Style, structure: Structure) -> Texture:
    longest = max(max(mass.width, mass.depth) for mass in structure.masses) + 3
    shape = (round(11 * PPM), min(1100, round(longest * PPM)))
    seed = int(rng.integers(1 << 62))

    def draw() -> Surface:
        own = np.random.default_rng(seed)
        return Surface(weather(own, cover(own, style.roof_material, style.roof_colour, shape), 1.4))

    return Texture(draw, glazed=False)


def _block(rng, mass: Mass, style: Style, roof: Texture, landmark: bool) -> Block:
    tower = mass.kind == "tower"
    crowned = tower and style.cap in ("flat", "crenels")
    edge = style.edge
    if crowned:
        edge = "crenels" if style.cap == "crenels" else "parapet"
    if (mass.gable and style.roof != "flat") or (tower and not crowned):
        edge = "eaves"
    top = EDGES[edge]
    span, rise = gable_size(mass, style) if mass.gable and not tower else (0.0, 0.0)
    gable = (mass.attic, span) if rise > 0 else None
    front = _wall(rng, style, mass.cells, mass.bays, mass.floors, max(top, rise), gable)
    cells = mass.cells if tower else mass.side_cells
    bays = mass.bays if tower else (mass.depth / mass.side_bays,) * mass.side_bays
    side = _wall(rng, style, cells, bays, mass.floors, top)
    x0, x1, z1 = mass.left, mass.right, mass.front
    z0 = z1 - mass.depth
    height = mass.height
    walls = []
    for name, surface in (("left", side), ("right", side), ("front", front)):
        u, normal = FRAMES[name]
        corner = np.array({"left": (x0, 0, z0), "right": (x1, 0, z1), "front": (x0, 0, z1)}[name], float)
        length = mass.width if name == "front" else mass.depth
        line = top_line(style, edge, length, height, top, span, rise if name == "front" else 0.0)
        walls.append(Face(corner + line[:, :1] * u + line[:, 1:] * UP, corner, u, UP, normal, surface))
    if tower:
        above = cap_faces(mass, style, roof, height + top)
    else:
        above = roof_faces(mass, style, roof, height, span, rise, edge)
    # Seen from the street a wall hides the foot of the roof where it stands higher than it (parapets, gables).
    high_front = edge != "eaves" or rise > 0
    ordered = [*above, *walls] if high_front else [*walls, *above]
    if not tower:
        ordered += _dormers(rng, mass, style, roof, height)
        ordered += _chimneys(rng, mass, style, height, rise)
    if mass.porch is not None:
        ordered += _porch(rng, mass, style, roof)
    return Block(x0, x1, z1, z0, height + top, tuple(ordered), landmark)


def _box(x0, x1, y0, y1, z0, z1, front: Surface | Texture, side: Surface | Texture) -> list[Face]:
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


def _dormers(rng, mass: Mass, style: Style, roof: Texture, height: float) -> list[Face]:
    """Windows in the roof, above every second bay."""
    if not style.dormers or style.roof == "flat" or (mass.gable and style.gable != "pediment"):
        return []
    if style.roof != "mansard" and style.pitch * mass.depth / 2 < 2.6:
        return []
    width, tall = 1.5, 1.9
    window = _wall(rng, style, ((WINDOW,),), (width,), (tall,), 0.0)
    cheek = Surface(cover(rng, style.roof_material, style.roof_colour, (round(tall * PPM), round(2 * PPM))))
    pediment = Surface(np.full((4, 4, 3), style.trim, np.uint8))
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
        faces.append(plane_face([low[0], low[1], top], RIGHT, pediment))
    return faces


def _chimneys(rng, mass: Mass, style: Style, height: float, rise: float) -> list[Face]:
    if not style.chimneys or style.roof == "flat" or rise > 0:
        return []
    brick = Surface(cover(rng, "brick" if style.material != "ashlar" else "ashlar", style.wall, (4 * PPM, PPM)))
    climb = 2.6 if style.roof == "mansard" else min(style.pitch * mass.depth / 2, 7.5)
    zm = mass.front - mass.depth / 2
    inset = mass.depth / 2 if style.roof == "hip" else 0.3
    faces = []
    for x in (mass.left + inset, mass.right - inset - 0.9):
        if mass.left < x < mass.right - 0.8:
            faces += _box(x, x + 0.9, height + climb * 0.7, height + climb + 1.6, zm - 0.4, zm + 0.5, brick, brick)
    return faces


def _porch(rng, mass: Mass, style: Style, roof: Texture) -> list[Face]:
    """A projecting entrance with a pitched or flat top."""
    edges = mass.left + np.concatenate([[0], np.cumsum(mass.bays)])
    x0, x1 = edges[mass.porch] + 0.2, edges[mass.porch + 1] - 0.2
    tall, out = mass.floors[0] * 0.92, 1.8
    front = _wall(rng, style, ((DOOR,),), (x1 - x0,), (tall,), 0.0)
    side = _wall(rng, style, ((BLANK,),), (out,), (tall,), 0.0)
    z0, z1 = mass.front, mass.front + out
    faces = _box(x0, x1, 0.0, tall, z0, z1, front, side)
    fl, fr = np.array([x0 - 0.2, tall, z1 + 0.2]), np.array([x1 + 0.2, tall, z1 + 0.2])
    up = np.array([0, 0.9, z0 - z1 - 0.2])
    return [*faces, plane_face([fl, fr, fr + up, fl + up], RIGHT, roof)]
