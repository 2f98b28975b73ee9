"""Reading profiles: inheritance, changes by dotted keys, refusals in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ssr_lib.files import load_part
from ssr_lib.network import all_options
from ssr_lib.study.provenance import data_folder, repository_root
from ssr_lib.study.schema import Profile

LINES = ("networks", "tables", "rerankers")  # sections whose lines a profile may add, and take away by null


def load_profile(name: str, changes: Mapping[str, Any] | str | None = None) -> Profile:
    """The profile profiles/<name>.yaml, or the file `name`, with the dotted keys of `changes` (or of their JSON text).

    Raises `ValueError` in one line for a profile that is not there and for every key and value that is refused.
    """
    values = _read(name)
    for dotted, value in _as_mapping(changes).items():
        *parents, leaf = dotted.split(".")
        place = values
        for key in parents:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[leaf] = value
    networks = values.get("networks")
    if isinstance(networks, dict):
        values["networks"] = {line: _like(networks, line) for line in networks}
    try:
        return Profile.model_validate(values)
    except ValidationError as refused:
        raise ValueError(f"profile {name}: {_fault(refused.errors()[0])}") from None


def _as_mapping(changes: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if isinstance(changes, str):  # papermill hands a mapping on the command line on as text
        try:
            changes = json.loads(changes or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"changes is the text {changes!r}, which is not JSON: {error}") from None
    if changes is not None and not isinstance(changes, Mapping):
        raise ValueError(f'changes is {changes!r}; wanted dotted keys with values, such as {{"training.steps": 50}}')
    return changes or {}


def _fault(error: Mapping[str, Any]) -> str:
    """A refusal of pydantic in words: the dotted key, what stands there, what is legal."""
    place = [str(part) for part in error["loc"]]
    if error["type"] == "contradiction":
        return error["msg"]
    if error["type"] == "unknown key":
        return f"there is no {'.'.join([*place, error['ctx']['key']])}; {error['msg']}"
    if error["type"] == "missing":
        return f"{'.'.join(place)} is missing"
    wanted = error["msg"].removeprefix("Input should be ").removeprefix("wanted ")
    return f"{'.'.join(place)} is {error['input']!r}; wanted {wanted}"


def _read(name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a profile put over those of the one it starts from (`base`), unchecked."""
    folder = repository_root() / "profiles"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or f"none in {folder}"
        raise ValueError(f"no profile {name!r}; there are {there}, and any file whose name ends in .yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {values!r}; wanted keys of profiles/base.yaml")
    base = values.pop("base", None)
    if base in (name, *heirs):
        raise ValueError(f"{path}: base is {base}, which itself starts from {name}")
    return values if base is None else _over(_read(str(base), (name, *heirs)), values)


def _over(base: dict, changes: dict, section: str = "") -> dict[str, Any]:
    """`changes` put over `base`, mappings key by key; a line of `LINES` that is null goes, all of it after `base: null`."""
    merged = {} if "base" in changes else copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _over(merged[key], value, key)
        elif value is None and (section in LINES or key == "base"):
            merged.pop(key, None)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _like(lines: Mapping[str, Any], name: str, heirs: tuple[str, ...] = ()) -> Any:
    """The line `name` of `networks`, put over the line that it is `like`."""
    line = lines[name]
    if not isinstance(line, dict) or "like" not in line:
        return line
    other = line["like"]
    if other not in lines or other in (name, *heirs):
        raise ValueError(f"networks.{name}.like is {other!r}; wanted another line of networks: {'; '.join(lines)}")
    own = {key: value for key, value in line.items() if key != "like"}
    return _over(_like(lines, other, (name, *heirs)), own)


def check_parts(profile: Profile) -> None:
    """Every head, loss and re-ranker is there and takes its options: found out before anything is drawn."""
    for name, line in profile.networks.items():
        make = load_part(line.head, "heads").Head
        try:
            make((8, 8, 8), **all_options(make, line.options, f"head {line.head}"))
        except ValueError as error:
            raise ValueError(f"networks.{name}.options: {error}") from None
    recipe = profile.training
    make = load_part(recipe.loss, "losses").Loss
    try:
        make(8, 2, **all_options(make, recipe.loss_options, f"loss {recipe.loss}"))
    except ValueError as error:
        raise ValueError(f"training.loss_options: {error}") from None
    for line in profile.rerankers.values():
        load_part(line.module, "rerank")


def data_file(name: str | Path) -> Path:
    """The file or folder `name` below `data_folder()`. Raises `FileNotFoundError` where it is not there."""
    path = data_folder() / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there; data/README.md says how to get it. Where it lies in another folder, set SSR_DATA to that"
        )
    return path


def missing_inputs(profile: Profile) -> list[str]:
    """Names of the files and folders below `data_folder()` that a profile names and that are not there."""
    named = [*profile.data.labels.values(), profile.data.training_labels, profile.data.distractors]
    for name in {name: None for names in profile.tables.values() for name in names}:
        spec = profile.spec(name)
        for seed in spec.seeds if spec.checkpoint else ():
            stem = spec.checkpoint.replace("{seed}", str(seed))
            named += [f"{stem}.safetensors", f"{stem}.json"]
    return [name for name in dict.fromkeys(named) if name and not (data_folder() / name).exists()]
