"""Profiles: every parameter of a study, in profiles/<name>.yaml, with inheritance and checked at the door."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ssr_lib.study.provenance import data_folder, repository_root

LINES = ("networks", "tables", "rerankers")  # sections whose lines a profile may add, and take away by null


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "wanted a number")
    return value


def _no_repetition(values: list) -> list:
    if len(set(values)) < len(values):
        raise PydanticCustomError("repeated", "wanted each number once: equal seeds are one training counted twice")
    return values


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Count = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, BeforeValidator(_no_truth_value)]
Above0 = Annotated[Number, Field(gt=0)]
Seeds = Annotated[list[Count | None], Field(min_length=1), AfterValidator(_no_repetition)]


class Section(BaseModel):
    """A mapping with the keys of its class and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                there = {"key": str(key), "legal": ", ".join(cls.model_fields)}
                raise PydanticCustomError("unknown key", "there are {legal}", there)
        return values


class TrainingViews(Section):
    """What is drawn to train on."""

    seed: Count
    landmarks: Annotated[Whole, Field(ge=2)]
    views: Positive


class Split(Section):
    """A drawn benchmark."""

    seed: Count
    landmarks: Positive
    views: tuple[Positive, Positive]
    same_style: Count
    same_building: Count
    distractors: Count

    def largest_database(self) -> int:
        """The most database images that this split can have."""
        return self.landmarks * (self.views[1] + self.same_style + self.same_building) + self.distractors


class Data(Section):
    """The pictures of a study."""

    image_size: Annotated[Whole, Field(ge=32)]
    drawn_size: Annotated[Whole, Field(ge=32)]
    training: TrainingViews
    validation: Split
    test: Split
    forms: list[Literal["restyled", "grey", "night", "masked"]]
    datasets: list[str]
    labels: dict[str, str]
    training_labels: str | None
    distractors: str | None
    choices_from: str


class Backbone(Section):
    """What every network is, where its own line says nothing else."""

    backbone: str
    descriptor_dim: Positive


class NetworkSpec(Section):
    """A line of `networks`; what it leaves open (None) `Profile.spec` fills in."""

    head: str = "plain"
    options: dict[str, Any] = {}
    backbone: str | None = None
    image_size: Positive | None = None
    views: Literal["ordinary", "restyled", "photographs"] = "ordinary"
    trained: bool = True
    whitening: bool = True
    seeds: Seeds | None = None
    steps: Count | None = None
    rate: Above0 | None = None
    checkpoint: str | None = None


class Extraction(Section):
    """How photographs are described."""

    preset: str | None
    size: Positive | None
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    batch_size: Positive


class Training(Section):
    """The recipe of every training."""

    loss: str
    loss_options: dict[str, Any]
    seeds: Seeds
    steps: Positive
    start: Literal["random", "fitted"]
    batch_size: Annotated[Whole, Field(ge=2)]
    optimizer: Literal["sgd", "adamw"]
    weight_decay: Annotated[Number, Field(ge=0)]
    rate: Above0
    new_rate_factor: Above0


class RerankerSpec(Section):
    """A line of `rerankers`: `candidates` are tried in every combination, `fixed` parameters stay."""

    module: str
    candidates: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    fixed: dict[str, Any] = {}


class Local(Section):
    """What local features are measured on."""

    queries: Positive
    shortlist: Positive
    small_too: bool


class PreprocessSweep(Section):
    """Choices between file and network."""

    images: Positive | None
    changes: list[dict[str, Any]]


class Sweeps(Section):
    """Values of one parameter each."""

    k: list[Positive]
    alpha: list[Number]
    shortlist: list[Positive]
    rounds: list[Positive]
    distractors: list[Count]
    database: list[Positive]
    preprocess: PreprocessSweep


class Statistics(Section):
    """Of every interval."""

    resamples: Positive
    seed: Count


class Profile(Section):
    """Every parameter of a study, with the names of profiles/base.yaml."""

    title: str
    source: Literal["drawn", "photographs", "revisited"]
    notebooks: list[str]
    data: Data
    model: Backbone
    networks: dict[str, NetworkSpec]
    tables: dict[str, list[str]]
    extraction: Extraction
    training: Training
    rerankers: dict[str, RerankerSpec]
    local: Local
    sweeps: Sweeps
    statistics: Statistics

    def spec(self, name: str) -> NetworkSpec:
        """The line `name` of `networks` with all that it leaves open filled in. Raises `ValueError` for no such line."""
        if name not in self.networks:
            raise ValueError(f"no network {name!r} in the profile; networks has {', '.join(self.networks)}")
        line, training = self.networks[name], self.training
        defaults = {
            "backbone": self.model.backbone,
            "image_size": self.data.image_size,
            "seeds": training.seeds if line.trained else [None],
            "steps": training.steps,
            "rate": training.rate,
        }
        return line.model_copy(update={key: value for key, value in defaults.items() if getattr(line, key) is None})

    @model_validator(mode="after")
    def _fits(self) -> Profile:
        """Refuse what contradicts itself: it would be found only after minutes of drawing."""
        for fault in _contradictions(self):
            raise PydanticCustomError("contradiction", "{fault}", {"fault": fault})
        return self


