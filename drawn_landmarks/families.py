"""Families of real architecture: for each, the materials, colours and details its buildings choose from (sRGB)."""

# fmt: off
BRICK = ((138, 86, 70), (152, 100, 80), (118, 78, 66), (168, 118, 92), (130, 98, 84))
YELLOW_BRICK = ((190, 164, 116), (176, 148, 104), (168, 146, 118))
LIMESTONE = ((214, 203, 176), (202, 192, 168), (222, 210, 186), (196, 182, 152))
SANDSTONE = ((190, 154, 108), (176, 136, 94), (200, 170, 126), (168, 124, 96))
GRANITE = ((152, 150, 146), (134, 134, 136), (166, 160, 152))
WHITE = ((232, 228, 218), (224, 222, 216), (236, 230, 212))
PASTEL = ((222, 186, 118), (214, 164, 134), (196, 204, 172), (184, 196, 208), (226, 206, 160), (204, 132, 96),
          (210, 178, 166))
CONCRETE = ((168, 164, 154), (150, 148, 142), (182, 176, 164))
TIMBERS = ((222, 206, 172), (228, 220, 198), (206, 178, 130))
DARK_PAINT = ((52, 62, 58), (44, 50, 66), (70, 40, 38), (58, 54, 48), (40, 60, 48))
PALE_TRIM = ((228, 222, 206), (214, 206, 186), (234, 230, 222))
SLATE = ((82, 88, 98), (98, 100, 104), (74, 76, 82))
TILE = ((156, 86, 58), (172, 100, 66), (138, 74, 54), (150, 104, 76))
COPPER = ((122, 158, 140), (104, 146, 132))
METAL = ((132, 138, 144), (110, 114, 118))
ROOFS = {"slate": SLATE, "tile": TILE, "copper": COPPER, "metal": METAL}

# A family lists the choices of one architectural tradition: wall, then windows, then roof. An attribute that is absent
# keeps DEFAULTS.
DEFAULTS = {
    "base": ("same",), "trim": PALE_TRIM, "quoins": (False,), "courses": (False, True), "bands": (0.0,),
    "pilasters": (False,),
    "width": (0.40, 0.56), "height": (0.50, 0.64), "bars": ((2, 2), (2, 3), (2, 4)),
    "frame": ((236, 234, 228), (226, 222, 210)), "surround": ("flat",), "shutters": (None,), "balcony": (0.0,),
    "cornice": (0.3, 0.6), "edge": ("eaves",), "pitch": (0.5, 0.8), "cap": ("pyramid",), "gable": ("plain",),
    "dormers": (False,), "chimneys": (True, False),
}

