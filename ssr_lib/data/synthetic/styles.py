"""Style: what a building is made of. Drawn independently of its structure, from families of real architecture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]  # sRGB


@dataclass(frozen=True)
class Style:
    """Everything visible of a building that is not its layout; colours are sRGB."""

    family: str
    material: str  # brick, ashlar, rubble, stucco, concrete, siding, timber, curtain
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


BRICK = ((138, 86, 70), (152, 100, 80), (118, 78, 66), (168, 118, 92), (130, 98, 84))
YELLOW_BRICK = ((190, 164, 116), (176, 148, 104), (168, 146, 118))
LIMESTONE = ((214, 203, 176), (202, 192, 168), (222, 210, 186), (196, 182, 152))
SANDSTONE = ((190, 154, 108), (176, 136, 94), (200, 170, 126), (168, 124, 96))
GRANITE = ((152, 150, 146), (134, 134, 136), (166, 160, 152))
WHITE = ((232, 228, 218), (224, 222, 216), (236, 230, 212))
PASTEL = (
    (222, 186, 118),
    (214, 164, 134),
    (196, 204, 172),
    (184, 196, 208),
    (226, 206, 160),
    (204, 132, 96),
    (210, 178, 166),
)
CONCRETE = ((168, 164, 154), (150, 148, 142), (182, 176, 164))
TIMBERS = ((222, 206, 172), (228, 220, 198), (206, 178, 130))
DARK_PAINT = ((52, 62, 58), (44, 50, 66), (70, 40, 38), (58, 54, 48), (40, 60, 48))
PALE_TRIM = ((228, 222, 206), (214, 206, 186), (234, 230, 222))
SLATE = ((82, 88, 98), (98, 100, 104), (74, 76, 82))
TILE = ((156, 86, 58), (172, 100, 66), (138, 74, 54), (150, 104, 76))
COPPER = ((122, 158, 140), (104, 146, 132))
METAL = ((132, 138, 144), (110, 114, 118))
ROOFS = {"slate": SLATE, "tile": TILE, "copper": COPPER, "metal": METAL}

# A family lists the choices of one architectural tradition; an attribute that is absent keeps DEFAULTS.
DEFAULTS = {
    "base": ("same",),
    "trim": PALE_TRIM,
    "frame": ((236, 234, 228), (226, 222, 210)),
    "width": (0.40, 0.56),
    "height": (0.50, 0.64),
    "bars": ((2, 2), (2, 3), (2, 4)),
    "surround": ("flat",),
    "shutters": (None,),
    "balcony": (0.0,),
    "quoins": (False,),
    "courses": (False, True),
    "bands": (0.0,),
    "pilasters": (False,),
    "cornice": (0.3, 0.6),
    "edge": ("eaves",),
    "pitch": (0.5, 0.8),
    "cap": ("pyramid",),
    "gable": ("plain",),
    "dormers": (False,),
    "chimneys": (True, False),
}

TRAINING_FAMILIES = {
    "brick terrace": {
        "material": ("brick",),
        "wall": BRICK + YELLOW_BRICK,
        "base": ("same", "painted"),
        "window": ("rect", "segmental"),
        "bars": ((2, 4), (3, 4), (2, 2)),
        "surround": ("flat", "keyed", "none"),
        "edge": ("eaves", "parapet"),
        "roof": ("pitched", "hip"),
        "roof_material": ("slate", "tile"),
        "chimneys": (True,),
        "dormers": (False, True),
        "gable": ("plain", "stepped"),
        "cap": ("pyramid", "flat"),
    },
    "boulevard": {
        "material": ("ashlar",),
        "wall": LIMESTONE,
        "base": ("rusticated",),
        "window": ("rect",),
        "height": (0.62, 0.72),
        "bars": ((2, 3), (2, 4)),
        "surround": ("flat", "keyed", "pediment"),
        "balcony": (0.3, 0.6, 1.0),
        "courses": (True,),
        "cornice": (0.5, 0.9),
        "roof": ("mansard",),
        "roof_material": ("slate", "metal"),
        "dormers": (True,),
        "chimneys": (True,),
        "cap": ("dome", "pyramid"),
        "gable": ("pediment",),
    },
    "stucco villa": {
        "material": ("stucco",),
        "wall": PASTEL + WHITE,
        "base": ("same", "stone", "rusticated"),
        "window": ("rect", "round", "segmental"),
        "surround": ("flat", "none"),
        "shutters": (None, (64, 92, 72), (90, 66, 52), (84, 110, 128), (120, 60, 48)),
        "courses": (False, True),
        "roof": ("hip", "pitched"),
        "roof_material": ("tile",),
        "pitch": (0.35, 0.55),
        "cap": ("pyramid",),
    },
    "gothic": {
        "material": ("ashlar",),
        "wall": GRANITE + LIMESTONE + SANDSTONE,
        "frame": ((90, 86, 80), (70, 70, 74)),
        "window": ("pointed", "lancets"),
        "width": (0.34, 0.48),
        "height": (0.62, 0.76),
        "bars": ((2, 4), (3, 5)),
        "surround": ("arch",),
        "door": ((78, 56, 40), (60, 44, 36)),
        "quoins": (True, False),
        "edge": ("crenels", "eaves", "parapet"),
        "roof": ("pitched",),
        "roof_material": ("slate", "copper"),
        "pitch": (0.9, 1.4),
        "cap": ("spire", "crenels"),
    },
    "romanesque": {
        "material": ("rubble", "ashlar"),
        "wall": SANDSTONE + GRANITE,
        "frame": ((80, 70, 60),),
        "door": ((84, 58, 40),),
        "window": ("round", "lancets"),
        "width": (0.28, 0.42),
        "height": (0.46, 0.60),
        "bars": ((1, 3), (2, 3)),
        "surround": ("arch",),
        "bands": (0.0, 0.25),
        "roof": ("pitched", "hip"),
        "roof_material": ("tile", "slate"),
        "cap": ("pyramid", "spire"),
    },
    "baroque": {
        "material": ("stucco",),
        "wall": PASTEL,
        "base": ("rusticated",),
        "window": ("rect", "segmental", "round"),
        "height": (0.58, 0.70),
        "surround": ("pediment", "hood", "keyed"),
        "quoins": (True,),
        "courses": (True,),
        "pilasters": (True, False),
        "cornice": (0.6, 1.0),
        "edge": ("eaves", "balustrade"),
        "roof": ("hip", "mansard"),
        "roof_material": ("tile", "copper"),
        "cap": ("onion", "dome"),
        "gable": ("curved",),
        "dormers": (True, False),
    },
    "mill": {
        "material": ("brick",),
        "wall": BRICK,
        "frame": ((62, 66, 66), (80, 92, 88), (216, 210, 198)),
        "window": ("segmental", "rect"),
        "width": (0.56, 0.74),
        "height": (0.56, 0.70),
        "bars": ((4, 5), (3, 5), (5, 4)),
        "surround": ("keyed", "none"),
        "pilasters": (True,),
        "edge": ("parapet",),
        "roof": ("flat", "pitched"),
        "roof_material": ("metal", "slate"),
        "cap": ("flat", "pyramid"),
        "gable": ("stepped", "plain"),
    },
    "modern": {
        "material": ("concrete", "stucco"),
        "wall": CONCRETE + WHITE,
        "trim": CONCRETE,
        "frame": ((58, 60, 62), (190, 192, 194)),
        "window": ("strip", "rect"),
        "width": (0.66, 0.90),
        "height": (0.42, 0.62),
        "bars": ((2, 1), (3, 1), (2, 2)),
        "surround": ("none",),
        "balcony": (0.0, 0.3),
        "courses": (True, False),
        "cornice": (0.15, 0.3),
        "edge": ("parapet",),
        "roof": ("flat",),
        "roof_material": ("metal",),
        "cap": ("flat",),
        "chimneys": (False,),
    },
    "clapboard": {
        "material": ("siding",),
        "wall": (*WHITE, (150, 166, 176), (176, 160, 124), (128, 142, 120), (186, 92, 78), (214, 196, 150)),
        "window": ("rect",),
        "bars": ((2, 4), (3, 4), (2, 2)),
        "surround": ("flat", "hood"),
        "shutters": (None, (50, 70, 62), (44, 50, 70), (96, 44, 40)),
        "quoins": (True, False),
        "roof": ("pitched", "hip"),
        "roof_material": ("slate", "metal"),
        "cap": ("pyramid", "spire"),
        "dormers": (True, False),
    },
    "half-timbered": {
        "material": ("timber",),
        "wall": TIMBERS,
        "base": ("stone", "same"),
        "trim": ((74, 54, 42), (56, 44, 38), (96, 62, 46)),
        "frame": ((70, 52, 42), (214, 206, 190)),
        "window": ("rect",),
        "width": (0.40, 0.55),
        "height": (0.42, 0.52),
        "bars": ((3, 3), (2, 3), (4, 4)),
        "surround": ("none",),
        "roof": ("pitched",),
        "roof_material": ("tile", "slate"),
        "pitch": (0.9, 1.3),
        "dormers": (True, False),
        "cap": ("spire", "pyramid"),
    },
    "neoclassical": {
        "material": ("ashlar", "stucco"),
        "wall": LIMESTONE + WHITE,
        "base": ("rusticated", "same"),
        "window": ("rect", "round"),
        "height": (0.58, 0.70),
        "surround": ("flat", "pediment"),
        "pilasters": (True,),
        "courses": (True,),
        "cornice": (0.7, 1.1),
        "edge": ("balustrade", "parapet"),
        "roof": ("flat", "hip"),
        "roof_material": ("slate", "copper"),
        "pitch": (0.25, 0.4),
        "cap": ("dome",),
        "gable": ("pediment",),
    },
}

HELD_OUT_FAMILIES = {
    "lagoon": {
        "material": ("stucco", "brick"),
        "wall": ((206, 140, 112), (224, 188, 166), (190, 100, 80), (226, 204, 178)),
        "frame": ((96, 76, 60), (70, 84, 72)),
        "window": ("horseshoe", "pointed"),
        "width": (0.44, 0.62),
        "height": (0.62, 0.74),
        "bars": ((2, 3),),
        "surround": ("arch",),
        "balcony": (0.3, 0.6),
        "edge": ("crenels", "balustrade"),
        "roof": ("hip",),
        "roof_material": ("tile",),
        "pitch": (0.3, 0.4),
        "cap": ("pyramid", "dome"),
    },
    "deco": {
        "material": ("ashlar", "concrete"),
        "wall": ((226, 216, 194), (206, 188, 160), (198, 200, 196), (220, 190, 160)),
        "trim": ((150, 120, 80), (104, 118, 116), (238, 234, 224)),
        "frame": ((48, 62, 60), (60, 52, 46)),
        "window": ("rect",),
        "width": (0.48, 0.66),
        "height": (0.62, 0.78),
        "bars": ((3, 4), (2, 5)),
        "surround": ("none",),
        "pilasters": (True,),
        "edge": ("parapet",),
        "cornice": (0.15, 0.35),
        "roof": ("flat",),
        "roof_material": ("copper",),
        "cap": ("flat", "spire"),
        "gable": ("stepped",),
        "chimneys": (False,),
    },
    "striped cathedral": {
        "material": ("ashlar",),
        "wall": ((226, 218, 204), (214, 196, 176), (164, 104, 86)),
        "frame": ((74, 66, 60),),
        "window": ("round", "lancets"),
        "width": (0.36, 0.5),
        "height": (0.60, 0.72),
        "surround": ("arch",),
        "bands": (0.45, 0.6),
        "roof": ("pitched", "hip"),
        "roof_material": ("tile", "copper"),
        "cap": ("dome", "pyramid"),
        "gable": ("plain", "stepped"),
    },
    "hanseatic": {
        "material": ("brick",),
        "wall": ((114, 70, 60), (98, 66, 60), (142, 86, 70)),
        "trim": ((206, 196, 176), (90, 52, 46)),
        "frame": ((238, 236, 230), (60, 80, 68)),
        "window": ("segmental", "pointed"),
        "bars": ((3, 5), (2, 4)),
        "surround": ("keyed", "arch"),
        "edge": ("eaves",),
        "roof": ("pitched",),
        "roof_material": ("copper", "tile"),
        "pitch": (1.0, 1.4),
        "gable": ("stepped", "curved"),
        "cap": ("spire", "onion"),
        "dormers": (True, False),
    },
}
FAMILIES = TRAINING_FAMILIES | HELD_OUT_FAMILIES


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
    pick = lambda key: choices[key][rng.integers(len(choices[key]))]  # noqa: E731
    between = lambda key: float(rng.uniform(*choices[key]))  # noqa: E731
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
