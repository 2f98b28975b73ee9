"""Profiles: every parameter of a study, in profiles/<name>.yaml, each with its unit and reason."""

from __future__ import annotations

import copy
import math
import os
from contextlib import suppress
from pathlib import Path

import yaml

from ssr_lib.study.provenance import repository_root


def load_profile(name: str) -> dict:
    """The parameters of profiles/<name>.yaml. Raises `ValueError` naming the profiles there are."""
    folder = repository_root() / "profiles"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no profile {name!r}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def override(parameters: dict, changes: dict) -> dict:
    """A copy of `parameters` with dotted keys such as "rerank.fixed" replaced; raises `ValueError` for a key that is not there."""
    parameters = copy.deepcopy(parameters)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        place = parameters
        for i, key in enumerate((*parents, leaf)):
            if not isinstance(place, dict) or key not in place:
                has = ", ".join(map(str, place)) if isinstance(place, dict) else "no parts"
                raise ValueError(f"the profile has no parameter {dotted!r}; {'.'.join(parents[:i]) or 'it'} has {has}")
            if i < len(parents):
                place = place[key]
        place[leaf] = _of_kind(dotted, place[leaf], value)
    return parameters


def _of_kind(dotted: str, old: object, new: object) -> object:
    """`new` where it is of the kind of `old`, or one of them is null; a number that YAML takes for text (1e-3) as a number."""
    if old is None or new is None:
        return new
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    kind, name = next((kind, name) for kind, name in kinds.items() if isinstance(old, kind))
    value = new
    if kind in (int, float) and not isinstance(new, (bool, kind)):
        with suppress(ValueError, TypeError, OverflowError):
            value = float(new)
            value = int(value) if kind is int and value.is_integer() else value
    right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not right or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{dotted} is {new!r}; wanted {name}, such as {old!r}")
    return value


def data_folder() -> Path:
    """Where pictures and weights that cannot be made lie: the folder that SSR_DATA names, or data/."""
    return Path(os.environ.get("SSR_DATA") or repository_root() / "data")


def data_file(name: str | Path) -> Path:
    """The file or folder `name` below `data_folder()`. Raises `FileNotFoundError` where it is not there."""
    path = data_folder() / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there; data/README.md says how to get it. Where it lies in another folder, set SSR_DATA to that"
        )
    return path


def missing_inputs(parameters: dict) -> list[str]:
    """Names of the files and folders below `data_folder()` that a profile names and that are not there."""
    data, comparison = parameters["data"], parameters["comparison"]
    named = [*data["labels"].values(), data["training_labels"], data["distractors"]]
    seeds = {*comparison["seeds"], *comparison["backbone_seeds"]}
    for variants in parameters["model"]["checkpoints"].values():
        for checkpoint in variants.values():
            for seed in seeds if "{seed}" in checkpoint else (None,):
                stem = checkpoint.replace("{seed}", str(seed))
                named += [f"{stem}.safetensors", f"{stem}.json"]
    return [name for name in dict.fromkeys(named) if name and not (data_folder() / name).exists()]
