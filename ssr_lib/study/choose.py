"""What the notebooks measure: each function takes an open `Study`, adds rows to its results and returns them as a table.

Descriptors come from the study, rankings from `search` and `rerank`, figures from `metrics`, intervals from
`significance`. A choice (k, α, exponent, β, a learning rate, a fusion weight) is made on the validation benchmark only, and
every trial of it is a row.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd

from ssr_lib import metrics, significance
from ssr_lib.benchmark import Benchmark
from ssr_lib.files import read_json, write_atomic
from ssr_lib.rerank import (
    alpha_query_expansion,
    augment_database,
    average_query_expansion,
    database_augmentation,
    global_rerank,
    superglobal_rerank,
)
from ssr_lib.rerank.global_rerank import refines_whole_database
from ssr_lib.search import knn, rank
from ssr_lib.study.artefacts import Study
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.variants import Model

AT_ONCE = 10  # neighbours looked for at least, so that most tables of a network ask once
_KNOWN: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = OrderedDict()

DIFFICULTIES = ("easy", "medium", "hard")
METHODS = ("none", "aqe", "alpha_qe", "dba", "alpha_qe_dba", "superglobal", "ours")
NAMES = {
    "none": "none",
    "aqe": "AQE",
    "alpha_qe": "αQE",
    "dba": "DBA",
    "alpha_qe_dba": "αQE + DBA",
    "superglobal": "SuperGlobal",
    "local": "SIFT + RANSAC",
    "local_small": "SIFT + RANSAC, pictures as small as the networks'",
    "ours": "ours",
}


def variants_of(study: Study, regime: str | None = None) -> list[str]:
    """The variants that are compared in a training regime; None: the main one."""
    return study["comparison.reskinned_variants" if regime == "reskinned" else "comparison.variants"]


def apply_reranking(method: str, queries: np.ndarray, database: np.ndarray, parameters: dict) -> tuple:
    """Rankings (Q, N) by one method of the tables, and the descriptors (Q, D), (N, D) behind them (None: not by descriptors)."""
    p = dict(parameters)
    if method == "ours":
        k, alpha = p.pop("k"), p.pop("alpha")
        if refines_whole_database(**p) and k < len(database):
            how = {name: p[name] for name in ("weighting", "power", "reduce", "rounds") if name in p}
            p["augmented"] = augment_database(database, k, alpha, neighbours=known_neighbours(database, k), **how)
        result = global_rerank(queries, database, k, alpha, **p)
        return result.ranks, result.queries, result.database
    if method == "superglobal":
        result = superglobal_rerank(
            queries, database, shortlist=min(p["shortlist"], len(database)), k=p["k"], beta=p["beta"]
        )
        return result.ranks, None, None
    if method in ("dba", "alpha_qe_dba"):
        near = known_neighbours(database, p["k"])
        database = database_augmentation(database, p["k"], p["exponent"], neighbours=near)
    if method == "aqe":
        queries = average_query_expansion(queries, database, p["k"])
    elif method in ("alpha_qe", "alpha_qe_dba"):
        queries = alpha_query_expansion(queries, database, p["k"], p["exponent"])
    elif method not in ("none", "dba"):
        raise ValueError(f"no re-ranking {method!r}; there are {', '.join(METHODS)}")
    return rank(queries, database), queries, database


def known_neighbours(database: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids (N, k or more) of the images nearest to each of a database, remembered: sweeps ask again and again."""
    key = (database.shape, zlib.crc32(database))
    if key not in _KNOWN or _KNOWN[key][0].shape[1] < k:
        width = min(max(k, AT_ONCE), len(database) - 1)
        _KNOWN[key] = knn(database, database, width, exclude=np.arange(len(database)))
    _KNOWN.move_to_end(key)
    while len(_KNOWN) > 8:
        _KNOWN.popitem(last=False)
    return _KNOWN[key]