def _contradictions(profile: Profile) -> Iterator[str]:
    for table, names in profile.tables.items():
        for name in names:
            if name not in profile.networks:
                yield f"tables.{table} has {name!r}, which is no line of networks ({', '.join(profile.networks)})"
    for name in profile.networks:
        spec = profile.spec(name)
        fixed = not spec.trained or (spec.checkpoint and "{seed}" not in spec.checkpoint)
        if fixed and spec.seeds != [None]:
            yield f"networks.{name}.seeds is {spec.seeds}, but this is one network; wanted [null]"
        if not fixed and None in spec.seeds:
            yield f"networks.{name}.seeds is {spec.seeds}; wanted whole numbers, one for each training"
        if spec.steps == 0 and profile.training.start == "random":
            yield f"networks.{name}.steps is 0, which wants training.start fitted; it is random"
    if profile.data.choices_from == "validation":
        images = profile.data.validation.largest_database()
        for name, line in profile.rerankers.items():
            ks = line.candidates.get("k", [])
            if ks and min(ks) >= images:
                yield f"rerankers.{name}.candidates.k is {ks}; wanted one below the {images} images of data.validation"


def load_profile(name: str, changes: Mapping[str, Any] | str | None = None) -> Profile:
    """The profile profiles/<name>.yaml, or the file `name`, with the dotted keys of `changes` (or of their JSON text).

    Raises `ValueError` in one line for a profile that is not there and for every key and value that is refused.
    """
    values = read_profile(name)
    for dotted, value in _as_mapping(changes).items():
        *parents, leaf = dotted.split(".")
        place = values
        for key in parents:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[leaf] = value
    values["networks"] = {line: _like(values["networks"], line) for line in values.get("networks") or {}}
    try:
        return Profile.model_validate(values)
    except ValidationError as refused:
        raise ValueError(f"profile {name}: {_fault(refused.errors()[0])}") from None


def _as_mapping(changes: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if isinstance(changes, str):  # papermill hands a mapping on the command line on as text
        try:
            changes = json.loads(changes or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"changes is the text {changes!r}, which is not JSON ({error})") from None
    if not isinstance(changes or {}, Mapping):
        raise ValueError(f'changes is {changes!r}; wanted dotted keys with values, such as {{"training.steps": 50}}')
    return changes or {}


def _fault(error: Mapping[str, Any]) -> str:
    """One refusal of pydantic in words: the dotted key, what stands there, what is legal."""
    place = [str(part) for part in error["loc"]]
    if error["type"] == "contradiction":
        return error["msg"]
    if error["type"] == "unknown key":
        return f"there is no {'.'.join([*place, error['ctx']['key']])}; {error['msg']}"
    if error["type"] == "missing":
        return f"{'.'.join(place)} is missing"
    wanted = error["msg"].removeprefix("Input should be ").removeprefix("wanted ")
    return f"{'.'.join(place)} is {error['input']!r}; wanted {wanted}"


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would keep the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice in a mapping", node.start_mark)
        return super().construct_mapping(node, deep)


def read_profile(name: str, heirs: tuple[str, ...] = ()) -> dict:
    """The values of a profile merged into those of the one it starts from (`base`), unchecked."""
    folder = repository_root() / "profiles"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or f"none in {folder}"
        raise ValueError(f"no profile {name!r}; there are {there}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {values!r}; wanted the keys of profiles/base.yaml")
    base = values.pop("base", None)
    if base in (name, *heirs):
        raise ValueError(f"{path}: base is {base}, which starts from {name} itself")
    return values if base is None else _merge(read_profile(str(base), (name, *heirs)), values)


def _merge(base: dict, changes: dict, section: str = "") -> dict:
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, key)
        elif value is None and section in LINES:
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
        raise ValueError(f"networks.{name}.like is {other!r}; wanted another line of {', '.join(lines)}")
    own = {key: value for key, value in line.items() if key != "like"}
    return _merge(_like(lines, other, (name, *heirs)), own)


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
    for name in dict.fromkeys(name for names in profile.tables.values() for name in names):
        spec = profile.spec(name)
        for seed in spec.seeds if spec.checkpoint else ():
            stem = spec.checkpoint.replace("{seed}", str(seed))
            named += [f"{stem}.safetensors", f"{stem}.json"]
    return [name for name in dict.fromkeys(named) if name and not (data_folder() / name).exists()]
