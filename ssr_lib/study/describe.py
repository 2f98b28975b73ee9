"""What names the artefacts of a study, and how descriptors of its benchmarks are made from them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drawn_landmarks import VERSION as DRAWING
from drawn_landmarks import SyntheticSpec
from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.folder import list_pictures, read_labels, read_training_labels
from ssr_lib.datasets.revisited import OFFICIAL, read_ground_truth, read_names
from ssr_lib.extract import describe_maps, extract_benchmark, pick_device
from ssr_lib.files import code_of, digest, hash_file, load_part, replacing
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.study.profile import Profile, Section
from ssr_lib.study.provenance import data_file, repository_root
from ssr_lib.weights import stored_preprocess

COMPLETE = {"roxford5k": 4993, "rparis6k": 6322}  # database pictures of the whole benchmarks
CODE = ("heads/*.py", "backbones.py", "network.py", "pooling.py", "self_similarity.py", "train.py", "whitening.py")


def to_draw(data: Section, split: str) -> SyntheticSpec:
    """What is drawn for "training", "validation" or "test"; only the test has styles that training never shows."""
    values = getattr(data, split).model_dump(exclude={"views"} if split == "training" else None)
    return SyntheticSpec(name=split, size=data.drawn_size, held_out_styles=split == "test", **values)


def pictures_record(data: Section, split: str, views: str | None = None) -> dict[str, Any]:
    """All that makes the pictures of a split; `views`: of the training, "photographs" or the kind of drawn ones."""
    if views == "photographs":
        return {"photographs": hash_file(data_file(data.training_labels))}
    record = {"drawn": dataclasses.asdict(to_draw(data, split)), "version": DRAWING}
    return record if views is None else record | {"regime": views, "views": data.training.views}


def weights(profile: Profile, name: str, seed: int | None) -> str:
    """The file of a network's checkpoint below the data folder."""
    return f"{profile.spec(name).checkpoint.replace('{seed}', str(seed))}.safetensors"


def files_named(profile: Profile) -> tuple[list[str], list[str]]:
    """What the profile names below the data folder: what it cannot do without, and what only its own rows need."""
    data = profile.data
    first, *others = [data.labels[name] for name in data.datasets if name in data.labels] or [None]
    needed, further = [first, data.training_labels, data.distractors], [*others, *data.whitening_labels.values()]
    for name in [name for name, line in profile.networks.items() if line.checkpoint is not None]:
        needed += [weights(profile, name, seed) for seed in profile.spec(name).seeds]
    if profile.source != "photographs":  # parameters for one of the benchmarks are chosen on the other
        needed, further = needed + further, []
    return [name for name in needed if name is not None], further


def network_record(profile: Profile, name: str, seed: int | None) -> dict[str, Any]:
    """All that makes a network, trained or not; the code that all have in common is that of the files CODE."""
    spec, files = profile.spec(name), [file for part in CODE for file in sorted(Path(__file__).parents[1].glob(part))]
    record = {"code": digest([*map(hash_file, files)]), "image_size": spec.image_size}
    if spec.checkpoint:
        return record | {"checkpoint": hash_file(data_file(weights(profile, name, seed)))}
    record |= {"network": spec.model_dump(exclude={"seeds"}), "seed": seed, "protocol": profile.training.protocol}
    record |= {"head": code_of(load_part(spec.head, "heads").Head, **spec.options), "dim": profile.model.descriptor_dim}
    if spec.trained:
        record["training"] = profile.training.model_dump(exclude={"seeds", "steps", "rate", "protocol"})
        record["loss"] = code_of(load_part(profile.training.loss, "losses").Loss)
        record["views"] = pictures_record(profile.data, "training", spec.views)
    return record


