"""The choice of re-ranking parameters: on validation pictures or other data sets, never on what is measured."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.revisited import with_distractors
from ssr_lib.files import digest, hash_file, read_json, write_atomic
from ssr_lib.rerank._galleries import fitted, folds, galleries, ranked, views  # noqa: F401, for notebooks
from ssr_lib.study import rows
from ssr_lib.study.describe import network_record
from ssr_lib.study.provenance import data_file, repository_root


def record(study, dataset: str) -> dict[str, Any]:
    """What was `chosen` for `dataset` ({reranker: parameters}, "none" first) and all `trials`: on validation landmarks,
    on the other data sets of the profile, or by another profile, in this workspace or else in the repository."""
    source = study.profile.data.choices_from
    if source == "validation":
        return _chosen_once(study, ["drawn"], "validation")
    if source == "others":
        others = [name for name in study.profile.data.datasets if name != dataset]
        if not others:
            raise ValueError(f"data.choices_from others wants a second data set beside {dataset!r} in data.datasets")
        return _chosen_once(study, others, "test")
    file = f"results/{source}/choices.json"
    stored = read_json(study.workspace / file) or read_json(repository_root() / file) or {}
    if "drawn" not in stored:
        raise ValueError(f"{study.workspace / file} holds no choice on drawings; run `ssr study --profile {source}`")
    return stored["drawn"]


def _chosen_once(study, datasets: list[str], split: str) -> dict[str, Any]:
    """Chosen on these data sets in this workspace, then read from choices.json of the results."""
    path, name, profile = study.results_dir / "choices.json", "+".join(datasets), study.profile
    networks = [(network, study.seeds(network)[0]) for network in study.networks("main")]
    kept = {"data": {"validation", "images", "drawn_size"}, "rerankers": True, "extraction": True}
    files = [data_file(labels) for known, labels in profile.data.labels.items() if known in datasets]
    files += [metrics.__file__, *sorted(Path(metrics.__file__).parent.glob("rerank/_*.py"))]
    files += [study.reranker(line).__file__ for line in profile.rerankers]
    made_by = [*map(hash_file, files), split, *(network_record(profile, *network) for network in networks)]
    tried = digest([profile.model_dump(include=kept), *made_by])
    stored, here = read_json(path) or {}, study.store("choices", {"on": name, "tried": tried}) / "chosen"
    if stored.get(name, {}).get("tried") != tried or not here.is_file():  # what came with a clone does not count
        asked = []
        for dataset, network in itertools.product(datasets, networks):
            asked.append(ranked(*study.descriptors(*network, dataset, split), study.benchmark(dataset, split)))
        stored[name] = {"tried": tried} | dict(zip(("chosen", "trials"), best_of(study, asked), strict=True))
        write_atomic(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
        here.touch()
    return stored[name]


def best_of(study, asked: list[tuple]) -> tuple[dict[str, dict], list[dict[str, Any]]]:
    """What is best for every re-ranker, {name: parameters}, "none" first, and all trials of those that have several."""
    chosen, trials = {"none": {}}, []
    for line in study.profile.rerankers:
        tried = tried_by(study, line, asked)
        chosen[line] = max(tried, key=lambda trial: trial["mAP"])["parameters"]  # of equals the first
        trials += tried if len(tried) > 1 else []
    return chosen, trials


def tried_by(study, line: str, asked: list[tuple]) -> list[dict[str, Any]]:
    """Every combination of a re-ranker's candidates whose k fits every database, with its mean Medium mAP over them."""
    spec, smallest = study.profile.rerankers[line], min(len(benchmark.database) for *_, benchmark in asked)
    reranker, trials = study.reranker(line), []
    for values in itertools.product(*spec.candidates.values()):
        parameters, found = spec.fixed | dict(zip(spec.candidates, values, strict=True)), []
        for queries, database, first, benchmark in asked if parameters.get("k", 0) < smallest else ():
            ranks = reranker.rerank(queries, database, first, **fitted(parameters, benchmark)).ranks
            found.append(metrics.evaluate(ranks, benchmark).map["medium"])
        if found:
            trials.append({"reranker": line, "parameters": parameters, "mAP": float(np.mean(found))})
    if not trials:
        raise ValueError(f"every k of rerankers.{line}.candidates is above the smallest database, {smallest} images")
    return trials


def rerank_sizes(study, x: dict, benchmark: Benchmark, settings: dict, learned=None, **key) -> pd.DataFrame:
    """`rows.per_query` of every re-ranker and its `settings`: AP by size, its mean over sizes, AP of mean descriptors.
    `x`: by size descriptors of queries (Q, D), database (N, D) and any distractors; `learned`: what else was chosen."""
    further = sum(map(len, next(iter(x.values()))[1:])) - len(benchmark.database)
    whole = with_distractors(benchmark, [f"distractor {i}" for i in range(further)], benchmark.root)
    ap, frames = {name: {} for name in settings}, []
    for size, (queries, *database) in (x | {"mean": [sum(parts) for parts in zip(*x.values(), strict=True)]}).items():
        found = ranked(queries, np.concatenate(database), whole)
        for name, parameters in settings.items():
            ranks = study.reranker(name).rerank(*found[:3], **fitted(parameters, whole)).ranks
            ap[name][f"AP, {size}"] = metrics.evaluate(ranks, whole).ap
    for name, found in ap.items():
        sizes = [found[f"AP, {size}"] for size in x]
        found["AP"] = {level: np.mean([values[level] for values in sizes], axis=0) for level in sizes[0]}
        said = {"reranker": name, "chosen": (learned or {}) | settings[name]} | key
        frames += [rows.per_query(values, benchmark, measure=measure, **said) for measure, values in found.items()]
    return pd.concat(frames)
