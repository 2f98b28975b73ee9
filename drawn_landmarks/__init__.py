"""The embedded benchmark: procedural landmarks, photographed by code.

A landmark is a *structure* (floors, bays, towers, wings) in a *style* (material, windows, roof), drawn independently;
a view is a rendered photograph of it in a street. See `data/README.md` for the data card.
"""

from .contact import contact_sheet, variant_sheet
from .dataset import LabelledImages, draw_benchmark, draw_training
from .spec import SyntheticSpec

__all__ = ["LabelledImages", "SyntheticSpec", "contact_sheet", "draw_benchmark", "draw_training", "variant_sheet"]
