"""Walls: one texture of colour, relief and glass for each wall of a building."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from .materials import BASE, PPM, cover, masonry, weather
from .openings import opening
from .patch import PAD, fill, stamp
from .structures import ARCADE, BLANK, CLOCK, DOOR, OCULUS, SHOP, SMALL, TALL, Grid
from .styles import Style
from .surface import Surface

# Height of an opening above its floor, as a share of the floor; 0.24 for what is not listed.
SILLS = {DOOR: 0.0, ARCADE: 0.0, SHOP: 0.0, CLOCK: 0.2, TALL: 0.12, SMALL: 0.4, OCULUS: 0.32}
CURTAIN = (150, 146, 136)


def _band(surface: Surface, y0: float, y1: float, colour, up: int, x0: int = 0, x1: int | None = None) -> None:
    """A projecting strip over the surface, `up` cm proud of it."""
    there = (slice(max(0, round(y0)), max(0, round(y1))), slice(x0, x1))
    fill(surface.colour[there], colour)
    fill(surface.relief[there], BASE + up)


def compose_wall(rng, style: Style, cells: Grid, bays, floors, top: float, gable=None) -> Surface:
    """The wall of a grid of cells in a style; `top` metres of parapet, or of a gable, stand above the last floor.

    `bays`, `floors`: widths and heights, metres; `gable`: what opens in the gable, and how wide that is, metres.
    """
    total = sum(floors) + top
    xs = (np.concatenate([[0], np.cumsum(bays)]) * PPM).tolist()
    ys = ((total - np.concatenate([[0], np.cumsum(floors)])) * PPM).tolist()  # rows of floor lines, the lowest first
    shape = (round(total * PPM), round(xs[-1]))
    base = "stucco" if style.material == "timber" else style.material
    colour, relief = masonry(rng, base, style.wall, shape)
    surface = Surface(colour, relief, np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    if style.bands:
        dark = (np.arange(shape[0]) // round(0.55 * PPM)) % 2 == 1
        surface.colour[dark] = (surface.colour[dark] * (1 - style.bands)).astype(np.uint8)
    if style.base != "same":
        _ground_floor(rng, surface, style, ys)
    surface.colour = weather(rng, surface.colour, eaves=round(ys[-1]))
    _members(surface, style, xs, ys, gable is not None)
    for level, row in enumerate(cells):
        for column, kind in enumerate(row):
            if kind != BLANK:
                _place(rng, surface, style, kind, level, xs[column : column + 2], ys[level : level + 2])
    if gable is not None and gable[0] != BLANK and top > 2.4:
        half = min(gable[1] * 0.2, 1.6) * PPM
        tall = min(0.62 * top, 3.2) * PPM
        _place(rng, surface, style, gable[0], 0, (xs[-1] / 2 - half, xs[-1] / 2 + half), (ys[-1], ys[-1] - tall))
    return surface


def _ground_floor(rng, surface: Surface, style: Style, ys) -> None:
    """A ground floor of its own: stone courses with deep joints, plain stone, or paint."""
    y = round(ys[1])
    h, w = surface.colour.shape[:2]
    if style.base == "painted":
        surface.colour[y:] = cover(rng, "stucco", style.trim, (h - y, w))
        return
    stone = style.trim if style.base == "rusticated" else (150, 144, 132)
    surface.colour[y:], relief = masonry(rng, "ashlar", stone, (h - y, w))
    surface.relief[y:] = relief + 3
    if style.base == "rusticated":
        joints = np.arange(y, h)[(np.arange(h - y) % round(0.5 * PPM)) < 2]
        surface.relief[joints] = BASE - 4
        surface.colour[joints] = (surface.colour[joints] * 0.72).astype(np.uint8)


def _members(surface: Surface, style: Style, xs, ys, gabled: bool) -> None:
    """Plinth, string courses, pilasters, quoins, timbers, cornice."""
    h, w = surface.colour.shape[:2]
    trim = style.trim
    dim = tuple(int(v * 0.85) for v in trim)
    _band(surface, h - 0.45 * PPM, h, dim if style.material != "siding" else (140, 136, 128), 6)
    if style.material == "timber":
        _timbers(surface, style, xs, ys)
    if style.pilasters:
        t = round(0.22 * PPM)
        for x in xs:
            a, b = max(0, round(x) - t), min(w, round(x) + t)
            tint = trim if style.material == "stucco" else tuple(int(v * 1.03) for v in style.wall)
            grain = surface.colour[round(ys[-1]) :, a:b]
            surface.colour[round(ys[-1]) :, a:b] = cv2.addWeighted(grain, 0.45, np.full_like(grain, tint), 0.55, 0)
            surface.relief[round(ys[-1]) :, a:b] = BASE + 14
    if style.quoins:
        for k, y in enumerate(range(round(ys[-1]), h - 8, 12)):
            length = 22 if k % 2 else 14
            _band(surface, y, y + 11, trim, 5, 0, length)
            _band(surface, y, y + 11, trim, 5, w - length, w)
    if style.courses or style.base != "same":
        for y in ys[1:-1] if style.courses else ys[1:2]:
            _band(surface, y - 4, y + 2, trim, 9)
            _band(surface, y - 5, y - 4, tuple(int(min(255, v * 1.06)) for v in trim), 12)
    size = style.cornice * PPM
    y = ys[-1]
    _band(surface, y, y + size * 0.45, trim, 45)
    _band(surface, y + size * 0.45, y + size * 0.75, dim, 26)
    if style.cornice > 0.5:  # dentils
        teeth = (np.arange(w) // 5) % 2 == 0
        rows = slice(round(y + size * 0.75), round(y + size))
        surface.colour[rows, teeth] = trim
        surface.relief[rows, teeth] = BASE + 20
    if ys[-1] > 6 and not gabled:  # the parapet's coping
        _band(surface, 0, 4, dim, 12)
        if style.edge == "balustrade":
            top, foot = 5, round(ys[-1]) - 4
            gaps = (np.arange(w) % 9 < 4) & (np.arange(w) % (4 * PPM) > PPM)
            surface.colour[top:foot, gaps] = (surface.colour[top:foot, gaps] * 0.42).astype(np.uint8)
            surface.relief[top:foot, gaps] = BASE - 12


def _timbers(surface: Surface, style: Style, xs, ys) -> None:
    """The frame of a half-timbered wall: posts, rails and braces, above the ground floor if that is stone."""
    thick = 5
    first = 1 if style.base != "same" else 0
    bottom = round(ys[first])
    for y in ys[first:]:
        _band(surface, y - thick / 2, y + thick / 2 + 1, style.trim, 3)
    for i, (a, b) in enumerate(itertools.pairwise(xs)):
        for x in (a, (a + b) / 2 if b - a > 3.2 * PPM else a, b):
            _band(surface, ys[-1], bottom, style.trim, 3, max(0, round(x) - 2), round(x) + 3)
        for low, high in zip(ys[first:-1], ys[first + 1 :], strict=True):
            foot = high + (low - high) * 0.72
            cv2.line(surface.colour, (round(a), round(low)), (round(a + (b - a) * 0.3), round(foot)), style.trim, 4)
            if i % 2:
                cv2.line(surface.colour, (round(b), round(low)), (round(b - (b - a) * 0.3), round(foot)), style.trim, 4)


def _place(rng, surface: Surface, style: Style, kind: int, level: int, x, y) -> None:
    """Paste one opening into its cell; `y` holds the rows of the floor's bottom and top."""
    (left, right), (bottom, top) = x, y
    bay, floor = right - left, bottom - top
    variant = int(rng.integers(3)) if kind == SHOP else 0
    patch = opening(style, kind, round(bay / 14) * 14, round(floor / 12) * 12, variant)
    h, w = patch.mask.shape
    sill = SILLS.get(kind, 0.24) * floor
    left, upper = round((left + right) / 2 - w / 2), round(bottom - sill - (h - PAD))
    big_h, big_w = surface.relief.shape
    y0, y1, x0, x1 = max(0, upper), min(big_h, upper + h), max(0, left), min(big_w, left + w)
    if y1 <= y0 or x1 <= x0:
        return
    there = (slice(y0, y1), slice(x0, x1))
    if (y1 - y0, x1 - x0) != (h, w):
        patch = patch.part(slice(y0 - upper, y1 - upper), slice(x0 - left, x1 - left))
    cv2.copyTo(patch.colour, patch.mask, surface.colour[there])
    cv2.copyTo(patch.relief, patch.mask, surface.relief[there])
    cv2.copyTo(patch.glass, patch.mask, surface.glass[there])
    surface.panes[there] = rng.integers(1, 256)
    if kind not in (DOOR, SHOP, CLOCK, ARCADE) and rng.random() < 0.6:
        _curtain(rng, surface, y0 + PAD, y1 - PAD, x0 + PAD, x1 - PAD)
    if level > 0 and kind not in (OCULUS, SMALL, CLOCK) and style.balcony and rng.random() < style.balcony:
        _balcony(surface, style, round((x[0] + x[1]) / 2), bottom - sill, (w - 2 * PAD) / 2 + 8)


