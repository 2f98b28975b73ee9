"""The values of recipe.yaml, checked before anything else is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError


class Recipe(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """The keys of recipe.yaml, where the meaning, unit and reason of each value stand; others are refused."""

    clean_csv: str
    images: str
    leave_out: str | None
    image_size: PositiveInt
    workers: NonNegativeInt
    backbone: str
    pretrained: str
    head: str
    head_options: dict[str, Any]
    descriptor_dim: PositiveInt
    epochs: PositiveFloat
    batch_size: PositiveInt
    accumulate: PositiveInt
    precision: Literal["float32", "bfloat16"]
    rate: PositiveFloat
    momentum: float = Field(gt=0, lt=1)  # Nesterov's wants one
    weight_decay: NonNegativeFloat
    warmup: float = Field(ge=0, lt=1)
    clip: PositiveFloat
    loss: str
    loss_options: dict[str, Any]
    train_backbone: bool
    seed: int = Field(ge=0, lt=2**32)
    out: str
    device: str
    checkpoint_every: PositiveInt
    log_every: PositiveInt


def read_recipe(path: Path | str) -> Recipe:
    """The recipe in a YAML file. Raises `ValueError` in one line: the file, the key, what was found, what is wanted."""
    try:
        recipe = Recipe.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {first_fault(error)}") from error
    if recipe.checkpoint_every % recipe.log_every:
        every = f"checkpoint_every {recipe.checkpoint_every}, log_every {recipe.log_every}"
        raise ValueError(f"{path}: {every}; the first is wanted to be a multiple of the second")
    return recipe


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, with the name of its key."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"]) or "the recipe"
    reasons = {
        "missing": f"{key} is missing; recipes/gldv2/recipe.yaml has every key",
        "extra_forbidden": f"{key} is unknown; there are {', '.join(Recipe.model_fields)}",
        "float_type": f"{key} is {fault['input']!r}; a number is wanted (YAML takes 1e-4 for a text: write 0.0001)",
    }
    return reasons.get(fault["type"], f"{key} is {fault['input']!r}; {fault['msg'].lower()}")
