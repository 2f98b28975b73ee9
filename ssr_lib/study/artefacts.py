"""A profile opened: its parameters, its folders, and every artefact of the study, made on first use and then found again.

Notebooks ask a `Study` for what they need (a benchmark, a trained network, descriptors); what is not there is made by the
same resumable functions, whichever notebook asks first. Artefacts lie under `data/cache`, each in a folder named by a
digest of everything that made it, so profiles share what is equal and never mix what is not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drawn_landmarks import LabelledImages, SyntheticSpec, draw_benchmark, draw_training
from drawn_landmarks.spec import VERSION
from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.folder import read_labels, read_training_labels
from ssr_lib.datasets.revisited import OFFICIAL, read_distractors, read_ground_truth, with_distractors
from ssr_lib.extract import extract, extract_benchmark, pick_device
from ssr_lib.files import digest
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.maps import compute_maps, describe_cached, describe_maps
from ssr_lib.network import RetrievalNet
from ssr_lib.store import load_sound, save_sound, stacked
from ssr_lib.study.profile import data_file, load_profile, override
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.rows import Results
from ssr_lib.study.tables import of_dataset, write_table
from ssr_lib.study.variants import TRAINING_FREE, VARIANTS, Model
from ssr_lib.study.variants import VERSION as MODELS
from ssr_lib.train import TrainConfig, fit_start, train_head
from ssr_lib.weights import load_checkpoint, stored_preprocess

# Of the profile's training, as TrainConfig names them.
RECIPE = ("batch_size", "optimizer", "weight_decay", "margin", "scale")


def short_digest(record: object) -> str:
    """Twelve hexadecimal characters that name a record."""
    return digest(record)[:12]


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
        self.name = f"custom-{short_digest([profile, self.parameters])}" if self.custom else profile
        self.results_dir = self.workspace / "results" / self.name
        self.cache = self.workspace / "data" / "cache"
        self._last: tuple = (None, None)
        self._made: dict = {}
        self.results = Results(self.results_dir)

    def __repr__(self) -> str:
        return f"Study({self.name}: {self.parameters['title']})"

    def __getitem__(self, dotted: str):
        """The parameter under a dotted name: `study["data.image_size"]`."""
        value = self.parameters
        for key in dotted.split("."):
            value = value[key]
        return value

    @property
    def regime(self) -> str:
        """What the networks of the main comparison are trained on: "photographs" where the profile has any, else "ordinary"."""
        return "photographs" if self["data.training_labels"] else "ordinary"

    def figure(self, name: str, dataset: str = "synthetic") -> Path:
        """Where the figure `name` (with its extension) of a dataset is written."""
        path = self.results_dir / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_stem(of_dataset(path.stem, dataset))

    def write_table(self, name: str, table: pd.DataFrame, dataset: str = "synthetic", digits: int = 1) -> None:
        """Write a table of the notebook to `tables/<name>.csv` and `.md`; of other datasets than the drawn to `<name>_<dataset>`."""
        write_table(table, self.results_dir / "tables" / of_dataset(name, dataset), digits=digits)

    # ---- pictures

    def _spec(self, split: str) -> SyntheticSpec:
        values = dict(self["data"][split])
        if split == "training":
            values.pop("views")
        return SyntheticSpec(name=split, size=self["data.drawn_size"], held_out_styles=split == "test", **values)

    def _drawn_by(self, split: str) -> str:
        """A name for what draws the pictures of a split: what is asked for, and the version of the drawing code."""
        return short_digest([asdict(self._spec(split)), VERSION])

    def _drawn(self, split: str, kind: str = "") -> Path:
        return self.cache / "drawn" / f"{split}{kind}-{self._drawn_by(split)}"

    def training_set(self, regime: str = "ordinary") -> LabelledImages:
        """The training views of `regime`: drawn ones, or the photographs of the profile's `training_labels`."""
        if regime == "photographs":
            read = lambda: read_training_labels(data_file(self["data.training_labels"]))
            return self._once(("training", regime), read)
        views = self["data.training.views"]
        folder = self._drawn("training", f"-{regime}-{views}")
        draw = lambda: draw_training(self._spec("training"), folder, views=views, regime=regime, progress=self.progress)
        return self._once(("training", regime), draw)

    def benchmark(self, dataset: str = "synthetic", split: str = "test", subset: str = "all") -> Benchmark:
        """The benchmark `dataset`; a drawn one has splits "validation" and "test" and forms of its queries."""
        if dataset == "synthetic":
            draw = lambda: draw_benchmark(self._spec(split), self._drawn(split), progress=self.progress)
            return self._once((dataset, split), draw)["ordinary" if subset == "all" else subset]
        if dataset not in self["data.labels"]:
            raise ValueError(f"no dataset {dataset!r} in {self.profile}; it has {', '.join(self['data.datasets'])}")
        return self._once(dataset, lambda: self._photographs(dataset))

    def _photographs(self, dataset: str) -> Benchmark:
        """A labelled folder (.csv) or a benchmark in the form of the revisited ones (.pkl)."""
        labels = data_file(self["data.labels"][dataset])
        if labels.suffix == ".pkl":
            official = {known.name for known in OFFICIAL}
            benchmark = read_ground_truth(labels, labels.parent, subset=dataset not in official)
        else:
            benchmark = read_labels(labels)
        if inside := sum(i >= 0 for i in benchmark.query_ids):
            raise ValueError(
                f"{labels}: {inside} queries are database images too; the study compares queries that stand apart: "
                "give every file a split, query or db"
            )
        return benchmark

    def with_distractors(self, dataset: str) -> Benchmark:
        """The benchmark with the distractors of the profile behind its database (revisitop1m: a million of them)."""
        folder = data_file(self["data.distractors"])
        make = lambda: with_distractors(self.benchmark(dataset), read_distractors(folder), folder)
        return self._once((dataset, "distractors"), make)

    def _once(self, name, make):
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    # ---- networks

    def model(self, variant: str, seed: int | None = 0, regime: str | None = None, **changes) -> Model:
        """The profile's model of that variant, with `changes` to any field of `Model`; `regime` None: the main one."""
        if variant not in (*VARIANTS, *TRAINING_FREE):
            raise ValueError(f"no variant {variant!r}; there are {', '.join((*VARIANTS, *TRAINING_FREE))}")
        values = {key: self["model"][key] for key in ("backbone", "place", "mid_channels", "window", "fusion")}
        rates = self["training.learning_rates"]
        more = self["training"].get("reskinned_steps") if regime == "reskinned" else None
        values |= {
            "image_size": self["data.image_size"],
            "steps": more or self["training.steps"],
            "learning_rate": rates.get(variant, 0.0),
        }
        values |= changes
        if variant in TRAINING_FREE:
            seed = None
        elif self["model.checkpoints"]:
            values["checkpoint"] = self._checkpoint_of(values["backbone"], variant)
            seed = self._seed_of(values["checkpoint"], seed)
        return Model(variant=variant, seed=seed, regime=regime or self.regime, **values)

    def _checkpoint_of(self, backbone: str, variant: str) -> str:
        """A profile that names checkpoints never trains: the one of a variant, or an error that says so."""
        named = self["model.checkpoints"]
        if variant not in named.get(backbone, {}):
            raise ValueError(
                f"profile {self.profile} names no checkpoint for {variant!r} with {backbone}, and it does not train; "
                f"model.checkpoints has {named}"
            )
        return named[backbone][variant]

    def _seed_of(self, checkpoint: str, seed: int | None) -> int | None:
        """The training that `seed` means: one of those that {seed} stands for, or None for a checkpoint that is one."""
        if "{seed}" not in checkpoint:
            return None
        if seed is None:
            raise ValueError(
                f"{checkpoint} is one network for each seed; wanted their numbers in comparison.seeds, not null"
            )
        return seed

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
            initial_gain=model.initial_gain,
            descriptor_dim=self["model.descriptor_dim"],
            pretrained="package",
            seed=model.seed,
        )

    def network(self, model: Model) -> RetrievalNet:
        """The network of `model`, trained: now if it was not before, on from its last checkpoint if a run was killed."""
        return self._trained(model)[0]

    def learning_curve(self, model: Model) -> list[dict]:
        """Rows of the training of `model`: step, loss, accuracy, learning rate, seconds."""
        return self._once(("curve", model), lambda: self._trained(model)[1])

    def _trained(self, model: Model) -> tuple[RetrievalNet, list[dict]]:
        if model.checkpoint:
            return load_checkpoint(data_file(model.weights)), []
        net = self.untrained(model)
        if model.seed is None:
            return net.eval(), []
        views = self.training_set(model.regime)
        maps = self._maps(net, views.root, views.files, self._preprocess(model.image_size))
        if model.steps == 0 < self["training.steps"]:  # asked for: the network as a fitted start leaves it
            fit_start(net, None, maps, np.unique(views.labels, return_inverse=True)[1], TrainConfig.shrinkage)
            return net.eval(), []
        config = TrainConfig(
            steps=model.steps,
            lr_tail=model.learning_rate,
            lr_new=model.learning_rate * self["training.lr_new_factor"],
            seed=model.seed,
            **{key: self["training"][key] for key in ("start", *RECIPE)},
        )
        directory = self.cache / "models" / self._folder_name(model)
        curve = train_head(net, maps, views.labels, config, directory=directory, progress=self.progress)
        return net.eval(), curve

    def _folder_name(self, model: Model) -> str:
        """A name for the model and everything that trains it."""
        recipe = (self["training"][key] for key in ("lr_new_factor", *RECIPE))
        fit = ["fitted", TrainConfig.shrinkage] if self["training.start"] == "fitted" else []
        trained_by = [self["model.descriptor_dim"], *recipe, *fit]
        drawn = [self._drawn_by("training"), self["data.training.views"], None]
        views = [None, None, self["data.training_labels"]] if model.regime == "photographs" else drawn
        made_by = [asdict(model), trained_by if model.seed is not None else [], views, MODELS]
        return f"{model.variant}-{model.seed}-{short_digest(made_by)}"

    # ---- maps and descriptors

    def _preprocess(self, size: int) -> Preprocess:
        return dataclasses.replace(PRESETS["lite"], size_rule="fixed", size=size)

    def _maps(self, net: RetrievalNet, root: Path, files: list[str], preprocess: Preprocess, boxes=None) -> np.ndarray:
        """The frozen trunk's maps of some pictures, from the cache or computed now."""
        name = short_digest(describe_maps(net, files, preprocess, root, boxes))
        folder = self.cache / "maps" / f"{net.config['backbone']}-{preprocess.size}-{name}"
        return compute_maps(net, files, preprocess, folder, root=root, boxes=boxes, progress=self.progress)

    def descriptors(
        self, model: Model, dataset: str = "synthetic", split: str = "test", subset: str = "all"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors of queries (Q, D) and database (N, D) of a benchmark, float32, from the cache or made now."""
        benchmark = self.benchmark(dataset, split, subset)
        if dataset != "synthetic":
            return self.extracted(model, benchmark, dataset)
        folder = self.cache / "descriptors" / self._folder_name(model)
        parts = {
            f"{split}-{subset}": (benchmark.queries, benchmark.boxes),
            f"{split}-database": (benchmark.database, None),
        }
        return tuple(self._described(model, benchmark, folder, split, name, *part) for name, part in parts.items())

    def preprocess(self, model: Model, **changes) -> tuple[Preprocess, dict]:
        """How photographs are prepared for `model`, and with what options they are described; `changes` to either.

        A checkpoint's own preparation, where the profile names no preset; "lite" for the packaged backbones.
        """
        wanted = self["extraction"]
        if wanted["preset"]:
            preprocess = PRESETS[wanted["preset"]]
        else:
            preprocess = stored_preprocess(data_file(model.weights)) if model.checkpoint else PRESETS["lite"]
        if preprocess is None:
            raise ValueError(
                f"{model.weights} does not say how its pictures are prepared; set extraction.preset to one of {', '.join(PRESETS)}"
            )
        if wanted["size"]:
            preprocess = dataclasses.replace(preprocess, size_rule="longest", size=wanted["size"])
        options = {key: changes.pop(key, wanted[key]) for key in ("device", "dtype", "batch_size")}
        options |= {"device": pick_device(options["device"]), "dtype": getattr(torch, options["dtype"])}
        return dataclasses.replace(preprocess, **changes), options | {"progress": self.progress}

    def extracted(self, model: Model, benchmark: Benchmark, name: str, **changes) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors of queries (Q, D) and database (N, D) described picture by picture; `changes` as in `preprocess`.

        They lie in a folder named by the benchmark's `name`, its pictures and all that prepares them.
        """
        if model.variant in ("structural", "grid"):
            raise ValueError(f"{model.variant} describes drawn pictures only: its maps have one size")
        preprocess, options = self.preprocess(model, **changes)
        made_by = [preprocess.to_dict(), str(options["dtype"]), benchmark.database, benchmark.queries, benchmark.boxes]
        folder = self.cache / "descriptors" / self._folder_name(model) / f"{name}-{short_digest(made_by)}"
        # remembered: a second look at the folder would load the network and digest its weights to compare them
        make = lambda: extract_benchmark(self._network_once(model), benchmark, preprocess, folder, **options)
        return self._once(folder, make)

    def descriptors_with_distractors(self, model: Model, dataset: str) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors of queries (Q, D) and of database and distractors (N, D), the latter memory-mapped.

        The distractors are described once for all datasets and copied behind each database block by block.
        """
        return self._once((model, dataset, "with distractors"), lambda: self._behind(model, dataset))

    def _behind(self, model: Model, dataset: str) -> tuple[np.ndarray, np.ndarray]:
        queries, database = self.descriptors(model, dataset)
        folder = self.cache / "descriptors" / self._folder_name(model)
        preprocess, options = self.preprocess(model)
        root = data_file(self["data.distractors"])
        name = short_digest([preprocess.to_dict(), str(options["dtype"]), self["data.distractors"]])
        names = read_distractors(root)
        net, described = self._network_once(model), folder / f"distractors-{name}"
        behind = extract(net, names, preprocess, described, root=root, **options)
        path = folder / f"{dataset}-and-distractors-{short_digest([name, names, self.benchmark(dataset).database])}.npy"
        return queries, stacked(path, (database, behind))

    def _described(
        self, model: Model, benchmark: Benchmark, folder: Path, split: str, name: str, files, boxes
    ) -> np.ndarray:
        path = folder / f"{name}-{self._drawn_by(split)}.npy"
        if (described := load_sound(path)) is None:
            net = self._network_once(model)
            maps = self._maps(net, benchmark.root, files, self._preprocess(model.image_size), boxes)
            described = describe_cached(model.variant, net, maps)
            save_sound(path, described)
        return described

    def _network_once(self, model: Model) -> RetrievalNet:
        """`network`, remembering the last one: the parts of a benchmark are described one after another."""
        if self._last[0] != model:
            self._last = (model, self.network(model))
        return self._last[1]
