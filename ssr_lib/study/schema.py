"""What a profile may say: its keys, kinds and bounds, as pydantic models. profiles/base.yaml says what the keys mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "wanted a number")
    return value


def _no_repetition(values: list) -> list:
    if len(set(values)) < len(values):
        raise PydanticCustomError("repeated", "wanted each once: equal seeds are one training counted twice")
    return values


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Count = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Whole, Field(ge=1)]
AtLeast2 = Annotated[Whole, Field(ge=2)]
Pixels = Annotated[Whole, Field(ge=32)]
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
    seed: Count
    landmarks: AtLeast2
    views: Positive


class Split(Section):
    seed: Count
    landmarks: Positive
    views: tuple[Positive, Positive]
    same_style: Count
    same_building: Count
    distractors: Count


class Data(Section):
    image_size: Pixels
    drawn_size: Pixels
    training: TrainingViews
    validation: Split
    test: Split
    forms: list[Literal["restyled", "grey", "night", "masked"]]
    datasets: list[str]
    labels: dict[str, str]
    training_labels: str | None
    distractors: str | None
    choices_from: str


class Model(Section):
    backbone: str
    descriptor_dim: Positive


class NetworkSpec(Section):
    """A line of `networks`; what it leaves open (None) `Profile.spec` fills in."""

    head: str = "plain"
    options: dict[str, Any] = {}
    backbone: str | None = None
    image_size: Pixels | None = None
    views: Literal["ordinary", "restyled", "photographs"] = "ordinary"
    trained: bool = True
    whitening: bool = True
    seeds: Seeds | None = None
    steps: Count | None = None
    rate: Above0 | None = None
    checkpoint: str | None = None


class Extraction(Section):
    preset: str | None
    size: Positive | None
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    batch_size: Positive


class Training(Section):
    loss: str
    loss_options: dict[str, Any]
    seeds: Seeds
    steps: Positive
    start: Literal["random", "fitted"]
    batch_size: AtLeast2
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
    queries: Positive
    shortlist: Positive
    small_too: bool


class PreprocessSweep(Section):
    images: Positive | None
    changes: list[dict[str, Any]]


class Sweeps(Section):
    k: list[Positive]
    alpha: list[Number]
    shortlist: list[Positive]
    rounds: list[Positive]
    distractors: list[Count]
    database: list[Positive]
    preprocess: PreprocessSweep


class Statistics(Section):
    resamples: Positive
    seed: Count


class Profile(Section):
    """Every parameter of a study."""

    title: str
    source: Literal["drawn", "photographs", "revisited"]
    notebooks: list[str]
    data: Data
    model: Model
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
            raise ValueError(f"no network {name!r}; networks of the profile has {'; '.join(self.networks)}")
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
        for fault in (*self._misfits_of_networks(), *self._misfits_of_data()):
            raise PydanticCustomError("contradiction", "{fault}", {"fault": fault})
        return self

    def _misfits_of_networks(self) -> Iterator[str]:
        for table, names in self.tables.items():
            for name in [name for name in names if name not in self.networks]:
                yield f"tables.{table} has {name!r}; wanted lines of networks: {'; '.join(self.networks)}"
        for name in self.networks:
            spec = self.spec(name)
            one = not spec.trained or (spec.checkpoint is not None and "{seed}" not in spec.checkpoint)
            if one and spec.seeds != [None]:
                yield f"networks.{name}.seeds is {spec.seeds}, but this is one network; wanted [null]"
            if not one and None in spec.seeds:
                yield f"networks.{name}.seeds is {spec.seeds}; wanted whole numbers, one for each training"
            if spec.views == "photographs" and self.data.training_labels is None:
                yield f"networks.{name}.views is photographs, but data.training_labels is null"
            if spec.steps == 0 and self.training.start == "random":
                yield f"networks.{name}.steps is 0, which wants training.start fitted; it is random"

    def _misfits_of_data(self) -> Iterator[str]:
        data, drawn = self.data, self.data.validation
        for name in [name for name in data.datasets if name != "drawn" and name not in data.labels]:
            yield f"data.datasets has {name!r}; wanted drawn or one of data.labels: {', '.join(data.labels) or 'none'}"
        if data.choices_from == "validation":
            images = drawn.landmarks * (drawn.views[1] + drawn.same_style + drawn.same_building) + drawn.distractors
            for name, line in self.rerankers.items():
                if line.candidates.get("k") and min(line.candidates["k"]) >= images:
                    ks = line.candidates["k"]
                    yield f"rerankers.{name}.candidates.k is {ks}; data.validation has {images} images at most"
