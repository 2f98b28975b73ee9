"""Structure: how a building is laid out. Masses side by side, their floors and bays, and what opens where."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .chance import pick, weighted

BLANK, WINDOW, DOOR, TALL, SMALL, OCULUS, PAIR, WIDE, CLOCK, ARCADE, SHOP = range(11)  # what stands in a wall's cell
Grid = tuple[tuple[int, ...], ...]  # cells, ground floor first, left to right


@dataclass(frozen=True)
class Mass:
    """One block of the building: x from `left` on, its front at z = `front`; metres."""

    kind: str  # body or tower
    left: float
    front: float
    depth: float
    bays: tuple[float, ...]  # widths
    floors: tuple[float, ...]  # heights, ground floor first
    cells: Grid  # of the front wall
    side_bays: int
    side_cells: Grid
    gable: bool  # a gable crowns the front
    porch: int | None  # the bay with a projecting porch, if any
    attic: int  # what opens in the gable

    @property
    def width(self) -> float:
        return sum(self.bays)

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def height(self) -> float:
        return sum(self.floors)


@dataclass(frozen=True)
class Structure:
    """The masses of a building from left to right, without gaps, x from 0 to `width`."""

    masses: tuple[Mass, ...]

    @property
    def width(self) -> float:
        return self.masses[-1].right

    @property
    def height(self) -> float:
        return max(mass.height for mass in self.masses)


# Outlines of whole buildings; each letter a mass: b body, w low wing, t tower, c tall centre.
PLANS = ("b", "bt", "tb", "tbt", "wbw", "wcw", "wb", "bw", "wtw")
PLANS += ("bwb", "btb", "wct", "tcw", "bwt", "twb", "cbw", "wbc")


def draw_structure(rng: np.random.Generator) -> Structure:
    """A random layout: plan, floors, rhythm of bays, openings, wings in depth, each drawn on its own."""
    plan = pick(rng, PLANS)
    mirrored = plan == plan[::-1] and rng.random() < 0.7
    floors = weighted(rng, {2: 0.22, 3: 0.32, 4: 0.25, 5: 0.14, 6: 0.07})
    ground = rng.uniform(3.4, 5.2)
    upper = rng.uniform(2.9, 4.1)
    bay = rng.uniform(2.5, 4.0)
    budget = int(rng.integers(5, 12))  # bays of the whole front, shared among the masses
    bodies = len(plan) - plan.count("t")
    masses: list[Mass] = []
    for i, letter in enumerate(plan):
        if mirrored and i > len(plan) // 2 - (len(plan) % 2 == 0):
            masses.append(_mirror(masses[len(plan) - 1 - i]))
            continue
        count = 1 if letter == "t" else max(2, round(budget / bodies + rng.uniform(-1.2, 1.2)))
        if letter == "t" and rng.random() < 0.3:
            count = 2
        masses.append(_draw_mass(rng, letter, count, floors, ground, upper, bay))
    left = 0.0
    for i, mass in enumerate(masses):
        masses[i] = replace(mass, left=left)
        left += mass.width
    return Structure(_with_door(rng, masses))


def _draw_mass(rng, letter: str, count: int, floors: int, ground: float, upper: float, bay: float) -> Mass:
    fewer, more, most = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    number = {"b": floors, "w": max(1, floors - fewer), "c": floors + more, "t": floors + most}[letter]
    cells = _cells(rng, number, count, symmetric=rng.random() < 0.6)
    if letter == "t" and rng.random() < 0.45:
        cells = (*cells[:-1], (CLOCK if count == 1 else cells[-1][0],) * count)
    heights = [ground] + [upper * pick(rng, (0.82, 1.0, 1.0, 1.18)) for _ in range(number - 1)]
    if letter != "t" and number > 2 and rng.random() < 0.35:
        heights[-1] *= 0.7  # an attic storey
    bays = _rhythm(rng, count, bay if letter != "t" else max(bay, 3.2) * rng.uniform(0.9, 1.25))
    depth = sum(bays) * rng.uniform(0.9, 1.15) if letter == "t" else rng.uniform(8.0, 14.0)
    front = {"b": 0.0, "w": pick(rng, (-5.0, -2.5, 0.0, 2.5, 4.5)), "c": rng.uniform(0, 2.5), "t": rng.uniform(-2, 2)}
    side_bays = max(1, round(depth / (bay * rng.uniform(0.95, 1.5))))
    return Mass(
        kind="tower" if letter == "t" else "body",
        left=0.0,
        front=float(front[letter]),
        depth=float(depth),
        bays=bays,
        floors=tuple(float(h) for h in heights),
        cells=cells,
        side_bays=side_bays,
        side_cells=_cells(rng, number, side_bays, symmetric=False, blanks=0.25),
        gable=letter != "t" and rng.random() < {"b": 0.25, "w": 0.3, "c": 0.5}[letter],
        porch=int(rng.integers(count)) if letter != "t" and rng.random() < 0.2 else None,
        attic=pick(rng, (BLANK, WINDOW, OCULUS, PAIR)),
    )


def _rhythm(rng, count: int, bay: float) -> tuple[float, ...]:
    """Widths of `count` bays: even, alternating, or a wide middle."""
    kind = rng.integers(4)
    widths = np.full(count, bay)
    if kind == 1:
        widths[::2] *= 1.3
    elif kind == 2:
        widths[(count - 1) // 2 : count // 2 + 1] *= 1.45
    elif kind == 3 and count > 2:
        widths[[0, -1]] *= 1.3
    return tuple(float(w) for w in widths)


def _cells(rng, floors: int, bays: int, symmetric: bool, blanks: float = 0.0) -> Grid:
    """What opens where: a kind for each floor, then exceptions by column and by cell."""
    grid = np.full((floors, bays), WINDOW, dtype=int)
    for level in range(floors):
        if level == 0 and blanks == 0 and rng.random() < 0.38:
            grid[0] = pick(rng, (ARCADE, SHOP, SHOP))
            continue
        odds = {WINDOW: 0.5, TALL: 0.2, SMALL: 0.08, PAIR: 0.1, OCULUS: 0.0, WIDE: 0.12}
        if level == floors - 1:
            odds = {WINDOW: 0.45, TALL: 0.1, SMALL: 0.2, PAIR: 0.1, OCULUS: 0.12, WIDE: 0.03}
        grid[level] = weighted(rng, odds)
    for column in range(bays):
        if rng.random() < 0.16:  # a column of its own kind: a blind bay, a stair, a bay of pairs
            grid[rng.integers(0, max(1, floors - 1)) :, column] = pick(rng, (BLANK, SMALL, PAIR, TALL))
    holes = rng.random((floors, bays)) < 0.05 + blanks
    holes[0] &= ~np.isin(grid[0], (ARCADE, SHOP))
    grid[holes] = pick(rng, (BLANK, BLANK, SMALL, OCULUS))
    if symmetric:
        half = bays // 2
        if half:
            grid[:, bays - half :] = grid[:, :half][:, ::-1]
    return tuple(tuple(int(c) for c in row) for row in grid)


def _mirror(mass: Mass) -> Mass:
    porch = None if mass.porch is None else len(mass.bays) - 1 - mass.porch
    return replace(mass, bays=mass.bays[::-1], cells=tuple(row[::-1] for row in mass.cells), porch=porch)


def _with_door(rng, masses: list[Mass]) -> tuple[Mass, ...]:
    """The masses with one to three doors on the ground floor, at least one of them in the widest mass."""
    widest = int(np.argmax([mass.width for mass in masses]))
    for number in range(int(rng.integers(1, 4))):
        i = widest if number == 0 else int(rng.integers(len(masses)))
        mass = masses[i]
        row = list(mass.cells[0])
        row[len(row) // 2 if rng.random() < 0.5 else int(rng.integers(len(row)))] = DOOR
        if mass.porch is not None:
            row[mass.porch] = DOOR
        masses[i] = replace(mass, cells=(tuple(row), *mass.cells[1:]))
    return tuple(masses)
