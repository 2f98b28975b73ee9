"""Surfaces: brick, stone, plaster, roofs and pavings as tiles of colour and relief."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .chance import pick
from .noise import FIELDS, field, patch

PPM = 24  # pixels per metre of every texture
TILE = 256  # pixels
BASE = 70  # relief of a wall's own surface; relief is in cm, uint8
VARIANTS = 6  # of each material
STONY = ("brick", "rubble", "tile", "slate", "grass", "ashlar")


def _grid(rng, course: int, length: int, bond: float) -> tuple[np.ndarray, np.ndarray]:
    """Coursed masonry: a random number for each stone (TILE, TILE) in [-1, 1], and where its joints are (bool)."""
    rows = np.arange(TILE) // course
    offset = (rows % 2) * int(length * bond) + (rng.integers(0, length, TILE)[rows] if bond == 0 else 0)
    columns = (np.arange(TILE)[None] + offset[:, None]) // length % (TILE // length)
    values = rng.uniform(-1, 1, (TILE, TILE))[rows[:, None], columns]
    joints = (np.arange(TILE)[:, None] % course == 0) | ((np.arange(TILE)[None] + offset[:, None]) % length == 0)
    return values, joints


def _rubble(rng, stones: int) -> tuple[np.ndarray, np.ndarray]:
    """Irregular stones: a number for each, and the joints between them; periodic."""
    points = rng.integers(0, TILE, (stones, 2))
    seeds = np.full((3 * TILE, 3 * TILE), 255, np.uint8)
    for dy in range(3):
        for dx in range(3):
            seeds[points[:, 0] + dy * TILE, points[:, 1] + dx * TILE] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    middle = labels[TILE - 1 : 2 * TILE, TILE - 1 : 2 * TILE]
    joints = (middle[1:, 1:] != middle[:-1, 1:]) | (middle[1:, 1:] != middle[1:, :-1])
    return rng.uniform(-1, 1, labels.max() + 1)[middle[1:, 1:]], joints


TONES = {  # of masonry: how much stones, grain and patches vary, and the joints' share of the tone
    "brick": (0.13, 0.22, 0.0, 1.16),  # mortar is paler
    "ashlar": (0.065, 0.16, 0.0, 0.84),
    "rubble": (0.16, 0.3, 0.0, 0.72),
    "concrete": (0.04, 0.24, 0.0, 0.82),
    "slate": (0.12, 0.2, 0.0, 0.85),
    "paving": (0.06, 0.16, 0.25, 0.86),
    "cobbles": (0.10, 0.2, 0.3, 0.84),
}
DEPTHS = {"ashlar": 2, "rubble": 4}  # of joints, cm


def _stones(rng, material: str, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """A number for each stone of masonry (TILE, TILE), and its joints (bool)."""
    if material == "rubble":
        return _rubble(rng, 560)
    if material == "brick":
        values, joints = _grid(rng, 3, 8, 0.5)
        return values, joints & (np.arange(TILE)[:, None] % 3 == 0)
    if material == "ashlar":
        return _grid(rng, pick(rng, (8, 10, 12, 16)), pick(rng, (16, 21, 25, 32)), 0.5)
    if material == "concrete":
        panels = pick(rng, (32, 64))
        return _grid(rng, panels, panels * 2, 0.0 if variant % 2 else 0.5)
    if material == "paving":
        size = pick(rng, (10, 14, 20))
        return _grid(rng, size, size, 0.5 * (variant % 2))
    return _grid(rng, *{"slate": (6, 9), "cobbles": (4, 5)}[material], 0.5)


def _tone(rng, material: str, variant: int, grain: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """The tone (TILE, TILE) about 1 of what is no masonry."""
    rows, columns = np.arange(TILE)[:, None], np.arange(TILE)[None]
    if material == "siding":
        tone = np.broadcast_to(1.04 - 0.035 * (rows % 5), (TILE, TILE)) + 0.06 * grain
        return np.where(rows % 5 == 4, tone * 0.78, tone)
    if material == "tile":  # a roof of pantiles
        values, _ = _grid(rng, 8, 6, 0.0)
        tone = 1 + 0.12 * values + 0.12 * np.sin(columns * 2 * np.pi / 6) + 0.25 * grain
        return np.where(rows % 8 == 7, tone * 0.7, tone)
    if material in ("metal", "copper"):  # standing seams run up the slope
        seams = columns % 14
        return 1 + 0.3 * grain + np.where(seams == 0, 0.12, np.where(seams == 1, -0.2, 0.0))
    speckle = np.resize(field(0.5, variant % FIELDS), (TILE, TILE)) - 0.5
    if material == "grass":
        return 1 + 0.5 * speckle + 0.4 * grain + 0.4 * patches
    rough = 0.1 if material in ("stucco", "timber") else 0.16
    tone = 1 + rough * speckle + 0.16 * grain  # stucco, asphalt, gravel: no pattern but grain
    return tone + 0.35 * patches if material in ("asphalt", "gravel") else tone


@lru_cache(maxsize=64)
def _pattern(material: str, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """The tile of a material without colour: tone (TILE, TILE) float32 about 1, and relief (uint8)."""
    rng = np.random.default_rng([7, sum(material.encode()), variant])
    grain = field(1.0, variant % FIELDS)[:TILE, :TILE] - 0.5
    patches = cv2.resize(field(2.0, (variant + 2) % FIELDS), (TILE, TILE), interpolation=cv2.INTER_AREA) - 0.5
    relief = np.full((TILE, TILE), BASE, np.uint8)
    if material in TONES:
        values, joints = _stones(rng, material, variant)
        by_stone, by_grain, by_patch, by_joint = TONES[material]
        tone = 1 + by_stone * values + by_grain * grain + by_patch * patches
        tone[joints] *= by_joint
        relief[joints] -= DEPTHS.get(material, 0)
    else:
        tone = _tone(rng, material, variant, grain, patches)
    tone = np.ascontiguousarray(tone, np.float32)
    tone.setflags(write=False)
    return tone, relief


@lru_cache(maxsize=64)
def _hues(material: str, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """What the red and the blue of a pattern are multiplied with, (TILE, TILE) float32: stones differ in hue, too."""
    hue = (np.roll(_pattern(material, variant)[0], 37, axis=0) - 1.0) * 0.35
    return 1 + hue, 1 - hue


@lru_cache(maxsize=48)
def material_tile(material: str, colour: tuple[int, int, int], variant: int, height: int, width: int) -> np.ndarray:
    """A coloured tile of a material, or its upper left part: (height, width, 3) uint8, both at most TILE."""
    tone = _pattern(material, variant)[0][:height, :width]
    red, green, blue = (float(channel) for channel in colour)
    painted = [cv2.convertScaleAbs(tone, alpha=green)]
    if material in STONY:
        redder, bluer = (hue[:height, :width] for hue in _hues(material, variant))
        painted.insert(0, cv2.multiply(cv2.multiply(tone, red), redder, dtype=cv2.CV_8U))
        painted.append(cv2.multiply(cv2.multiply(tone, blue), bluer, dtype=cv2.CV_8U))
    else:
        painted.insert(0, cv2.convertScaleAbs(tone, alpha=red))
        painted.append(cv2.convertScaleAbs(tone, alpha=blue))
    return cv2.merge(painted)


def cover(rng: np.random.Generator, material: str, colour, shape: tuple[int, int]) -> np.ndarray:
    """A surface of `shape` pixels of a material: (h, w, 3) uint8."""
    return _painted(material, colour, int(rng.integers(VARIANTS)), shape)


def masonry(rng: np.random.Generator, material: str, colour, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """As `cover`, and the relief (h, w) uint8: cm above the wall's own surface, plus BASE."""
    variant = int(rng.integers(VARIANTS))
    return _painted(material, colour, variant, shape), _spread(_pattern(material, variant)[1], shape)