def read_benchmark(path: Path, dataset: str, images: str, whole: bool = True) -> Benchmark:
    """A labelled folder (.csv) or a benchmark in the revisited form (.pkl); refused with queries in the database.
    `images`: "complete", or "labelled" for the part of ROxford5k or RParis6k that a list of the repository names."""
    if path.suffix == ".pkl":
        official, names = dataset in OFFICIAL, None
        if official and images == "labelled":
            names = read_names(repository_root() / "data" / f"{dataset}_labelled.txt")
        return read_ground_truth(path, path.parent, subset=not official, names=names, whole=whole)
    benchmark = read_labels(path, on_lonely="raise" if whole else "keep", whole=whole)
    if inside := sum(i >= 0 for i in benchmark.query_ids):
        raise ValueError(f"{path}: {inside} queries are database images too; give every file a split, query or db")
    return benchmark


def photograph_files(study, part: str) -> tuple[Path, Sequence[str], Sequence | None]:
    """Folder, files and boxes of photographs: the database of a dataset by its name, or its "<dataset> queries", the
    training photographs "landmarks", those of a line of `whitening_labels`, or "distractors"."""
    data = study.profile.data
    labels = {"landmarks": data.training_labels} | data.whitening_labels
    if part in labels:
        views = read_training_labels(data_file(labels[part]))
        return views.root, views.files, None
    if part == "distractors":
        folder = data_file(data.distractors)
        return folder, list_pictures(folder)[0], None
    benchmark = study.benchmark(part.removesuffix(" queries"))
    if part.endswith(" queries"):
        return benchmark.root, benchmark.queries, benchmark.boxes
    return benchmark.root, benchmark.database, None


def drawn(study, name: str, seed: int | None, split: str, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of the queries (Q, D) and the database (N, D) of a drawn benchmark, from the cache or made now."""
    described = []
    for which, part in enumerate((form, "database")):
        pictures = pictures_record(study.profile.data, split) | {"part": part, "preprocess": PRESETS["lite"].to_dict()}
        record = {"network": network_record(study.profile, name, seed), "pictures": pictures}
        path = study.store("descriptors", record) / "descriptors.npy"
        if not path.is_file():
            maps = study.benchmark_maps(name, seed, split, form)[which]
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, describe_maps(study.network(name, seed), maps))
        described.append(np.load(path))
    return described[0], described[1]


def preparation(study, name: str, seed: int | None, **changes: Any) -> tuple[Preprocess, dict[str, Any]]:
    """How photographs are prepared for a network, and the options of `extract`; `changes` to either."""
    wanted = study.profile.extraction
    preprocess = PRESETS[wanted.preset or "lite"]  # of the packaged backbones
    if study.spec(name).checkpoint and not wanted.preset:
        preprocess = stored_preprocess(data_file(weights(study.profile, name, seed)))
    if preprocess is None:
        raise ValueError(f"the checkpoint of {name} has no preparation; set extraction.preset: {', '.join(PRESETS)}")
    if size := study.profile.networks[name].image_size or wanted.size:
        preprocess = dataclasses.replace(preprocess, size_rule="longest", size=size)
    options = {key: changes.pop(key, getattr(wanted, key)) for key in ("device", "dtype", "batch_size")}
    options |= {"device": pick_device(options["device"]), "dtype": getattr(torch, options["dtype"])}
    return dataclasses.replace(preprocess, **changes), options | {"progress": study.progress}


def photographs(study, name: str, seed: int | None, benchmark: Benchmark, **changes: Any) -> tuple:
    """Descriptors of queries (Q, D) and database (N, D), picture by picture; `changes`: as in `preparation`."""
    preprocess, options = preparation(study, name, seed, **changes)
    record = {"network": network_record(study.profile, name, seed), "preprocess": preprocess.to_dict()}
    record |= {"dtype": str(options["dtype"]), "pictures": [benchmark.database, benchmark.queries, benchmark.boxes]}
    folder = study.store("descriptors", record)
    return extract_benchmark(study.network(name, seed), benchmark, preprocess, folder, **options)
