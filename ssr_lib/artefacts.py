"""A profile opened: its parameters, its folders, and every artefact of the study, made on first use and then found again.

Notebooks ask a `Study` for what they need (a benchmark, a trained network, descriptors); what is not there is made by the
same resumable functions, whichever notebook asks first. Artefacts lie under `data/cache`, each in a folder named by a
digest of everything that made it, so profiles share what is equal and never mix what is not.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from ssr_lib.data.benchmark import Benchmark, write_atomic
from ssr_lib.data.folder import read_labels, read_training_labels
from ssr_lib.data.images import PRESETS, Preprocess
from ssr_lib.data.synthetic import LabelledImages, SyntheticSpec, draw_benchmark, draw_training
from ssr_lib.data.synthetic.spec import VERSION
from ssr_lib.extract import extract_benchmark
from ssr_lib.maps import compute_maps, describe_maps, head_descriptors
from ssr_lib.models import RetrievalNet
from ssr_lib.models.pooling import grid_gem
from ssr_lib.models.self_similarity import structural_descriptor
from ssr_lib.provenance import repository_root
from ssr_lib.results import Results
from ssr_lib.tables import write_table
from ssr_lib.train import TrainConfig, train_head

VARIANTS = ("plain", "neighbour", "conv", "self-similarity")
RECIPE = (
    "batch_size",
    "optimizer",
    "weight_decay",
    "margin",
    "scale",
)  # of the profile's training, as TrainConfig names them
TRAINING_FREE = (
    "untrained",
    "structural",
    "grid",
)  # descriptors of the frozen map: GeM, summed cosines, GeM on a 3 x 3 grid


def digest(record: object) -> str:
    """Twelve hexadecimal characters that name a JSON-able record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Model:
    """One network of the study, named by everything that makes it; `seed` None is a network that is not trained."""

    variant: str
    backbone: str
    seed: int | None
    regime: str  # training views: "ordinary", "reskinned", or the name of a set of photographs
    place: str
    mid_channels: int
    window: int
    fusion: str
    image_size: int  # pixels
    learning_rate: float  # of the pretrained tail
    steps: int

    def params(self) -> dict:
        """What distinguishes the model in a row of results beside backbone, variant and seed."""
        if self.seed is None:
            return {"image_size": self.image_size}
        module = (
            {}
            if self.variant == "plain"
            else {k: getattr(self, k) for k in ("place", "mid_channels", "window", "fusion")}
        )
        return {
            "regime": self.regime,
            "image_size": self.image_size,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            **module,
        }


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
        for key in parents:
            place = place[key]
        if leaf not in place:
            raise ValueError(
                f"the profile has no parameter {dotted!r}; {'.'.join(parents) or 'it'} has {', '.join(map(str, place))}"
            )
        place[leaf] = value
    return parameters


def data_file(name: str) -> Path:
    """A file of pictures that cannot be drawn, in the folder SSR_DATA or else in data/. Raises where it is not there."""
    folder = Path(os.environ.get("SSR_DATA") or repository_root() / "data")
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder / name} is not there; put the pictures and their labels there (see data/README.md), "
            "or set SSR_DATA to the folder that holds them"
        )
    return folder / name