def _painted(material: str, colour, variant: int, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    return _spread(material_tile(material, tuple(colour), variant, min(TILE, height), min(TILE, width)), shape)


def _spread(tile: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The tile, repeated and cut to `shape`."""
    (height, width), (tall, wide) = shape, tile.shape[:2]
    spread = np.empty((height, width, *tile.shape[2:]), np.uint8)
    for y in range(0, height, tall):
        for x in range(0, width, wide):
            spread[y : y + tall, x : x + wide] = tile[: height - y, : width - x]
    return spread


def weather(rng, surface: np.ndarray, strength: float = 1.0, eaves: int | None = None) -> np.ndarray:
    """The surface (h, w, 3) uint8 with the stains of years: large patches, runs of rain water, a dirty foot.

    Below row `eaves`, half the sky is hidden by the roof's edge.
    """
    height, width = surface.shape[:2]
    small = (max(4, height // 4), max(4, width // 4))
    stains = patch(rng, small, 2.0, scale=0.6) - 0.5
    runs = cv2.resize(patch(rng, (6, small[1]), 1.0, scale=1.0), (small[1], small[0]), interpolation=cv2.INTER_LINEAR)
    foot = np.exp(-np.arange(small[0])[::-1, None] / (0.8 * PPM / 4))
    tone = 1 + strength * (0.34 * stains - 0.22 * np.maximum(runs - 0.55, 0) - 0.14 * foot)
    if eaves is not None:
        below = np.arange(small[0])[:, None] * 4 - eaves
        tone = np.where(below >= 0, tone * (1 - 0.24 * np.exp(-np.maximum(below, 0) / (0.9 * PPM))), tone)
    tone = cv2.resize(tone.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(surface, cv2.cvtColor(tone, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
