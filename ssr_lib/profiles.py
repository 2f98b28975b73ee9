"""Profiles: every parameter of a study, in profiles/<name>.yaml, each with its unit and reason."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import yaml

from ssr_lib.provenance import repository_root


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
        place[leaf] = value
    return parameters


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
