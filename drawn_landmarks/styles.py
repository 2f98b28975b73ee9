"""Style: what a building is made of. Drawn independently of its structure, from families of real architecture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .families import DARK_PAINT, DEFAULTS, FAMILIES, HELD_OUT_FAMILIES, ROOFS, TRAINING_FAMILIES

Colour = tuple[int, int, int]  # sRGB


@dataclass(frozen=True)
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
    family = names[rng.integers(len(names))]
    while unlike is not None and family == unlike.family:
        family = names[rng.integers(len(names))]
    return style_of(family, rng)


def style_of(family: str, rng: np.random.Generator) -> Style:
    """A random style of one family. Raises `KeyError` for an unknown family."""
    choices = DEFAULTS | {"door": (*DARK_PAINT, (112, 74, 48), (90, 58, 40))} | FAMILIES[family]

    def pick(key: str):
        return choices[key][rng.integers(len(choices[key]))]

    def between(key: str) -> float:
        return float(rng.uniform(*choices[key]))

    roof_material = pick("roof_material")
    shutters = pick("shutters")
    return Style(
        family=family,
        material=pick("material"),
        wall=jitter(rng, pick("wall"), 12),
        base=pick("base"),
        trim=jitter(rng, pick("trim")),
        frame=jitter(rng, pick("frame"), 5),
        door=jitter(rng, pick("door")),
        window=pick("window"),
        width=between("width"),
        height=between("height"),
        bars=pick("bars"),
        surround=pick("surround"),
        shutters=None if shutters is None else jitter(rng, shutters),
        balcony=pick("balcony"),
        quoins=pick("quoins"),
        courses=pick("courses"),
        bands=pick("bands"),
        pilasters=pick("pilasters"),
        cornice=between("cornice"),
        edge=pick("edge"),
        roof=pick("roof"),
        roof_material=roof_material,
        roof_colour=jitter(rng, ROOFS[roof_material][rng.integers(len(ROOFS[roof_material]))]),
        pitch=between("pitch"),
        cap=pick("cap"),
        gable=pick("gable"),
        dormers=pick("dormers"),
        chimneys=pick("chimneys"),
    )
