"""Profiles: keys and kinds are those of profiles/base.yaml; the bounds that its values do not tell stand here."""

import inspect
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import yaml
from pydantic import Field

from ssr_lib.files import load_part, one_line
from ssr_lib.network import all_options
from ssr_lib.study.provenance import repository_root

Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(ge=0)]
Table = Literal["main", "again", "restyled", "training_free", "ablation", "backbones", "rates", "changes", "drawings"]
KINDS = {bool: pydantic.StrictBool, int: Positive, float: Number, str: str}  # of an example in base.yaml
MAY_BE_0 = ("seed", "same_style", "same_building", "distractors")


class Section(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """A mapping with the keys of its class and no others."""


class NetworkSpec(Section):
    """A line of `networks`; what it leaves open (None) `Profile.spec` fills in."""

    head: str = "plain"
    options: dict[str, Any] = {}
    backbone: str | None = None
    image_size: Positive | None = None
    views: Literal["ordinary", "restyled", "photographs"] = "ordinary"
    trained: pydantic.StrictBool = True
    initialisation: Count = 0
    whitening: pydantic.StrictBool = True
    seeds: Annotated[list[Count | None], Field(min_length=1)] | None = None
    steps: Count | None = None
    rate: Number | None = None
    checkpoint: str | None = None


class RerankerSpec(Section):
    """A line of `rerankers`: `candidates` are tried in every combination, `fixed` parameters stay."""

    module: str
    candidates: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    fixed: dict[str, Any] = {}


BOUNDS = {
    "source": Literal["drawn", "photographs", "revisited"],
    "data.images": Literal["labelled", "complete"],
    "data.forms": list[Literal["restyled", "grey", "night", "masked"]],
    "extraction.dtype": Literal["float32", "bfloat16", "float16"],
    "training.protocol": Literal["frozen", "end_to_end"],
    "training.start": Literal["random", "fitted"],
    "training.share": Annotated[Number, Field(gt=0, le=1)],
    "training.optimizer": Literal["sgd", "adamw"],
    "training.batch_size": Annotated[int, Field(ge=2, strict=True)],
    "networks": dict[str, NetworkSpec],
    "rerankers": dict[str, RerankerSpec],
    "training.loss_options": dict[str, Any],
    "sweeps.preprocess.changes": list[dict[str, Any]],
    "tables": dict[Table, list[str]],
    "reads": dict[str, list[str]],
}
BOUNDS |= dict.fromkeys(("data.labels", "data.whitening_labels"), dict[str, str])
BOUNDS |= dict.fromkeys(("training.seeds", "controls.seeds"), Annotated[list[Count], Field(min_length=1)])
RANGES = ("data.validation.views", "data.test.views", "photographs.positives")
BOUNDS |= dict.fromkeys(RANGES, tuple[Positive, Positive])
BOUNDS |= dict.fromkeys(("data.training_labels", "data.distractors", "extraction.preset"), str | None)
BOUNDS |= dict.fromkeys(("extraction.size", "sweeps.preprocess.images"), Positive | None)


class Profile(Section):
    """Every parameter of a study, with the keys of profiles/base.yaml."""

    def spec(self, name: str) -> NetworkSpec:
        """The line `name` of `networks` with all that it leaves open filled in."""
        line, training = line_of(self.networks, name, "networks"), self.training
        known = {"backbone": self.model.backbone, "image_size": self.data.image_size, "steps": training.steps}
        known |= {"seeds": training.seeds if line.trained else [None], "rate": training.rate}
        return line.model_copy(update={key: value for key, value in known.items() if getattr(line, key) is None})


def line_of(section: Mapping[str, Any], name: str, what: str) -> Any:
    """The line `name` of a section of the profile; raises `ValueError` naming those there are."""
    if name not in section:
        raise ValueError(f"no {name!r} in {what} of the profile; it has {'; '.join(section) or 'none'}")
    return section[name]


def _contradiction(profile: Profile) -> str | None:
    """What is legal by itself and would be found wrong only after minutes of drawing."""
    data, source = profile.data, profile.source
    for name in data.datasets:
        if name not in data.labels and (name != "drawn" or source != "drawn"):
            return f"source is {source} and data.datasets has {name!r}, which data.labels has no file of"
    for name in itertools.chain(profile.networks, *profile.tables.values()):
        spec = profile.spec(name)
        if len(set(spec.seeds)) < len(spec.seeds):
            return f"networks.{name}.seeds is {spec.seeds}; wanted each once"
        if spec.trained and spec.checkpoint is None and source == "revisited":
            return f"networks.{name}.checkpoint is null, and a profile of source revisited does not train"
    return None


def check_parts(profile: Profile) -> None:
    """Raises `ValueError` for heads, losses and re-rankers that lack something or do not take their options."""
    _try("training.loss", "losses", profile.training.loss, profile.training.loss_options)
    for name, line in profile.networks.items():
        _try(f"networks.{name}.head", "heads", line.head, line.options)
    for name, line in profile.rerankers.items():
        first = {key: values[0] for key, values in line.candidates.items()}
        _try(f"rerankers.{name}.module", "rerank", line.module, line.fixed | first)


def _try(place: str, package: str, part: str, options: Mapping[str, Any]) -> None:
    """Use a part as the study does, with next to nothing."""
    with one_line(f"{place} {part}, see ssr_lib/{package}/__init__.py"):
        module = load_part(part, package)
        if package == "rerank":
            descriptors = np.random.default_rng(0).standard_normal((1000, 8), np.float32)  # more rows than any k
            module.rerank(descriptors[:1], descriptors, None, **options).ranks.argmax()
        elif package == "heads":
            head = module.Head((8, 8, 8), seed=0, **all_options(module.Head, options, "it"))
            inspect.signature(head.forward).bind("mid", "last", "project")
        else:
            loss = module.Loss(8, 2, seed=0, **all_options(module.Loss, options, "it"))
            inspect.signature(loss.forward).bind("descriptors", "labels")


def _kind(example: Any, place: str = "") -> Any:
    """The kind of a value of base.yaml: as `BOUNDS` says, else that of the example that stands there."""
    if place in BOUNDS:
        return BOUNDS[place]
    if isinstance(example, list):
        return list[_kind(example[0], place)] if example else list
    if not isinstance(example, dict):
        return Count if place.rpartition(".")[2] in MAY_BE_0 else KINDS[type(example)]
    fields = {key: (_kind(value, f"{place}.{key}".strip(".")), ...) for key, value in example.items()}
    return pydantic.create_model(place or "Profile", __base__=Section if place else Profile, **fields)


def load_profile(name: str, changes: Mapping[str, Any] | str | None = None) -> Profile:
    """profiles/<name>.yaml, or the file `name`, with `changes`: dotted keys or their JSON text; refused in one line."""
    values = _read(name)
    if isinstance(changes, str):  # papermill hands a mapping on the command line on as text
        changes = json.loads(changes)
    for dotted, value in (changes or {}).items():
        for key in reversed(dotted.split(".")):
            value = {key: value}
        values = _over(values, value)
    if isinstance(values.get("networks"), dict):
        values["networks"] = {line: _like(values["networks"], line) for line in values["networks"]}
    try:
        profile = _kind(_read("base")).model_validate(values)
        fault = _contradiction(profile)
    except pydantic.ValidationError as refused:
        error = refused.errors()[0]
        place = ".".join(map(str, error["loc"]))
        fault = f"{place} is {error['input']!r:.200}; wanted {error['msg'].removeprefix('Input should be ')}"
        if error["type"] == "extra_forbidden":
            fault = f"there is no {place}; profiles/base.yaml has every key"
        elif error["type"] == "missing":
            fault = f"{place} is missing; what a profile leaves out comes from the one it names, as in `base: base`"
    if fault:
        raise ValueError(f"profile {name}: {fault}")
    return profile


def _read(name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a profile put over those of the one it starts from (`base`), unchecked."""
    folder = repository_root() / "profiles"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file() or name in heirs:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or f"none in {folder} (run in a clone)"
        raise ValueError(f"no profile {name!r} to start from; there are {there}, and any file whose name ends in .yaml")
    try:
        values = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no YAML with keys: {' '.join(str(error).split())}") from None
    base, values = values.pop("base", None), _beside(values, path.parent)
    return values if base is None else _over(_read(str(base), (*heirs, name)), values)


def _beside(value: Any, folder: Path) -> Any:
    """The .py files that a profile names are found from the folder that it lies in."""
    if isinstance(value, dict):
        return {key: _beside(inner, folder) for key, inner in value.items()}
    return str((folder / value).resolve()) if isinstance(value, str) and value.endswith(".py") else value


def _over(base: dict, changes: dict) -> dict[str, Any]:
    """`changes` put over `base`: mappings key by key, all else replaced; a mapping that is null goes."""
    merged = {} if "base" in changes else dict(base)  # `base: null` in a mapping: it starts empty
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, dict):
            merged[key] = _over(old if isinstance(old, dict) else {}, value)
        elif value is None and isinstance(old, dict):
            del merged[key]
        elif key != "base":
            merged[key] = value
    return merged


def _like(lines: Mapping[str, Any], name: str, heirs: tuple[str, ...] = ()) -> Any:
    """The line `name` of `networks`, put over the line that it is `like`."""
    if not isinstance(lines[name], dict) or "like" not in lines[name]:
        return lines[name]
    own = dict(lines[name])
    other = own.pop("like")
    if str(other) not in lines or other in (name, *heirs):
        raise ValueError(f"networks.{name}.like is {other!r}; wanted another line of networks: {'; '.join(lines)}")
    return _over(_like(lines, other, (name, *heirs)), own)