TRAINING_FAMILIES = {
    "brick terrace": {
        "material": ("brick",), "wall": BRICK + YELLOW_BRICK, "base": ("same", "painted"),
        "window": ("rect", "segmental"), "bars": ((2, 4), (3, 4), (2, 2)), "surround": ("flat", "keyed", "none"),
        "edge": ("eaves", "parapet"), "roof": ("pitched", "hip"), "roof_material": ("slate", "tile"),
        "cap": ("pyramid", "flat"), "gable": ("plain", "stepped"), "dormers": (False, True), "chimneys": (True,),
    },
    "boulevard": {
        "material": ("ashlar",), "wall": LIMESTONE, "base": ("rusticated",), "courses": (True,),
        "window": ("rect",), "height": (0.62, 0.72), "bars": ((2, 3), (2, 4)),
        "surround": ("flat", "keyed", "pediment"), "balcony": (0.3, 0.6, 1.0),
        "cornice": (0.5, 0.9), "roof": ("mansard",), "roof_material": ("slate", "metal"), "cap": ("dome", "pyramid"),
        "gable": ("pediment",), "dormers": (True,), "chimneys": (True,),
    },
    "stucco villa": {
        "material": ("stucco",), "wall": PASTEL + WHITE, "base": ("same", "stone", "rusticated"),
        "courses": (False, True),
        "window": ("rect", "round", "segmental"), "surround": ("flat", "none"),
        "shutters": (None, (64, 92, 72), (90, 66, 52), (84, 110, 128), (120, 60, 48)),
        "roof": ("hip", "pitched"), "roof_material": ("tile",), "pitch": (0.35, 0.55), "cap": ("pyramid",),
    },
    "gothic": {
        "material": ("ashlar",), "wall": GRANITE + LIMESTONE + SANDSTONE, "door": ((78, 56, 40), (60, 44, 36)),
        "quoins": (True, False),
        "window": ("pointed", "lancets"), "width": (0.34, 0.48), "height": (0.62, 0.76), "bars": ((2, 4), (3, 5)),
        "frame": ((90, 86, 80), (70, 70, 74)), "surround": ("arch",),
        "edge": ("crenels", "eaves", "parapet"), "roof": ("pitched",), "roof_material": ("slate", "copper"),
        "pitch": (0.9, 1.4), "cap": ("spire", "crenels"),
    },
    "romanesque": {
        "material": ("rubble", "ashlar"), "wall": SANDSTONE + GRANITE, "door": ((84, 58, 40),), "bands": (0.0, 0.25),
        "window": ("round", "lancets"), "width": (0.28, 0.42), "height": (0.46, 0.60), "bars": ((1, 3), (2, 3)),
        "frame": ((80, 70, 60),), "surround": ("arch",),
        "roof": ("pitched", "hip"), "roof_material": ("tile", "slate"), "cap": ("pyramid", "spire"),
    },
    "baroque": {
        "material": ("stucco",), "wall": PASTEL, "base": ("rusticated",), "quoins": (True,), "courses": (True,),
        "pilasters": (True, False),
        "window": ("rect", "segmental", "round"), "height": (0.58, 0.70), "surround": ("pediment", "hood", "keyed"),
        "cornice": (0.6, 1.0), "edge": ("eaves", "balustrade"), "roof": ("hip", "mansard"),
        "roof_material": ("tile", "copper"), "cap": ("onion", "dome"), "gable": ("curved",), "dormers": (True, False),
    },
    "mill": {
        "material": ("brick",), "wall": BRICK, "pilasters": (True,),
        "window": ("segmental", "rect"), "width": (0.56, 0.74), "height": (0.56, 0.70),
        "bars": ((4, 5), (3, 5), (5, 4)), "frame": ((62, 66, 66), (80, 92, 88), (216, 210, 198)),
        "surround": ("keyed", "none"),
        "edge": ("parapet",), "roof": ("flat", "pitched"), "roof_material": ("metal", "slate"),
        "cap": ("flat", "pyramid"), "gable": ("stepped", "plain"),
    },
    "modern": {
        "material": ("concrete", "stucco"), "wall": CONCRETE + WHITE, "trim": CONCRETE, "courses": (True, False),
        "window": ("strip", "rect"), "width": (0.66, 0.90), "height": (0.42, 0.62), "bars": ((2, 1), (3, 1), (2, 2)),
        "frame": ((58, 60, 62), (190, 192, 194)), "surround": ("none",), "balcony": (0.0, 0.3),
        "cornice": (0.15, 0.3), "edge": ("parapet",), "roof": ("flat",), "roof_material": ("metal",),
        "cap": ("flat",), "chimneys": (False,),
    },
    "clapboard": {
        "material": ("siding",),
        "wall": (*WHITE, (150, 166, 176), (176, 160, 124), (128, 142, 120), (186, 92, 78), (214, 196, 150)),
        "quoins": (True, False),
        "window": ("rect",), "bars": ((2, 4), (3, 4), (2, 2)), "surround": ("flat", "hood"),
        "shutters": (None, (50, 70, 62), (44, 50, 70), (96, 44, 40)),
        "roof": ("pitched", "hip"), "roof_material": ("slate", "metal"), "cap": ("pyramid", "spire"),
        "dormers": (True, False),
    },
    "half-timbered": {
        "material": ("timber",), "wall": TIMBERS, "base": ("stone", "same"),
        "trim": ((74, 54, 42), (56, 44, 38), (96, 62, 46)),
        "window": ("rect",), "width": (0.40, 0.55), "height": (0.42, 0.52), "bars": ((3, 3), (2, 3), (4, 4)),
        "frame": ((70, 52, 42), (214, 206, 190)), "surround": ("none",),
        "roof": ("pitched",), "roof_material": ("tile", "slate"), "pitch": (0.9, 1.3), "cap": ("spire", "pyramid"),
        "dormers": (True, False),
    },
    "neoclassical": {
        "material": ("ashlar", "stucco"), "wall": LIMESTONE + WHITE, "base": ("rusticated", "same"),
        "courses": (True,), "pilasters": (True,),
        "window": ("rect", "round"), "height": (0.58, 0.70), "surround": ("flat", "pediment"),
        "cornice": (0.7, 1.1), "edge": ("balustrade", "parapet"), "roof": ("flat", "hip"),
        "roof_material": ("slate", "copper"), "pitch": (0.25, 0.4), "cap": ("dome",), "gable": ("pediment",),
    },
}

