"""The tables of the study over variants, backbones and re-rankers, one function each, built from `experiments.measure` and written as rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import (
    NAMES,
    add_mean,
    apply_reranking,
    choices,
    measure,
    name_of,
    over_seeds,
    row_key,
    variants_of,
    with_positives,
)
from ssr_lib.study.claims import Cell, values
from ssr_lib.study.variants import TRAINING_FREE, Model

COMPONENT_METHODS = ("none", "ours", "alpha_qe_dba")


def percent(ap: np.ndarray) -> str:
    """The mean of `ap` in percent and, over several seeds (rows), the standard deviation of their means."""
    means = 100 * np.nanmean(ap, axis=1)
    return f"{means.mean():.1f}" + (f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else "")


def seeds_of(study: Study, variant: str, regime: str | None = None, **changes) -> list[Model]:
    """The trainings of a variant in the main comparison; `regime` None: the main one. One network where nothing is trained."""
    if variant in TRAINING_FREE:
        return [study.model(variant, **changes)]
    seeds = study["comparison.reskinned_seeds" if regime == "reskinned" else "comparison.seeds"]
    models = [study.model(variant, seed, regime, **changes) for seed in seeds]
    if len(set(models)) < len(models):
        raise ValueError(
            f"comparison.seeds is {seeds}, but {models[0].checkpoint} is one network; wanted [null], or {{seed}} in its name"
        )
    return models


def component_table(study: Study, regime: str | None = None, dataset: str = "synthetic") -> pd.DataFrame:
    """The main table: variants × {no re-ranking, ours, αQE + DBA} × seeds; mAP in percent."""
    chosen, rows = choices(study, dataset), []
    for variant in variants_of(study, regime):
        for method in COMPONENT_METHODS:
            models = seeds_of(study, variant, regime)
            ap = measure(study, models, "components", method=method, parameters=chosen[method], dataset=dataset)
            rows.append(
                {"variant": variant, "re-ranking": NAMES[method]} | {d.capitalize(): percent(v) for d, v in ap.items()}
            )
    study.results.save()
    return pd.DataFrame(rows)


def ablation_table(study: Study) -> pd.DataFrame:
    """Drawn benchmark: one change of the module a row, without re-ranking, for the ablation's seeds; mAP in percent."""
    rows = []
    for change in [{}, *study["comparison.ablation.rows"]]:
        models = [study.model("self-similarity", seed, **change) for seed in study["comparison.ablation.seeds"]]
        ap = measure(study, models, "ablation")
        rows.append(
            {"change": name_of(change), "seeds": len(models)} | {d.capitalize(): percent(v) for d, v in ap.items()}
        )
    study.results.save()
    return pd.DataFrame(rows)


def backbone_table(study: Study, dataset: str = "synthetic") -> pd.DataFrame:
    """Backbones × {untrained, plain, self-similarity}, without re-ranking; mAP in percent. Checkpoints: without untrained."""
    rows = []
    variants = ("plain", "self-similarity") if study["model.checkpoints"] else ("untrained", "plain", "self-similarity")
    for backbone in [study["model.backbone"], *study["model.other_backbones"]]:
        for variant in variants:
            seeds = [None] if variant == "untrained" else study["comparison.backbone_seeds"]
            models = [study.model(variant, seed, backbone=backbone) for seed in seeds]
            ap = measure(study, models, "backbones", dataset=dataset)
            rows.append({"backbone": backbone, "variant": variant, "seeds": len([s for s in seeds if s is not None])})
            rows[-1] |= {d.capitalize(): percent(v) for d, v in ap.items()}
    study.results.save()
    return pd.DataFrame(rows)