def _curtain(rng, surface: Surface, y0: int, y1: int, x0: int, x1: int) -> None:
    """A blind behind the upper part of a window's glass, or a curtain at one side."""
    if y1 - y0 < 4 or x1 - x0 < 4:
        return
    if rng.random() < 0.6:
        y1 = y0 + round((y1 - y0) * rng.uniform(0.15, 0.6))
    else:
        wide = max(2, round((x1 - x0) * 0.28))
        x0, x1 = (x0, x0 + wide) if rng.random() < 0.5 else (x1 - wide, x1)
    bright = rng.uniform(0.5, 1.1)
    if y1 > y0:
        there = (slice(y0, y1), slice(x0, x1))
        panes = cv2.threshold(surface.glass[there], 0, 255, cv2.THRESH_BINARY)[1]
        stamp(surface.colour[there], panes, tuple(int(tone * bright) for tone in CURTAIN))
        stamp(surface.glass[there], panes, 110)


def _balcony(surface: Surface, style: Style, x: int, y: float, half: float) -> None:
    """An iron railing before a window and the slab it stands on, proud of the wall so that it casts a shadow."""
    x0, x1 = max(0, round(x - half)), min(surface.relief.shape[1], round(x + half))
    iron = (38, 38, 42) if style.material != "concrete" else (176, 176, 172)
    top = max(0, round(y - 0.95 * PPM))
    _band(surface, y, y + 4, style.trim, 60, x0, x1)
    _band(surface, top, top + 2, iron, 55, x0, x1)
    bars = (slice(top, max(0, round(y))), slice(x0, x1, 3))
    surface.colour[bars] = iron
    surface.relief[bars] = BASE + 50