HELD_OUT_FAMILIES = {
    "lagoon": {
        "material": ("stucco", "brick"), "wall": ((206, 140, 112), (224, 188, 166), (182, 122, 102), (226, 204, 178)),
        "window": ("horseshoe", "pointed"), "width": (0.44, 0.62), "height": (0.62, 0.74), "bars": ((2, 3),),
        "frame": ((96, 76, 60), (70, 84, 72)), "surround": ("arch",), "balcony": (0.3, 0.6),
        "edge": ("crenels", "balustrade"), "roof": ("hip",), "roof_material": ("tile",), "pitch": (0.3, 0.4),
        "cap": ("pyramid", "dome"),
    },
    "deco": {
        "material": ("ashlar", "concrete"),
        "wall": ((226, 216, 194), (206, 188, 160), (198, 200, 196), (220, 190, 160)),
        "trim": ((150, 120, 80), (104, 118, 116), (238, 234, 224)), "pilasters": (True,),
        "window": ("rect",), "width": (0.48, 0.66), "height": (0.62, 0.78), "bars": ((3, 4), (2, 5)),
        "frame": ((48, 62, 60), (60, 52, 46)), "surround": ("none",),
        "cornice": (0.15, 0.35), "edge": ("parapet",), "roof": ("flat",), "roof_material": ("copper",),
        "cap": ("flat", "spire"), "gable": ("stepped",), "chimneys": (False,),
    },
    "striped cathedral": {
        "material": ("ashlar",), "wall": ((226, 218, 204), (214, 196, 176), (164, 104, 86)), "bands": (0.45, 0.6),
        "window": ("round", "lancets"), "width": (0.36, 0.5), "height": (0.60, 0.72), "frame": ((74, 66, 60),),
        "surround": ("arch",),
        "roof": ("pitched", "hip"), "roof_material": ("tile", "copper"), "cap": ("dome", "pyramid"),
        "gable": ("plain", "stepped"),
    },
    "hanseatic": {
        "material": ("brick",), "wall": ((114, 70, 60), (98, 66, 60), (142, 86, 70)),
        "trim": ((206, 196, 176), (90, 52, 46)),
        "window": ("segmental", "pointed"), "bars": ((3, 5), (2, 4)), "frame": ((238, 236, 230), (60, 80, 68)),
        "surround": ("keyed", "arch"),
        "edge": ("eaves",), "roof": ("pitched",), "roof_material": ("copper", "tile"), "pitch": (1.0, 1.4),
        "cap": ("spire", "onion"), "gable": ("stepped", "curved"), "dormers": (True, False),
    },
}
FAMILIES = TRAINING_FAMILIES | HELD_OUT_FAMILIES
# fmt: on