def rerank_table(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Every re-ranker with the parameters chosen on validation: mAP in percent, queries hurt, false positives."""
    benchmark, chosen, rows = study.benchmark(dataset), choices(study, dataset), []
    before = np.empty(0)  # AP of the first method, none
    wrong = {"false positives": lambda ranks, truth: metrics.false_positives_at_r(ranks, truth)["medium"]}
    for method in ("none", *study["rerank.candidates"]):
        ap = measure(
            study, models, "rerank", method=method, parameters=chosen[method], dataset=dataset, statistics=wrong
        )
        false_positives = ap.pop("false positives")
        if method == "none":
            before = ap["medium"]
        hurt = np.where(np.isnan(before), np.nan, ap["medium"] < before)  # (S, Q)
        key = over_seeds(row_key(models[0], "rerank", {"dataset": dataset}, method, chosen[method]), len(models))
        add_mean(study, key, "share hurt", "medium", hurt, benchmark.groups)
        rows.append(
            {"re-ranking": NAMES[method], "parameters": ", ".join(f"{k} {v}" for k, v in chosen[method].items())}
            | {d.capitalize(): percent(v) for d, v in ap.items()}
            | {
                "queries hurt": f"{100 * np.nanmean(hurt):.0f} %",
                "wrong among first R": f"{np.nanmean(false_positives):.2f}",
            }
        )
    study.results.save()
    return pd.DataFrame(rows)


def gain_by_positives(study: Study, dataset: str = "synthetic") -> pd.DataFrame:
    """For each query, its number of Medium positives and the gain in AP by our re-ranking, averaged over the trainings.

    From the rows of `rerank_table`. Raises `ValueError` where they are not there.
    """
    after, before = (values(study, Cell(rerank=method, experiment="rerank"), dataset)[0] for method in ("ours", "none"))
    positives = [len(ids) for ids in positives_of(study.benchmark(dataset))]
    return pd.DataFrame({"positives": positives, "gain": 100 * (after - before).mean(axis=0)}).dropna()


def sweep(study: Study, models: list[Model], name: str, values: list, dataset: str = "synthetic") -> pd.DataFrame:
    """Our re-ranking with one parameter varied and the others as chosen; rows and a table of mAP in percent."""
    base, rows = choices(study, dataset)["ours"], []
    count = len(study.benchmark(dataset).database)
    for value in values:
        if name in ("k", "shortlist") and value >= count:
            continue
        ap = measure(
            study, models, "sweep", method="ours", parameters=base | {name: value}, dataset=dataset, varied=name
        )
        rows += [{name: value, "difficulty": d.capitalize(), "mAP": 100 * np.nanmean(v)} for d, v in ap.items()]
    study.results.save()
    return pd.DataFrame(rows)


def swept(study: Study, name: str, dataset: str = "synthetic") -> list:
    """The profile's values of a sweep over "k" or "alpha", and the chosen one, which a sweep has to go through."""
    return sorted({*study["sweeps"][name], choices(study, dataset)["ours"][name]})


def k_alpha_grid(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Medium mAP in percent of our re-ranking over k (rows) × α (columns)."""
    base, alphas, cells = choices(study, dataset)["ours"], swept(study, "alpha", dataset), {}
    for k in swept(study, "k", dataset):
        for alpha in alphas:
            ap = measure(
                study,
                models,
                "sweep",
                method="ours",
                parameters=base | {"k": k, "alpha": alpha},
                dataset=dataset,
                varied="k, alpha",
            )
            cells.setdefault(k, {})[alpha] = 100 * np.nanmean(ap["medium"])
    study.results.save()
    return pd.DataFrame(cells).T.rename_axis(index="k", columns="alpha")


def distractor_sweep(study: Study, models: list[Model]) -> pd.DataFrame:
    """Medium mAP in percent against the number of drawn distractors in the database, with and without our re-ranking."""
    benchmark, chosen, rows = study.benchmark(), choices(study), []
    without = len(benchmark.database) - study["data.test.distractors"]
    for count in study["sweeps.distractors"]:
        for method in ("none", "ours"):
            ap = measure(
                study, models, "sweep", method=method, parameters=chosen[method], cut=without + count, distractors=count
            )
            rows.append({"distractors": count, "re-ranking": NAMES[method], "mAP": 100 * np.nanmean(ap["medium"])})
    study.results.save()
    return pd.DataFrame(rows)


def distractor_table(study: Study, model: Model, dataset: str) -> pd.DataFrame:
    """A real benchmark with and without the profile's distractors: no re-ranking, ours, SuperGlobal; mAP in percent.

    Ours takes the neighbours of an image from the query's shortlist, as SuperGlobal does: the database side of a million
    images costs a search for each of them.
    """
    chosen, rows = choices(study, dataset), []
    databases = [study.descriptors(model, dataset), study.descriptors_with_distractors(model, dataset)]
    benchmark = study.with_distractors(dataset)
    for queries, database in databases:
        for method in ("none", "ours", "superglobal"):
            parameters = dict(chosen[method])
            if method == "ours":
                parameters |= {"neighbourhood": "shortlist", "shortlist": min(study["rerank.shortlist"], len(database))}
            ranks = apply_reranking(method, queries, database, parameters)[0]
            evaluation = metrics.evaluate(ranks, benchmark.first_images(len(database)))
            count = len(database) - len(databases[0][1])
            key = row_key(model, "sweep", {"dataset": dataset}, method, parameters, distractors=count)
            for difficulty, ap in with_positives(evaluation.ap).items():
                add_mean(study, key, "mAP", difficulty, ap[None], benchmark.groups)
            row = {"re-ranking": NAMES[method] + " in the shortlist" * (method == "ours"), "distractors": count}
            rows.append(row | {d.capitalize(): percent(ap[None]) for d, ap in evaluation.ap.items()})
    study.results.save()
    return pd.DataFrame(rows)


def positives_of(benchmark: Benchmark) -> list[np.ndarray]:
    """For each query its Medium positives: easy and hard."""
    return [np.concatenate(lists) for lists in zip(benchmark.easy, benchmark.hard, strict=True)]


def class_distances(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Distances within and between classes before and after our re-ranking, their ratio, and the ROC-AUC of pairs.

    That AUC twice: over the pairs of all queries together, and query by query, which is what a ranking depends on.
    """
    benchmark, chosen, rows = study.benchmark(dataset), choices(study, dataset), []
    positives, everything = positives_of(benchmark), np.arange(len(benchmark.database))
    wrong = [np.setdiff1d(everything, np.concatenate(known)) for known in zip(positives, benchmark.junk, strict=True)]
    for method in ("none", "ours", "alpha_qe_dba"):
        for model in models:
            _, queries, database = apply_reranking(method, *study.descriptors(model, dataset), chosen[method])
            values = metrics.intra_inter_distances(queries, database, benchmark)
            key = row_key(model, "claims", {"dataset": dataset}, method, chosen[method])
            for name, value in values.items():
                study.results.add(**key, metric=name, value=float(value), n_queries=len(benchmark))
            auc = metrics.auc_against(queries, database, positives, wrong)
            add_mean(study, key, "AUC", "pairs", auc[None], benchmark.groups)
            study.results.add_per_query(**key, difficulty="pairs", ap=auc, groups=benchmark.groups)
            values["AUC over all pairs"] = values.pop("pair AUC")
            rows.append({"re-ranking": NAMES[method], **values, "AUC by query": np.nanmean(auc)})
    study.results.save()
    return pd.DataFrame(rows).groupby("re-ranking", sort=False).mean().reset_index()
