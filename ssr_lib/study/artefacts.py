"""A profile opened: its folders, and every artefact of the study, made on first use and then found again in
`data/cache/<kind>/<digest>` of the record of all that made it: profiles share what is equal and mix nothing else."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from drawn_landmarks import draw_benchmark, draw_training
from ssr_lib.benchmark import Benchmark, LabelledImages
from ssr_lib.datasets.folder import read_training_labels
from ssr_lib.extract import Maps, compute_maps
from ssr_lib.files import digest, load_part, write_atomic
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.study import choose, describe, rows
from ssr_lib.study.profile import check_parts, line_of, load_profile
from ssr_lib.study.provenance import data_file, repository_root
from ssr_lib.train import TrainConfig, train_head
from ssr_lib.weights import load_checkpoint


class Study:
    """Profile `profile`, with results in `<workspace>/results/<profile>` and artefacts in `<workspace>/data/cache`.

    `workspace` None is the repository, or the current folder without one. `changes`: dotted keys of the profile and
    their values, or their JSON text; where they change anything, results go to `results/custom-<digest>`. `notebook`:
    whose rows `write_rows` writes. Raises `ValueError` for every key, value and part that is refused."""

    def __init__(self, profile="demo", workspace=None, changes=None, notebook=None, progress: bool = True):
        self.profile, self.source = load_profile(profile, changes), profile
        check_parts(self.profile)
        values, self.name = self.profile.model_dump(), Path(profile).stem
        shipped = (repository_root() / "profiles" / f"{self.name}.yaml").is_file()  # whose results are committed
        if values != load_profile(self.name if shipped else profile).model_dump():
            self.name = f"custom-{digest([profile, values])[:12]}"
        self.workspace = Path(workspace or repository_root())
        self.results_dir, self.cache = self.workspace / "results" / self.name, self.workspace / "data" / "cache"
        self.notebook, self.progress = notebook, progress and "TQDM_DISABLE" not in os.environ
        self.written: set[str] = set()  # tables and figures of this notebook
        self.drawn = self.profile.source == "drawn"  # with forms and structure that photographs have not
        self.spec = self.profile.spec  # of a network by its name
        self._made = {}
        self._trained = functools.lru_cache(maxsize=1)(self._train)  # descriptors of one are asked for together

    write_rows, read_rows, read_scores = rows.write, rows.read_rows, rows.read_scores

    def store(self, kind: str, record: Mapping[str, Any]) -> Path:
        """The folder of the artefact that `record` describes, made where missing; the record lies beside it as JSON."""
        folder = self.cache / kind / digest(record)[:12]
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.with_suffix(".json").is_file():
            write_atomic(folder.with_suffix(".json"), json.dumps(record, indent=1, default=str) + "\n")
        return folder

    def _once(self, name: object, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if name not in self._made:
            self._made[name] = make(*arguments, **options)
        return self._made[name]

    def training_views(self, regime: str = "ordinary") -> LabelledImages:
        """The training pictures: drawn "ordinary" or "restyled" ones, or the "photographs" of the profile."""
        data = self.profile.data
        if regime == "photographs":
            return self._once(("views", regime), read_training_labels, data_file(data.training_labels))
        how = {"views": data.training.views, "regime": regime, "progress": self.progress}
        folder = self.store("pictures", describe.pictures_record(data, "training", regime))
        return self._once(("views", regime), draw_training, describe.to_draw(data, "training"), folder, **how)

    def benchmark(self, dataset="drawn", split="test", form="ordinary", whole=True) -> Benchmark:
        """The benchmark `dataset`; `split`, `form` of queries: of the drawn one; not `whole`: without what is gone."""
        data = self.profile.data
        if dataset == "drawn":
            asked = describe.to_draw(data, split), self.store("pictures", describe.pictures_record(data, split))
            return self._once(("drawn", split), draw_benchmark, *asked, progress=self.progress)[form]
        labels = data_file(line_of(data.labels, dataset, "data.labels"))
        return self._once(("labelled", dataset), describe.read_benchmark, labels, dataset, data.images, whole)

    def caption(self, dataset: str) -> str:
        """What tables and figures of a dataset say of its pictures: all of them, or the labelled subset of so many."""
        if dataset not in describe.COMPLETE or self.profile.data.images == "complete":
            return dataset
        return f"{dataset}, labelled subset ({len(self.benchmark(dataset).database)} of {describe.COMPLETE[dataset]:,})"

    def networks(self, table: str) -> list[str]:
        """The names of the networks of a table of the profile."""
        return list(line_of(self.profile.tables, table, "tables"))

    def seeds(self, name: str) -> list[int | None]:
        """The seeds of a network's trainings; [None] for what is not trained here."""
        return list(self.spec(name).seeds)

    def network(self, name: str, seed: int | None = None) -> RetrievalNet:
        """A network in eval mode: trained now if it was not before."""
        return self._trained(name, seed)[0]

    def learning_curve(self, name: str, seed: int | None = None) -> pd.DataFrame:
        """A training's curve: step, loss, accuracy, lr, seconds; empty for what is not trained here."""
        return pd.DataFrame(self._trained(name, seed)[1], columns=["step", "loss", "accuracy", "lr", "seconds"])

    def _train(self, name: str, seed: int | None) -> tuple[RetrievalNet, list[dict]]:
        spec, recipe = self.spec(name), self.profile.training
        if seed not in spec.seeds:
            raise ValueError(f"network {name!r} has no training {seed}; its seeds are {spec.seeds}")
        if spec.checkpoint:
            return load_checkpoint(data_file(describe.weights(self.profile, name, seed))).eval(), []
        dim = self.profile.model.descriptor_dim if spec.whitening else None
        how = {"descriptor_dim": dim, "protocol": recipe.protocol, "seed": 1000 * spec.initialisation + (seed or 0)}
        net = RetrievalNet(spec.backbone, spec.head, spec.options, **how)
        if not spec.trained:
            return net.eval(), []
        views, config = self.training_views(spec.views), self.recipe(name, seed)
        record = describe.network_record(self.profile, name, seed)
        folder = self.store("networks", record | {"recipe": dataclasses.asdict(config), "net": net.config})
        maps = self.maps(net, spec.image_size, record["views"], views.root, views.files)
        shown = self.share(views.labels, seed)
        labels = np.asarray(views.labels)[shown]
        curve = train_head(net, maps.take(shown), labels, config, directory=folder, progress=self.progress)
        return net.eval(), curve

    def recipe(self, name: str, seed: int) -> TrainConfig:
        """How a network is trained; `seed` orders the batches."""
        spec, recipe = self.spec(name), self.profile.training
        shared = recipe.model_dump(exclude={"protocol", "seeds", "share", "steps", "rate", "tail_rate"})
        return TrainConfig(steps=spec.steps, seed=seed, lr_tail=recipe.tail_rate, lr_new=spec.rate, **shared)

    def share(self, labels: Sequence, seed: int) -> np.ndarray:
        """The pictures (ids) of the landmarks on which trainings with this seed learn, the same for every network."""
        rng, landmarks = np.random.default_rng([seed, 2]), np.unique(labels)
        count = max(2, round(self.profile.training.share * len(landmarks)))
        return np.flatnonzero(np.isin(labels, rng.choice(landmarks, count, replace=False)))

    def maps(self, net: RetrievalNet, size: int, pictures: dict, root: Path, files, boxes=None, **changes) -> Maps:
        """Maps of the frozen part, of pictures squeezed to squares of `size` pixels unless `changes` tell else."""
        preprocess = dataclasses.replace(PRESETS["lite"], size=size, **{"size_rule": "fixed"} | changes)
        record = {"backbone": net.config["backbone"], "preprocess": preprocess.to_dict(), "pictures": pictures}
        record |= {"protocol": net.config["protocol"], "mid": getattr(net.head, "uses_mid", False)}
        frozen = net.backbone.mid if net.end_to_end else net.backbone
        record |= {"relup": net.config["relup"], "weights": weights_digest(frozen)}
        where = {"directory": self.store("maps", record), "root": root, "boxes": boxes, "progress": self.progress}
        return self._once(digest(record), compute_maps, net, files, preprocess, **where)

    def photograph_maps(self, net: RetrievalNet, part: str, size: int, reduce=None, reduce_box="absolute") -> Maps:
        """Maps of the `describe.photograph_files` of `part`, pictures and crops at exactly the long side `size`."""
        root, files, boxes = self._once(("files", part), describe.photograph_files, self, part)
        pictures = {"photographs": part, "files": digest([list(map(str, files)), boxes])}
        changes = {"size_rule": "longest", "enlarge": True, "reduce": reduce, "reduce_box": reduce_box}
        return self.maps(net, size, pictures, root, files, boxes, **changes)

    def benchmark_maps(self, name: str, seed=None, split="test", form="ordinary") -> tuple[Maps, Maps]:
        """Maps of the queries and of the database of the drawn benchmark, as the network `name` sees them."""
        benchmark, net, both = self.benchmark("drawn", split, form), self.network(name, seed), []
        weights = describe.network_record(self.profile, name, seed) if self.spec(name).checkpoint else {}
        for part, files, boxes in ((form, benchmark.queries, benchmark.boxes), ("database", benchmark.database, None)):
            pictures = describe.pictures_record(self.profile.data, split) | {"part": part} | weights
            both.append(self.maps(net, self.spec(name).image_size, pictures, benchmark.root, files, boxes))
        return both[0], both[1]

    def descriptors(self, name: str, seed=None, dataset="drawn", split="test", form="ordinary") -> tuple:
        """Descriptors of queries (Q, D) and database (N, D) of a benchmark, float32, from the cache or made now."""
        if dataset == "drawn":
            return self._once((name, seed, split, form), describe.drawn, self, name, seed, split, form)
        return self._once((name, seed, dataset), describe.photographs, self, name, seed, self.benchmark(dataset))

    def reranker(self, name: str) -> ModuleType:
        """The module of a line of the profile's rerankers."""
        return load_part(line_of(self.profile.rerankers, name, "rerankers").module, "rerank")

    def choices(self, dataset: str = "drawn") -> dict[str, dict[str, Any]]:
        """The parameters of every re-ranker for `dataset`, "none" first, never chosen on its own queries."""
        chosen = self._once(("choices", dataset), choose.record, self, dataset)["chosen"]
        return {name: choose.fitted(parameters, self.benchmark(dataset)) for name, parameters in chosen.items()}

    def figure(self, name: str, dataset: str = "drawn") -> Path:
        """Where the figure `name` (with its extension) of a dataset is written."""
        return self._file("figures", name, dataset)

    def write_table(self, name: str, frame: pd.DataFrame, dataset: str = "drawn") -> None:
        """Write a table without its index to `tables/<name>.csv`; off the drawn dataset to `<name>_<dataset>.csv`."""
        text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomic(self._file("tables", f"{name}.csv", dataset), text)

    def _file(self, kind: str, name: str, dataset: str) -> Path:
        name = name if dataset == "drawn" else Path(name).with_stem(f"{Path(name).stem}_{dataset}")
        path = self.results_dir / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)  # for writers that make none, as OpenCV's
        self.written.add(f"{kind}/{path.stem}")
        return path
