"""The pictures of a profile: drawn landmarks, labelled photographs, benchmarks in the revisited form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drawn_landmarks import VERSION, SyntheticSpec
from ssr_lib.benchmark import Benchmark, LabelledImages
from ssr_lib.datasets.folder import read_labels, read_training_labels
from ssr_lib.datasets.revisited import OFFICIAL, read_ground_truth
from ssr_lib.files import hash_file
from ssr_lib.study.profile import data_file
from ssr_lib.study.schema import Data


def to_draw(data: Data, split: str) -> SyntheticSpec:
    """What is drawn for "training", "validation" or "test"; only the test has styles that training never shows."""
    values = getattr(data, split).model_dump()
    if split == "training":
        del values["views"]  # of the training, not of a database
    return SyntheticSpec(name=split, size=data.drawn_size, held_out_styles=split == "test", **values)


def record_of(data: Data, split: str, regime: str | None = None) -> dict[str, Any]:
    """All that makes the pictures of a split; `regime`: of training pictures."""
    if regime == "photographs":
        return {"photographs": hash_file(_training_labels(data))}
    record = {"drawn": dataclasses.asdict(to_draw(data, split)), "version": VERSION}
    return record if regime is None else record | {"regime": regime, "views": data.training.views}


def training_photographs(data: Data) -> LabelledImages:
    """The photographs that `data.training_labels` lists."""
    return read_training_labels(_training_labels(data))


def _training_labels(data: Data):
    if data.training_labels is None:
        raise ValueError("data.training_labels is null; wanted the CSV (file,label) of the photographs to train on")
    return data_file(data.training_labels)


def read_benchmark(labels: Mapping[str, str], dataset: str) -> Benchmark:
    """A labelled folder (.csv) or a benchmark in the form of the revisited ones (.pkl).

    Raises `ValueError` for a dataset that `labels` does not name, and where queries are database images too.
    """
    if dataset not in labels:
        raise ValueError(f"no dataset {dataset!r} in data.labels of the profile; it has {', '.join(labels) or 'none'}")
    path = data_file(labels[dataset])
    if path.suffix == ".pkl":
        official = {known.name for known in OFFICIAL}
        benchmark = read_ground_truth(path, path.parent, subset=dataset not in official)
    else:
        benchmark = read_labels(path)
    if inside := sum(i >= 0 for i in benchmark.query_ids):
        raise ValueError(
            f"{path}: {inside} queries are database images too; the study compares queries that stand apart: "
            "give every file a split, query or db"
        )
    return benchmark
