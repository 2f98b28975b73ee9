"""Roofs, gables and the crowns of towers."""

from __future__ import annotations

import itertools

import numpy as np

from .faces import FRONT, RIGHT, Face, Texture, plane_face
from .structures import Mass
from .styles import Style


def gable_size(mass: Mass, style: Style) -> tuple[float, float]:
    """Width and height of a front's gable, metres: as wide as the front unless that is broad or the gable ornate."""
    span = mass.width
    if style.gable in ("stepped", "curved") and span > 10.5:
        span = max(6.0, 0.5 * span)
    elif span > 15:
        span = 0.45 * span
    if style.gable == "pediment":
        return span, span * 0.2
    return span, min(span * 0.5 * max(style.pitch, 0.6), 7.5) + (0.6 if style.gable != "plain" else 0.0)


def top_line(style: Style, edge: str, length: float, height: float, top: float, span: float, rise: float) -> np.ndarray:
    """The outline (n, 2) of a wall, along and up, counter-clockwise from its lower left corner."""
    start = [(0.0, 0.0), (length, 0.0)]
    if rise > 0:
        side = (length - span) / 2
        line = [(side + x, height + y) for x, y in _gable_line(style.gable, span, rise)]
        if side > 0:
            line = [(length, height), *line, (0.0, height)]
        return np.array(start + line)
    if edge == "crenels":
        teeth = max(3, round(length / 1.5)) * 2 + 1
        line = []
        for i, (right, left) in enumerate(itertools.pairwise(np.linspace(length, 0, teeth + 1))):
            y = height + top - 0.6 * (i % 2)
            line += [(right, y), (left, y)]
        return np.array(start + line)
    return np.array([*start, (length, height + top), (0.0, height + top)])


# fmt: off
GABLES = {  # distance from the middle and height, as shares of half the span and of the rise, from foot to top
    "stepped": ((1, 0), (1, 0.2), (0.8, 0.2), (0.8, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.8), (0.2, 0.8),
                (0.2, 1)),
    "curved": ((1, 0), (0.86, 0.05), (0.74, 0.16), (0.66, 0.32), (0.64, 0.45), (0.7, 0.47), (0.7, 0.53), (0.56, 0.58),
               (0.46, 0.68), (0.42, 0.8), (0.46, 0.82), (0.46, 0.86), (0.36, 0.9), (0.22, 0.97), (0, 1)),
}
# fmt: on


def _gable_line(kind: str, span: float, rise: float) -> list[tuple[float, float]]:
    """The upper edge of a gable from right to left, from its foot."""
    half = GABLES.get(kind, ((1, 0), (0, 1)))
    right = [(span / 2 * (1 + x), rise * y) for x, y in half]
    left = [(span - x, y) for x, y in right[::-1]]
    return right + (left if kind == "stepped" else left[1:])


def roof_faces(mass: Mass, style: Style, roof: Texture, height, span, rise, edge: str) -> list[Face]:
    """The roof's planes over a body."""
    over = 0.35 if edge == "eaves" and rise == 0 else 0.0
    x0, x1, z1 = mass.left - over, mass.right + over, mass.front + over
    z0 = mass.front - mass.depth - over
    zm, xm = (z0 + z1) / 2, (x0 + x1) / 2
    y = height - 0.05
    fl, fr, bl, br = (np.array(p) for p in ((x0, y, z1), (x1, y, z1), (x0, y, z0), (x1, y, z0)))
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
        inwards = ((inset, up, -inset), (-inset, up, -inset), (-inset, up, inset), (inset, up, inset))
        high = [corner + shift for corner, shift in zip(low, inwards, strict=True)]
        left = plane_face([low[3], low[0], high[0], high[3]], FRONT, roof)
        right = plane_face([low[1], low[2], high[2], high[1]], FRONT, roof)
        front = plane_face([low[0], low[1], high[1], high[0]], RIGHT, roof)
        return [left, right, front, plane_face(high, RIGHT, roof), *cross]
    climb = min(style.pitch * (z1 - z0) / 2, 7.5)
    run = min((z1 - z0) / 2, (x1 - x0) / 2 - 0.2) if style.roof == "hip" else 0.0
    a, b = np.array([x0 + run, y + climb, zm]), np.array([x1 - run, y + climb, zm])
    ends = [plane_face([bl, fl, a], FRONT, roof), plane_face([fr, br, b], FRONT, roof)]
    slopes = [plane_face([br, bl, a, b], RIGHT, roof), plane_face([fl, fr, b, a], RIGHT, roof)]
    return [*ends, *slopes, *cross]


def cap_faces(mass: Mass, style: Style, roof: Texture, base: float) -> list[Face]:
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
    tall = min((x1 - x0) * 0.75, 6.0) if style.cap == "pyramid" else min((x1 - x0) * 2.1, 13.0)
    top = np.array([xm, base + tall, zm])
    y = base - 0.05
    fl, fr, bl, br = (np.array(p, float) for p in ((x0, y, z1), (x1, y, z1), (x0, y, z0), (x1, y, z0)))
    sides = ((br, bl, RIGHT), (bl, fl, FRONT), (fr, br, FRONT), (fl, fr, RIGHT))
    return [plane_face([a, b, top], u, roof) for a, b, u in sides]


PROFILES = {  # of what is turned about an axis: radius and height, shares of half the width
    "dome": ((0.96, 0), (0.96, 0.25), (0.84, 0.6), (0.62, 0.88), (0.34, 1.05), (0.08, 1.12), (0.06, 1.5), (0, 1.75)),
    "onion": ((0.7, 0), (0.95, 0.35), (0.98, 0.65), (0.75, 1), (0.4, 1.3), (0.16, 1.65), (0.05, 2.1), (0, 2.5)),
}


def _turned(kind: str, xm: float, zm: float, base: float, rx: float, rz: float, roof: Texture) -> list[Face]:
    """A dome or an onion: rings of narrow faces about an axis."""
    r = min(rx, rz)
    angles = np.linspace(0, 2 * np.pi, 11)
    faces = []
    for (r0, y0), (r1, y1) in itertools.pairwise(PROFILES[kind]):
        for a, b in itertools.pairwise(angles):
            ring = [(np.cos(t), np.sin(t)) for t in (b, a)]
            low = [(xm + rx * r0 * c, base + r * y0, zm + rz * r0 * s) for c, s in ring]
            high = [(xm + rx * r1 * c, base + r * y1, zm + rz * r1 * s) for c, s in ring[::-1]]
            points = np.array([*low, *high] if r1 > 0 else [*low, high[0]])
            faces.append(plane_face(points, points[1] - points[0], roof))
    return faces