class Study:
    """Open profile `profile`; results go to `<workspace>/results/<profile>`, artefacts to `<workspace>/data/cache`.

    `workspace` None is the repository. `changes` maps dotted parameter names to values; where one differs from the
    profile, results go to `results/custom-<digest>` instead, so committed results never mix with a trial's.
    """

    def __init__(
        self,
        profile: str = "demo",
        workspace: str | Path | None = None,
        changes: dict | None = None,
        progress: bool = True,
    ):
        self.profile, self.progress = profile, progress
        self.workspace = Path(workspace or repository_root())
        plain = load_profile(profile)
        self.parameters = override(plain, {key: value for key, value in (changes or {}).items() if value is not None})
        self.custom = self.parameters != plain
        self.name = f"custom-{digest([profile, self.parameters])}" if self.custom else profile
        self.results_dir = self.workspace / "results" / self.name
        self.cache = self.workspace / "data" / "cache"
        self._last: tuple = (None, None)
        self._pictures: dict = {}
        self.results = Results(self.results_dir)

    def __repr__(self) -> str:
        return f"Study({self.name}: {self.parameters['title']})"

    def __getitem__(self, dotted: str):
        """The parameter under a dotted name: `study["data.image_size"]`."""
        value = self.parameters
        for key in dotted.split("."):
            value = value[key]
        return value

    def figure(self, name: str) -> Path:
        """Where the figure `name` (with its extension) is written."""
        path = self.results_dir / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table of the notebook to `tables/<name>.csv` and `.md`."""
        write_table(table, self.results_dir / "tables" / name)

    # ---- pictures

    def _spec(self, split: str) -> SyntheticSpec:
        values = dict(self["data"][split])
        if split == "training":
            values.pop("views")
        return SyntheticSpec(name=split, size=self["data.drawn_size"], held_out_styles=split == "test", **values)

    def _drawn_by(self, split: str) -> str:
        """A name for what draws the pictures of a split: what is asked for, and the version of the drawing code."""
        return digest([asdict(self._spec(split)), VERSION])

    def _drawn(self, split: str, kind: str = "") -> Path:
        return self.cache / "drawn" / f"{split}{kind}-{self._drawn_by(split)}"

    def training_set(self, regime: str = "ordinary") -> LabelledImages:
        """The training views of `regime`: drawn ones, or the photographs of the profile's `training_labels`."""
        if regime == "photographs":
            return self._once(
                ("training", regime), lambda: read_training_labels(data_file(self["data.training_labels"]))
            )
        views = self["data.training.views"]
        folder = self._drawn("training", f"-{regime}-{views}")
        draw = lambda: draw_training(  # noqa: E731
            self._spec("training"), folder, views=views, regime=regime, progress=self.progress
        )
        return self._once(("training", regime), draw)

    def benchmark(self, dataset: str = "synthetic", split: str = "test", subset: str = "all") -> Benchmark:
        """The benchmark `dataset`; a drawn one has splits "validation" and "test" and forms of its queries."""
        if dataset == "synthetic":
            draw = lambda: draw_benchmark(self._spec(split), self._drawn(split), progress=self.progress)  # noqa: E731
            return self._once((dataset, split), draw)["ordinary" if subset == "all" else subset]
        if dataset in self["data.labels"]:
            return self._once(dataset, lambda: read_labels(data_file(self["data.labels"][dataset])))
        raise ValueError(f"no dataset {dataset!r} in {self.profile}; it has {', '.join(self['data.datasets'])}")

    def _once(self, name, make):
        if name not in self._pictures:
            self._pictures[name] = make()
        return self._pictures[name]

    # ---- networks

    def model(self, variant: str, seed: int | None = 0, regime: str = "ordinary", **changes) -> Model:
        """The profile's model of that variant, with `changes` to any field of `Model`."""
        if variant not in (*VARIANTS, *TRAINING_FREE):
            raise ValueError(f"no variant {variant!r}; there are {', '.join((*VARIANTS, *TRAINING_FREE))}")
        values = {key: self["model"][key] for key in ("backbone", "place", "mid_channels", "window", "fusion")}
        rates = self["training.learning_rates"]
        values |= {
            "image_size": self["data.image_size"],
            "steps": self["training.steps"],
            "learning_rate": rates.get(variant, 0.0),
        }
        return Model(
            variant=variant, seed=None if variant in TRAINING_FREE else seed, regime=regime, **(values | changes)
        )

    def untrained(self, model: Model) -> RetrievalNet:
        """The network of `model` before training: pretrained backbone; module and whitening drawn from its seed."""
        if model.seed is None:
            return RetrievalNet(model.backbone, "plain", pretrained="package")
        return RetrievalNet(
            model.backbone,
            model.variant,
            place=model.place,
            mid_channels=model.mid_channels,
            window=model.window,
            fusion=model.fusion,
            descriptor_dim=self["model.descriptor_dim"],
            pretrained="package",
            seed=model.seed,
        )

    def network(self, model: Model) -> RetrievalNet:
        """The network of `model`, trained: now if it was not before, on from its last checkpoint if a run was killed."""
        return self._trained(model)[0]

    def learning_curve(self, model: Model) -> list[dict]:
        """Rows of the training of `model`: step, loss, accuracy, learning rate, seconds."""
        return self._trained(model)[1]

    def _trained(self, model: Model) -> tuple[RetrievalNet, list[dict]]:
        net = self.untrained(model)
        if model.seed is None:
            return net.eval(), []
        views = self.training_set(model.regime)
        recipe = {key: self["training"][key] for key in RECIPE}
        config = TrainConfig(
            steps=model.steps,
            lr_tail=model.learning_rate,
            lr_new=model.learning_rate * self["training.lr_new_factor"],
            seed=model.seed,
            **recipe,
        )
        maps = self._maps(net, views.root, views.files, self._preprocess(model.image_size))
        directory = self.cache / "models" / self._folder_name(model)
        curve = train_head(net, maps, views.labels, config, directory=directory, progress=self.progress)
        return net.eval(), curve

    def _folder_name(self, model: Model) -> str:
        """A name for the model and everything that trains it."""
        trained_by = [
            self["model.descriptor_dim"],
            self["training.lr_new_factor"],
            *(self["training"][k] for k in RECIPE),
        ]
        views = [self._drawn_by("training"), self["data.training.views"], self["data.training_labels"]]
        return f"{model.variant}-{model.seed}-{digest([asdict(model), trained_by if model.seed is not None else [], views])}"

    # ---- maps and descriptors

    def _preprocess(self, size: int) -> Preprocess:
        return dataclasses.replace(PRESETS["lite"], size_rule="fixed", size=size)

    def _maps(self, net: RetrievalNet, root: Path, files: list[str], preprocess: Preprocess, boxes=None) -> np.ndarray:
        """The frozen trunk's maps of some pictures, from the cache or computed now."""
        name = digest(describe_maps(net, files, preprocess, root, boxes))
        path = self.cache / "maps" / f"{net.config['backbone']}-{preprocess.size}-{name}.npy"
        return compute_maps(net, files, preprocess, path, root=root, boxes=boxes, progress=self.progress)

    def descriptors(
        self, model: Model, dataset: str = "synthetic", split: str = "test", subset: str = "all"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors of queries (Q, D) and database (N, D) of a benchmark, float32, from the cache or made now."""
        benchmark = self.benchmark(dataset, split, subset)
        folder = self.cache / "descriptors" / self._folder_name(model)
        if dataset != "synthetic":
            preprocess = dataclasses.replace(PRESETS["lite"], size_rule="longest", size=self["data.photo_size"])
            net = self._network_once(model)
            return extract_benchmark(net, benchmark, preprocess, folder / dataset, progress=self.progress)
        parts = {
            f"{split}-{subset}": (benchmark.queries, benchmark.boxes),
            f"{split}-database": (benchmark.database, None),
        }
        return tuple(self._described(model, benchmark, folder, split, name, *part) for name, part in parts.items())

    def _described(
        self, model: Model, benchmark: Benchmark, folder: Path, split: str, name: str, files, boxes
    ) -> np.ndarray:
        path = folder / f"{name}-{self._drawn_by(split)}.npy"
        if not path.is_file():
            net = self._network_once(model)
            maps = self._maps(net, benchmark.root, files, self._preprocess(model.image_size), boxes)
            save_array(path, describe_by(model, net, maps))
        return np.load(path)

    def _network_once(self, model: Model) -> RetrievalNet:
        """`network`, remembering the last one: the parts of a benchmark are described one after another."""
        if self._last[0] != model:
            self._last = (model, self.network(model))
        return self._last[1]


def describe_by(model: Model, net: RetrievalNet, maps: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Descriptors (N, D) float32 of cached maps: the network's, or one of the training-free ones of the maps themselves."""
    if model.variant not in ("structural", "grid"):
        return head_descriptors(net, maps, batch_size)
    describe = structural_descriptor if model.variant == "structural" else grid_gem
    batches = (maps[start : start + batch_size] for start in range(0, len(maps), batch_size))
    with torch.inference_mode():
        return np.concatenate([describe(torch.from_numpy(np.asarray(batch, np.float32))).numpy() for batch in batches])


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())
