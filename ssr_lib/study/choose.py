"""The choice of re-ranking parameters: on validation pictures or other data sets, never on the queries that are measured."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ssr_lib import metrics, search
from ssr_lib.files import digest, load_part, read_json, write_atomic
from ssr_lib.rerank import first_ranking
from ssr_lib.study.describe import network_record
from ssr_lib.study.provenance import repository_root

if TYPE_CHECKING:
    from ssr_lib.study.artefacts import Study


def grid(candidates: dict[str, list]) -> list[dict[str, Any]]:
    """Every combination of the candidate values, the last name varying fastest."""
    return [dict(zip(candidates, values, strict=True)) for values in itertools.product(*candidates.values())]


def record(study: Study, dataset: str) -> dict[str, Any]:
    """What was `chosen` for `dataset` ({reranker: parameters}, "none" first) and every one of its `trials`.

    `data.choices_from` of the profile: "validation" landmarks; "others", the profile's other data sets; or another
    profile, as it chose on its validation landmarks. Chosen once, then read from choices.json of the results.
    """
    source = study.profile.data.choices_from
    if source == "validation":
        return _chosen_once(study, ["drawn"], "validation")
    if source == "others":
        others = [name for name in study.profile.data.datasets if name != dataset]
        if not others:
            raise ValueError(f"data.choices_from others wants a second data set beside {dataset!r} in data.datasets")
        return _chosen_once(study, others, "test")
    path = repository_root() / "results" / source / "choices.json"
    stored = read_json(path) or {}
    if "drawn" not in stored:
        raise ValueError(f"{path} holds no choice on drawn landmarks; run `make study PROFILE={source}` first")
    return stored["drawn"]


def _chosen_once(study: Study, datasets: list[str], split: str) -> dict[str, Any]:
    path, name, profile = study.results_dir / "choices.json", "+".join(datasets), study.profile
    networks = [(network, study.seeds(network)[0]) for network in study.networks("main")]
    rerankers = {line: profile.rerankers[line].model_dump() for line in profile.rerankers}
    made_by = [
        rerankers,
        [network_record(profile, *network) for network in networks],
        profile.data.validation.model_dump(),
    ]
    tried = digest([made_by, profile.extraction.model_dump(), datasets, split])
    stored = read_json(path) or {}
    if stored.get(name, {}).get("tried") != tried:
        asked = []
        for dataset, network in itertools.product(datasets, networks):
            queries, database = study.descriptors(*network, dataset, split)
            asked.append((queries, search.prepare(database), study.benchmark(dataset, split)))
        chosen, trials = {}, []
        for line in profile.rerankers:
            chosen[line], found = _choose(study, line, asked)
            trials += found
        stored[name] = {"tried": tried, "chosen": {"none": {}, **chosen}, "trials": trials}
        write_atomic(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    return stored[name]


def _choose(study: Study, line: str, asked: list[tuple]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The parameters of a re-ranker with the best mean Medium mAP, of equals the first, and a line for every trial.

    A candidate whose k does not fit every database is left out, so that all are averaged over the same data sets.
    """
    reranker, spec = load_part(study.profile.rerankers[line].module, "rerank"), study.profile.rerankers[line]
    smallest = min(len(benchmark.database) for _, _, benchmark in asked)
    tried = [parameters for parameters in grid(spec.candidates) if parameters.get("k", 0) < smallest]
    if not tried:
        raise ValueError(
            f"every k of rerankers.{line}.candidates is as large as the smallest database, {smallest} images"
        )
    if tried == [{}]:
        return dict(spec.fixed), []
    trials = []
    for parameters in tried:
        values = []
        for queries, database, benchmark in asked:
            first = first_ranking(queries, database)
            result = reranker.rerank(queries, database, first, **spec.fixed, **parameters)
            values.append(metrics.evaluate(result.ranks, benchmark).map["medium"])
        trials.append({"reranker": line, "parameters": spec.fixed | parameters, "mAP": float(np.mean(values))})
    best = max(trials, key=lambda trial: trial["mAP"])
    return best["parameters"], trials
