"""The choice of re-ranking parameters: on validation pictures or other data sets, never on what is measured."""

import itertools
import json
from typing import Any

import numpy as np

from ssr_lib import metrics, search
from ssr_lib.benchmark import Benchmark
from ssr_lib.files import digest, hash_file, read_json, write_atomic
from ssr_lib.rerank import first_ranking
from ssr_lib.study.describe import network_record
from ssr_lib.study.provenance import data_file, repository_root


def record(study, dataset: str) -> dict[str, Any]:
    """What was `chosen` for `dataset` ({reranker: parameters}, "none" first) and every one of its `trials`.

    `data.choices_from` of the profile: "validation" landmarks; "others", the profile's other data sets; or another
    profile, as it chose on its validation landmarks in this workspace, or else in the repository. Chosen once, then
    read from choices.json of the results.
    """
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
        command = f"ssr study --profile {source}"
        raise ValueError(f"{study.workspace / file} holds no choice on drawn landmarks; run `{command}` first")
    return stored["drawn"]


def _chosen_once(study, datasets: list[str], split: str) -> dict[str, Any]:
    path, name, profile = study.results_dir / "choices.json", "+".join(datasets), study.profile
    networks = [(network, study.seeds(network)[0]) for network in study.networks("main")]
    said = profile.model_dump(include={"data": {"validation"}, "rerankers": True, "extraction": True})
    labels = [hash_file(data_file(labels)) for known, labels in profile.data.labels.items() if known in datasets]
    tried = digest([said, labels, split, *(network_record(profile, *network) for network in networks)])
    stored = read_json(path) or {}
    if stored.get(name, {}).get("tried") != tried:
        asked = []
        for dataset, network in itertools.product(datasets, networks):
            queries, database = study.descriptors(*network, dataset, split)
            database = search.prepare(database)
            first = first_ranking(queries, database)
            asked.append((queries, database, first, study.benchmark(dataset, split)))
        stored[name] = {"tried": tried, "chosen": {"none": {}}, "trials": []}
        for line in profile.rerankers:
            trials = _tried(study, line, asked)
            best = max(trials, key=lambda trial: trial["mAP"])  # of equals the first
            stored[name]["chosen"][line] = best["parameters"]
            stored[name]["trials"] += trials if len(trials) > 1 else []
        write_atomic(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    return stored[name]


def _tried(study, line: str, asked: list[tuple]) -> list[dict[str, Any]]:
    """Every combination of a re-ranker's candidates with its mean Medium mAP, over the same data sets for all.

    One whose k does not fit every database is left out.
    """
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


def fitted(parameters: dict[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    """The parameters with a shortlist of no more images than the database has."""
    if parameters.get("shortlist") is None:
        return parameters
    return parameters | {"shortlist": min(parameters["shortlist"], len(benchmark.database))}
