"""Style: what a building is made of. Drawn independently of its structure, from families of real architecture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .chance import pick
from .families import (
    DARK_PAINT,
    DEFAULTS,
    FAMILIES,
    HELD_OUT_FAMILIES,
    ROOFS,
    TRAINING_FAMILIES,
)

Colour = tuple[int, int, int]  # sRGB


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: it is a key of what was drawn in it
class Style:
    """Everything visible of a building that is not its layout; colours are sRGB."""

    family: str
    material: str  # brick, ashlar, rubble, stucco, concrete, siding, timber
    wall: Colour
    base: str  # ground floor: same, rusticated, stone, painted
    trim: Colour
    frame: Colour
    door: Colour
    window: str  # rect, segmental, round, pointed, lancets, horseshoe, strip
    width: float  # of a window, as a share of its bay
    height: float  # as a share of its floor
    bars: tuple[int, int]  # glazing: panes across, panes down
    surround: str  # none, flat, keyed, hood, pediment, arch
    shutters: Colour | None
    balcony: float  # share of windows with an iron balcony
    quoins: bool
    courses: bool  # a string course at each floor
    bands: float  # contrast of alternate stone courses, 0 for none
    pilasters: bool
    cornice: float  # height, metres
    edge: str  # top of the wall: eaves, parapet, balustrade, crenels
    roof: str  # flat, hip, pitched, mansard
    roof_material: str  # slate, tile, copper, metal
    roof_colour: Colour
    pitch: float  # rise over run
    cap: str  # of a tower: pyramid, spire, dome, onion, flat, crenels
    gable: str  # outline of a gable: plain, stepped, curved, pediment
    dormers: bool
    chimneys: bool


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 9.0) -> Colour:
    """The colour moved a little: lightness by `amount`, each channel by a third of it (sRGB units, one sigma)."""
    moved = np.asarray(colour) + rng.normal(0, amount) + rng.normal(0, amount / 3, 3)
    return tuple(int(v) for v in np.clip(moved, 18, 244))


def draw_style(rng: np.random.Generator, *, held_out: bool = False, unlike: Style | None = None) -> Style:
    """A random style; from all families if `held_out`, else the training families; of another family than `unlike`."""
    names = sorted(FAMILIES if held_out else TRAINING_FAMILIES)
    if held_out:  # the held-out families appear twice as often as the others
        names = names + sorted(HELD_OUT_FAMILIES)
    family = pick(rng, names)
    while unlike is not None and family == unlike.family:
        family = pick(rng, names)
    return style_of(family, rng)


RANGES = ("width", "height", "cornice", "pitch")  # attributes drawn between two limits, not chosen
JITTERS = {"wall": 12.0, "trim": 9.0, "frame": 5.0, "door": 9.0}  # of colours
DOORS = (*DARK_PAINT, (112, 74, 48), (90, 58, 40))


def style_of(family: str, rng: np.random.Generator) -> Style:
    """A random style of one family. Raises `KeyError` for an unknown family."""
    choices = DEFAULTS | {"door": DOORS} | FAMILIES[family]
    values = {"family": family}
    roof_material, shutters = (pick(rng, choices[name]) for name in ("roof_material", "shutters"))
    for name in [field.name for field in fields(Style)][1:]:
        if name == "roof_material":
            values[name] = roof_material
        elif name == "roof_colour":
            values[name] = jitter(rng, pick(rng, ROOFS[roof_material]))
        elif name == "shutters":
            values[name] = None if shutters is None else jitter(rng, shutters)
        elif name in RANGES:
            values[name] = float(rng.uniform(*choices[name]))
        else:
            values[name] = pick(rng, choices[name])
        if name in JITTERS:
            values[name] = jitter(rng, values[name], JITTERS[name])
    return Style(**values)
