"""Descriptors of a study's benchmarks, kept in its cache: of drawn pictures by maps of one size, of photographs one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.revisited import read_distractors
from ssr_lib.extract import describe_maps, extract, extract_benchmark, pick_device
from ssr_lib.files import hash_file, load_part, replacing
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.study import pictures
from ssr_lib.study.profile import data_file
from ssr_lib.study.schema import Profile
from ssr_lib.weights import stored_preprocess

if TYPE_CHECKING:
    from ssr_lib.study.artefacts import Study

STORED = "descriptors.npy"
VERSION = (
    3  # of what networks and training compute: raise it when their numbers change, so that old ones are not reused
)


def weights(profile: Profile, name: str, seed: int | None) -> Path:
    """The file of a network's checkpoint."""
    return data_file(f"{profile.spec(name).checkpoint.replace('{seed}', str(seed))}.safetensors")


def record_of(profile: Profile, name: str, seed: int | None) -> dict[str, Any]:
    """All that makes a network, trained or not; its digest names folders."""
    spec, recipe = profile.spec(name), profile.training
    if spec.checkpoint:
        return {"checkpoint": hash_file(weights(profile, name, seed))}
    made_by = {"network": spec.model_dump(exclude={"seeds"}), "seed": seed, "version": VERSION}
    made_by |= {"head": hash_file(load_part(spec.head, "heads").__file__)}
    made_by |= {"descriptor_dim": profile.model.descriptor_dim}
    if spec.trained:
        made_by |= {"training": recipe.model_dump(exclude={"seeds", "steps", "rate"})}
        made_by |= {"loss": hash_file(load_part(recipe.loss, "losses").__file__)}
        made_by |= {"views": pictures.record_of(profile.data, "training", spec.views)}
    return made_by


def drawn(
    study: Study, name: str, seed: int | None, split: str, form: str, benchmark: Benchmark
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of the queries (Q, D) and the database (N, D) of a drawn benchmark, from the cache or made now."""
    parts = {form: (benchmark.queries, benchmark.boxes), "database": (benchmark.database, None)}
    described = []
    for part, (files, boxes) in parts.items():
        made_by = pictures.record_of(study.profile.data, split) | {"part": part}
        path = (
            study.store("descriptors", {"network": record_of(study.profile, name, seed), "pictures": made_by}) / STORED
        )
        if not path.is_file():
            net = study.network(name, seed)
            maps = study.maps(net, study.spec(name), made_by, benchmark.root, files, boxes)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, describe_maps(net, maps))
        described.append(np.load(path))
    return described[0], described[1]


def preparation(study: Study, name: str, seed: int | None, **changes: Any) -> tuple[Preprocess, dict[str, Any]]:
    """How photographs are prepared for a network, and the options of `extract`; `changes` to either.

    A checkpoint's own preparation, where the profile names no preset; "lite" for the packaged backbones.
    """
    wanted, preprocess = study.profile.extraction, PRESETS["lite"]
    if wanted.preset:
        preprocess = PRESETS[wanted.preset]
    elif study.spec(name).checkpoint:
        preprocess = stored_preprocess(weights(study.profile, name, seed))
    if preprocess is None:
        raise ValueError(
            f"{weights(study.profile, name, seed)} does not say how its pictures are prepared; "
            f"set extraction.preset to one of {', '.join(PRESETS)}"
        )
    if wanted.size:
        preprocess = dataclasses.replace(preprocess, size_rule="longest", size=wanted.size)
    options = {key: changes.pop(key, getattr(wanted, key)) for key in ("device", "dtype", "batch_size")}
    options |= {"device": pick_device(options["device"]), "dtype": getattr(torch, options["dtype"])}
    return dataclasses.replace(preprocess, **changes), options | {"progress": study.progress}


def _made_by(
    study: Study, name: str, seed: int | None, preprocess: Preprocess, options: dict, of: Any
) -> dict[str, Any]:
    made_by = {"network": record_of(study.profile, name, seed), "preprocess": preprocess.to_dict(), "pictures": of}
    return made_by | {"dtype": str(options["dtype"])}


def photographs(
    study: Study, name: str, seed: int | None, benchmark: Benchmark, **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of queries (Q, D) and database (N, D), picture by picture; `changes` as in `preparation`."""
    preprocess, options = preparation(study, name, seed, **changes)
    files = [benchmark.name, list(benchmark.database), list(benchmark.queries), list(benchmark.boxes)]
    folder = study.store("descriptors", _made_by(study, name, seed, preprocess, options, files))
    return extract_benchmark(study.network(name, seed), benchmark, preprocess, folder, **options)


def with_distractors(study: Study, name: str, seed: int | None, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of queries (Q, D) and of database and distractors behind it (N, D), the latter memory-mapped.

    The distractors are described once for all datasets and copied behind each database.
    """
    queries, database = study.descriptors(name, seed, dataset)
    preprocess, options = preparation(study, name, seed)
    root = data_file(study.profile.data.distractors)
    made_by = _made_by(study, name, seed, preprocess, options, study.profile.data.distractors)
    folder = study.store("descriptors", made_by)
    behind = extract(study.network(name, seed), read_distractors(root), preprocess, folder, root=root, **options)
    path: Path = study.store("descriptors", made_by | {"behind": dataset}) / STORED
    if not path.is_file():
        shape = (len(database) + len(behind), database.shape[1])
        with replacing(path) as temporary:
            joined = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
            joined[: len(database)] = database
            joined[len(database) :] = behind
            joined.flush()
    return queries, np.load(path, mmap_mode="r")