def row_key(
    model: Model, experiment: str, benchmark_at: dict, method: str = "none", parameters: dict | None = None, **extra
) -> dict:
    """The key columns of a figure of `model`, re-ranked by `method` with `parameters`."""
    parameters = dict(parameters or {})
    return {
        "experiment": experiment,
        **benchmark_at,
        "backbone": model.backbone,
        "variant": model.variant,
        "seed": model.seed,
        "rerank": method,
        "k": parameters.pop("k", None),
        "alpha": parameters.pop("alpha", None),
        "params": model.params() | parameters | extra,
    }


def resampling(study: Study) -> dict[str, int]:
    """The arguments of every interval and test of a study: `n_resamples` and `seed`."""
    return {"n_resamples": study["statistics.resamples"], "seed": study["statistics.seed"]}


def with_positives(ap: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The difficulties at which any query has positives: labelled photographs know one only."""
    return {difficulty: values for difficulty, values in ap.items() if not np.isnan(values).all()}


def add_mean(study: Study, key: dict, metric: str, difficulty: str, values: np.ndarray, groups: list[str]) -> float:
    """Add the mean of `values` (S, Q), over seeds and queries, with its interval over groups × seeds; returns the mean."""
    interval = significance.mean_interval(values, groups, **resampling(study))
    study.results.add(
        **key,
        metric=metric,
        difficulty=difficulty,
        value=interval.estimate,
        ci_low=interval.ci_low,
        ci_high=interval.ci_high,
        n_queries=int(np.isfinite(values).any(axis=0).sum()),
        n_groups=interval.n_groups,
    )
    return interval.estimate


def measure(
    study: Study,
    models: list[Model],
    experiment: str,
    *,
    method: str = "none",
    parameters: dict | None = None,
    dataset: str = "synthetic",
    split: str = "test",
    subset: str = "all",
    cut: int | None = None,
    statistics: Mapping[str, Callable[[np.ndarray, Benchmark], np.ndarray]] | None = None,
    **extra,
) -> dict[str, np.ndarray]:
    """Rows of mAP and mP@k for each model (the seeds of one variant) and, for several, their mean; returns AP (S, Q) by difficulty.

    `cut` keeps only the first so many database images (for sweeps over distractors, which stand last). `statistics`:
    further values a query (Q,) of the rankings by name, kept and returned like AP, their mean as a row.
    """
    benchmark = study.benchmark(dataset, split, subset)
    at = {"dataset": dataset, "split": split, "subset": subset}
    if dataset != "synthetic" and study["extraction.size"]:
        # pixels of the longest side; a model's image_size is what it was trained at
        extra["described_at"] = study["extraction.size"]
    benchmark = benchmark if cut is None else benchmark.first_images(cut)
    evaluations, further = [], {name: [] for name in statistics or {}}
    for model in models:
        queries, database = study.descriptors(model, dataset, split, subset)
        ranks = apply_reranking(method, queries, database[:cut], parameters or {})[0]
        evaluations.append(metrics.evaluate(ranks, benchmark))
        key = row_key(model, experiment, at, method, parameters, **extra)
        for difficulty, ap in with_positives(evaluations[-1].ap).items():
            add_mean(study, key, "mAP", difficulty, ap[None], benchmark.groups)
            for place, value in zip((1, 5, 10), evaluations[-1].mp[difficulty], strict=True):
                study.results.add(
                    **key,
                    metric=f"mP@{place}",
                    difficulty=difficulty,
                    value=float(value),
                    n_queries=int(np.isfinite(ap).sum()),
                )
            if split == "test" and experiment != "sweep":
                study.results.add_per_query(**key, difficulty=difficulty, ap=ap, groups=benchmark.groups)
        for name, found in further.items():
            found.append(statistics[name](ranks, benchmark))
            add_mean(study, key, name, "medium", found[-1][None], benchmark.groups)
            study.results.add_per_query(**key, difficulty=name, ap=found[-1], groups=benchmark.groups)
    ap = {difficulty: np.stack([e.ap[difficulty] for e in evaluations]) for difficulty in DIFFICULTIES}
    if len(models) > 1:
        key = over_seeds(row_key(models[0], experiment, at, method, parameters, **extra), len(models))
        for difficulty, values in with_positives(ap).items():
            add_mean(study, key, "mAP", difficulty, values, benchmark.groups)
    return ap | {name: np.stack(values) for name, values in further.items()}


def over_seeds(key: dict, seeds: int) -> dict:
    """The key of a figure over several trainings."""
    return key | {"seed": None, "params": key["params"] | {"seeds": seeds}}


# ---- choices, on validation


def grid(candidates: dict[str, list]) -> list[dict]:
    """Every combination of the candidate values, the last name varying fastest."""
    return [dict(zip(candidates, values, strict=True)) for values in itertools.product(*candidates.values())]


def with_shortlist(study: Study, method: str, parameters: dict) -> dict:
    return parameters | ({"shortlist": study["rerank.shortlist"]} if method == "superglobal" else {})


def choose(study: Study, method: str, datasets: tuple[str, ...] = ("synthetic",), split: str = "validation") -> dict:
    """The parameters of `method` with the best mean Medium mAP of one network of each compared variant on `datasets`.

    The first of equals is taken. Every trial becomes a row of experiment "rerank" with variant "all".
    """
    models = [study.model(variant, study["comparison.seeds"][0]) for variant in study["comparison.variants"]]
    best, chosen = -1.0, {}
    for parameters in grid(study["rerank.candidates"][method]):
        parameters = with_shortlist(study, method, parameters)
        values = []
        for dataset, model in itertools.product(datasets, models):
            queries, database = study.descriptors(model, dataset, split)
            if parameters["k"] < len(database):
                ranks = apply_reranking(method, queries, database, parameters)[0]
                values.append(metrics.evaluate(ranks, study.benchmark(dataset, split)).map["medium"])
        if not values:
            continue
        key = row_key(models[0], "rerank", {"dataset": "+".join(datasets), "split": split}, method, parameters)
        params = {k: v for k, v in parameters.items() if k not in ("k", "alpha")} | {"seeds": len(values)}
        key |= {"variant": "all", "seed": None, "params": params}
        study.results.add(**key, metric="mAP", difficulty="medium", value=float(np.mean(values)))
        if np.mean(values) > best:
            best, chosen = float(np.mean(values)), parameters
    if not chosen:
        raise ValueError(f"every k to be tried for {method} is as large as the database of {', '.join(datasets)}")
    return chosen


def choices(study: Study, dataset: str = "synthetic") -> dict[str, dict]:
    """The re-ranking parameters of every method for `dataset`, never chosen on its own queries.

    `choices_from` of the profile: "validation" landmarks; "others", the profile's other datasets; or the name of another
    profile, which chose on its validation landmarks. Chosen once, then read from `choices.json` of the results.
    """
    source = study["data.choices_from"]
    if source in ("validation", "others"):
        on = ("synthetic",) if source == "validation" else tuple(d for d in study["data.datasets"] if d != dataset)
        if not on:
            raise ValueError(f"choices_from: others wants a second dataset beside {dataset!r} in data.datasets")
        chosen = _chosen_once(study, on, "validation" if source == "validation" else "test")
    else:
        path = repository_root() / "results" / source / "choices.json"
        if not path.is_file():
            raise ValueError(
                f"the profile takes its choices from {source!r}, but {path} is not there; run `make study PROFILE={source}`"
            )
        stored = read_json(path)
        if stored is None or "synthetic" not in stored:
            raise ValueError(
                f"{path} is damaged, or holds no choice on drawn landmarks; run `make study PROFILE={source}`"
            )
        chosen = stored["synthetic"]["chosen"]
    fixed = study["rerank.fixed"]
    return {method: chosen.get(method, {}) | fixed.get(method, {}) for method in {**chosen, **fixed}} | {"none": {}}


def _chosen_once(study: Study, on: tuple[str, ...], split: str) -> dict[str, dict]:
    """The choice on the datasets `on` from `choices.json`, or made now where it is not there or other things were tried."""
    path, name, candidates = study.results_dir / "choices.json", "+".join(on), study["rerank.candidates"]
    stored = read_json(path) or {}
    networks = [asdict(study.model(variant, study["comparison.seeds"][0])) for variant in study["comparison.variants"]]
    tried = {"candidates": candidates, "shortlist": study["rerank.shortlist"], "networks": networks}
    tried |= {key: study[key] for key in ("data.training", "data.validation", "training.start", "training.batch_size")}
    before = stored.get(name, {}).get("tried") or {"": "nothing"}
    if any(tried.get(key) != value for key, value in before.items()):  # older records say less
        chosen = {method: choose(study, method, on, split) for method in candidates}
        study.results.save()
        stored[name] = {"tried": tried, "chosen": chosen}
        write_atomic(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    return stored[name]["chosen"]


def at_the_edge(study: Study, dataset: str = "synthetic") -> list[str]:
    """Which chosen re-ranking parameters are the smallest or the largest of those tried: beyond them may be better ones."""
    chosen = choices(study, dataset)
    return [
        f"{NAMES[method]} {name} {chosen[method][name]:g}"
        for method, tried in study["rerank.candidates"].items()
        for name, values in tried.items()
        if len(values) > 1 and chosen[method][name] in (min(values), max(values))
    ]


def learning_rate_trials(study: Study) -> pd.DataFrame:
    """Every learning rate to be tried, for every compared variant, one training each, on validation: Medium mAP in percent."""
    cells = {
        rate: {v: trial(study, v, learning_rate=rate) for v in study["comparison.variants"]}
        for rate in study["training.trials.learning_rates"]
    }
    study.results.save()
    return pd.DataFrame(cells).rename_axis(index="variant", columns="learning rate")


def reskinned_steps_trials(study: Study) -> pd.DataFrame:
    """Every number of steps to be tried on re-skinned views, for every variant compared there, one training each.

    A row has the loss, mean over the last tenth of the steps, and Medium mAP in percent on validation. Beside them the
    loss on ordinary views, which is what the re-skinned ones should come down to.
    """
    tried, rows = study["training.trials"].get("reskinned_steps", []), []
    for change in [{"regime": "reskinned", "steps": steps} for steps in tried] + ([{}] if tried else []):
        for variant in variants_of(study, "reskinned"):
            model = study.model(variant, **change)
            row = {"views": model.regime, "steps": model.steps, "variant": variant, "loss": final_loss(study, model)}
            rows.append(row | {"Medium": trial(study, variant, **change)})
    study.results.save()
    return pd.DataFrame(rows)


def final_loss(study: Study, model: Model) -> float:
    """The mean loss over the last tenth of a training's steps."""
    curve = pd.DataFrame(study.learning_curve(model))
    return float(curve.loc[curve["step"] > 0.9 * curve["step"].max(), "loss"].mean())


def change_trials(study: Study) -> pd.DataFrame:
    """Every change to be tried, for the module and its control alike, one training each, on validation: Medium mAP in percent."""
    changes = study["training.trials.changes"]
    cells = {
        variant: {name_of(change): trial(study, variant, **change) for change in ([{}, *changes] if changes else [])}
        for variant in ("neighbour", "self-similarity")
    }
    study.results.save()
    return pd.DataFrame(cells).rename_axis(index="change")


def trial(study: Study, variant: str, **change) -> float:
    """Medium mAP in percent, on validation, of one training of a variant with a change; its rows are kept."""
    ap = measure(study, [study.model(variant, seed=0, **change)], "ablation", split="validation", trial=name_of(change))
    return 100 * float(np.nanmean(ap["medium"]))


def name_of(change: dict, none: str = "as in the main table") -> str:
    """A change of a model in words: "place last"; `none`: what no change is called."""
    return ", ".join(f"{key} {value}" for key, value in change.items()) or none
