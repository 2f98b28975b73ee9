"""The tables of the study, one function each, built from `experiments.measure` and written as rows."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import torch

from ssr_lib import figures, metrics
from ssr_lib.artefacts import Model, Study
from ssr_lib.data.benchmark import Benchmark
from ssr_lib.data.images import crop, load_image
from ssr_lib.experiments import NAMES, add_mean, apply_reranking, choices, measure, over_seeds, row_key
from ssr_lib.models.pooling import late_fusion
from ssr_lib.search import rank

COMPONENT_METHODS = ("none", "ours", "alpha_qe_dba")


def percent(ap: np.ndarray) -> str:
    """The mean of `ap` in percent and, over several seeds (rows), the standard deviation of their means."""
    means = 100 * np.nanmean(ap, axis=1)
    return f"{means.mean():.1f}" + (f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else "")


def seeds_of(study: Study, variant: str, regime: str = "ordinary", **changes) -> list[Model]:
    """The trainings of a variant in the main comparison."""
    seeds = study["comparison.seeds" if regime == "ordinary" else "comparison.reskinned_seeds"]
    return [study.model(variant, seed, regime, **changes) for seed in seeds]


def component_table(study: Study, regime: str = "ordinary") -> pd.DataFrame:
    """The main table: variants × {no re-ranking, ours, αQE + DBA} × seeds; mAP in percent."""
    chosen, rows = choices(study), []
    for variant in study["comparison.variants"]:
        for method in COMPONENT_METHODS:
            ap = measure(
                study, seeds_of(study, variant, regime), "components", method=method, parameters=chosen[method]
            )
            rows.append(
                {"variant": variant, "re-ranking": NAMES[method]} | {d.capitalize(): percent(v) for d, v in ap.items()}
            )
    study.results.save()
    return pd.DataFrame(rows)


def ablation_table(study: Study) -> pd.DataFrame:
    """One change of the module a row, without re-ranking, for the ablation's seeds; mAP in percent."""
    rows = []
    for change in [{}, *study["comparison.ablation.rows"]]:
        models = [study.model("self-similarity", seed, **change) for seed in study["comparison.ablation.seeds"]]
        ap = measure(study, models, "ablation")
        what = ", ".join(f"{key} {value}" for key, value in change.items()) or "as in the main table"
        rows.append({"change": what, "seeds": len(models)} | {d.capitalize(): percent(v) for d, v in ap.items()})
    study.results.save()
    return pd.DataFrame(rows)


def backbone_table(study: Study) -> pd.DataFrame:
    """Backbones × {untrained, plain, self-similarity}, without re-ranking; mAP in percent."""
    rows = []
    for backbone in [study["model.backbone"], *study["model.other_backbones"]]:
        for variant in ("untrained", "plain", "self-similarity"):
            seeds = [None] if variant == "untrained" else study["comparison.backbone_seeds"]
            models = [study.model(variant, seed, backbone=backbone) for seed in seeds]
            ap = measure(study, models, "backbones")
            rows.append({"backbone": backbone, "variant": variant, "seeds": len([s for s in seeds if s is not None])})
            rows[-1] |= {d.capitalize(): percent(v) for d, v in ap.items()}
    study.results.save()
    return pd.DataFrame(rows)


def rerank_table(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Every re-ranker with the parameters chosen on validation: mAP in percent, queries hurt, false positives."""
    benchmark, chosen, rows = study.benchmark(dataset), choices(study), []
    before = measure(study, models, "rerank", dataset=dataset)
    for method in ("none", *study["rerank.candidates"]):
        ap = measure(study, models, "rerank", method=method, parameters=chosen[method], dataset=dataset)
        hurt = np.mean(
            [metrics.share_of_queries_hurt(b, a) for b, a in zip(before["medium"], ap["medium"], strict=True)]
        )
        wrong = []
        for model in models:
            ranks = apply_reranking(method, *study.descriptors(model, dataset), chosen[method])[0]
            wrong.append(metrics.false_positives_at_r(ranks, benchmark)["medium"])
            key = row_key(model, "rerank", {"dataset": dataset}, method, chosen[method])
            add_mean(study, key, "false positives", "medium", wrong[-1][None], benchmark.groups)
            study.results.add_per_query(**key, difficulty="false positives", ap=wrong[-1], groups=benchmark.groups)
        key = over_seeds(row_key(models[0], "rerank", {"dataset": dataset}, method, chosen[method]), len(models))
        study.results.add(**key, metric="share hurt", difficulty="medium", value=float(hurt), n_queries=len(benchmark))
        rows.append(
            {"re-ranking": NAMES[method], "parameters": ", ".join(f"{k} {v}" for k, v in chosen[method].items())}
            | {d.capitalize(): percent(v) for d, v in ap.items()}
            | {"queries hurt": f"{100 * hurt:.0f} %", "wrong among first R": f"{np.nanmean(wrong):.2f}"}
        )
    study.results.save()
    return pd.DataFrame(rows)


def gain_by_positives(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """For each query, its number of Medium positives and the gain in AP by our re-ranking, averaged over the models."""
    benchmark, chosen = study.benchmark(dataset), choices(study)
    ap = {
        m: measure(study, models, "rerank", method=m, parameters=chosen[m], dataset=dataset)["medium"]
        for m in ("none", "ours")
    }
    return pd.DataFrame(
        {
            "positives": [len(ids) for ids in positives_of(benchmark)],
            "gain": 100 * (ap["ours"] - ap["none"]).mean(axis=0),
        }
    ).dropna()


def sweep(study: Study, models: list[Model], name: str, values: list, dataset: str = "synthetic") -> pd.DataFrame:
    """Our re-ranking with one parameter varied and the others as chosen; rows and a table of mAP in percent."""
    base, rows = choices(study)["ours"], []
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


def k_alpha_grid(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Medium mAP in percent of our re-ranking over k (rows) × α (columns)."""
    base, cells = choices(study)["ours"], {}
    for k in study["sweeps.k"]:
        for alpha in study["sweeps.alpha"]:
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
    """mAP in percent against the number of distractors in the database, with and without our re-ranking."""
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


# ---- structure and appearance


def structure_auc(queries: np.ndarray, database: np.ndarray, benchmark: Benchmark) -> dict[str, np.ndarray]:
    """For each query (Q,) the AUC of positives against twins and of doubles against unrelated landmarks."""
    extra = benchmark.extra
    return {
        "twins": metrics.auc_against(queries, database, positives_of(benchmark), extra["twins"]),
        "doubles": metrics.auc_against(queries, database, extra["doubles"], extra["unrelated"]),
    }


def positives_of(benchmark: Benchmark) -> list[np.ndarray]:
    """For each query its Medium positives: easy and hard."""
    return [np.concatenate(lists) for lists in zip(benchmark.easy, benchmark.hard, strict=True)]


def structure_scores(study: Study, models: list[Model]) -> dict[str, np.ndarray]:
    """Rows of the twins' and doubles' AUC for each model and their mean; the values (S, Q) by name."""
    benchmark, scores = study.benchmark(), {"twins": [], "doubles": []}
    for model in models:
        key = row_key(model, "claims", {"dataset": "synthetic"})
        for name, value in structure_auc(*study.descriptors(model), benchmark).items():
            add_mean(study, key, "AUC", name, value[None], benchmark.groups)
            study.results.add_per_query(**key, difficulty=name, ap=value, groups=benchmark.groups)
            scores[name].append(value)
    if len(models) > 1:
        key = over_seeds(row_key(models[0], "claims", {"dataset": "synthetic"}), len(models))
        for name, values in scores.items():
            add_mean(study, key, "AUC", name, np.stack(values), benchmark.groups)
    return {name: np.stack(values) for name, values in scores.items()}


def structure_table(study: Study, regime: str = "ordinary") -> pd.DataFrame:
    """Twins and doubles for every compared variant and the training-free descriptors; AUC in percent."""
    rows = []
    for variant in ("untrained", "structural", *study["comparison.variants"]):
        models = [study.model(variant)] if variant in ("untrained", "structural") else seeds_of(study, variant, regime)
        scores = structure_scores(study, models)
        rows.append({"variant": variant} | {f"AUC {name}": percent(value) for name, value in scores.items()})
    study.results.save()
    return pd.DataFrame(rows)


def invariance_table(study: Study, regime: str = "ordinary") -> pd.DataFrame:
    """Medium mAP in percent of each form of the test queries, for the compared variants and the training-free descriptors."""
    rows = []
    for variant in ("untrained", "structural", "grid", *study["comparison.variants"]):
        models = seeds_of(study, variant, regime) if variant in study["comparison.variants"] else [study.model(variant)]
        row = {"variant": variant}
        for subset in ("all", *study["data.subsets"]):
            ap = measure(study, models, "claims", subset=subset)
            row["ordinary" if subset == "all" else subset] = 100 * np.nanmean(ap["medium"])
        rows.append(row)
    study.results.save()
    return pd.DataFrame(rows).set_index("variant")


def class_distances(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """Distances within and between classes before and after our re-ranking, their ratio, and the ROC-AUC of pairs."""
    benchmark, chosen, rows = study.benchmark(dataset), choices(study), []
    positives, everything = positives_of(benchmark), np.arange(len(benchmark.database))
    for method in ("none", "ours", "alpha_qe_dba"):
        for model in models:
            _, queries, database = apply_reranking(method, *study.descriptors(model, dataset), chosen[method])
            values = metrics.intra_inter_distances(queries, database, benchmark)
            key = row_key(model, "claims", {"dataset": dataset}, method, chosen[method])
            for name, value in values.items():
                study.results.add(**key, metric=name, value=float(value), n_queries=len(benchmark))
            wrong = [
                np.setdiff1d(everything, np.concatenate([p, j])) for p, j in zip(positives, benchmark.junk, strict=True)
            ]
            auc = metrics.auc_against(queries, database, positives, wrong)
            add_mean(study, key, "AUC", "pairs", auc[None], benchmark.groups)
            study.results.add_per_query(**key, difficulty="pairs", ap=auc, groups=benchmark.groups)
            rows.append({"re-ranking": NAMES[method], **values})
    study.results.save()
    return pd.DataFrame(rows).groupby("re-ranking", sort=False).mean().reset_index()


# ---- guards, late fusion, single queries


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """A picture's (H, W, 3) uint8 RGB histogram over 8 × 4 × 4 bins of hue, saturation and value, L2-normalised (128,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256]).ravel()
    return counts / np.linalg.norm(counts)


def guard_table(study: Study) -> pd.DataFrame:
    """What must not work, and how far training gets: rows on validation, in percent, with what is wanted."""
    benchmark = study.benchmark(split="validation")
    histograms = [
        np.stack(
            [
                colour_histogram(crop(load_image(benchmark.root / f), b) if b else load_image(benchmark.root / f))
                for f, b in zip(names, boxes, strict=True)
            ]
        )
        for names, boxes in (
            (benchmark.queries, benchmark.boxes),
            (benchmark.database, [None] * len(benchmark.database)),
        )
    ]
    twins = np.nanmean(structure_auc(*histograms, benchmark)["twins"])
    rows = [("colour histogram, AUC against twins", 100 * twins, "near 50")]
    for variant, subset, wanted in (
        ("plain", "masked", "near the share of chance"),
        ("untrained", "all", "far below trained"),
        ("plain", "all", "40 to 60"),
    ):
        ap = measure(study, [study.model(variant)], "claims", split="validation", subset=subset)["medium"]
        what = "building painted over" if subset == "masked" else "ordinary queries"
        rows.append((f"{variant}, {what}, Medium mAP", 100 * np.nanmean(ap), wanted))
    positives = np.mean([len(ids) for ids in positives_of(benchmark)])
    rows.insert(2, ("chance, Medium mAP (positives over database)", 100 * positives / len(benchmark.database), ""))
    study.results.add(
        experiment="claims",
        dataset="synthetic",
        split="validation",
        backbone="none",
        variant="colour histogram",
        metric="AUC",
        difficulty="twins",
        value=float(twins),
    )
    study.results.save()
    return pd.DataFrame(rows, columns=["guard", "%", "wanted"])


def fusion_table(study: Study) -> pd.DataFrame:
    """Late fusion of the trained plain network with training-free descriptors, weights chosen on validation; in percent."""
    rows = []
    models = seeds_of(study, "plain")
    for other in (None, "structural", "grid"):
        weight = 0.0 if other is None else choose_fusion_weight(study, models[0], other)
        row = {"descriptor": "plain" if other is None else f"plain + {other}", "weight": weight}
        for subset in ("all", "reskinned"):
            benchmark, values = study.benchmark(subset=subset), []
            for model in models:
                ranks = rank(*fused(study, model, other, weight, "test", subset))
                values.append(metrics.evaluate(ranks, benchmark).ap["medium"])
                key = row_key(
                    model,
                    "claims",
                    {"dataset": "synthetic", "subset": subset},
                    fusion_with=other or "none",
                    weight=weight,
                )
                add_mean(study, key, "mAP", "medium", values[-1][None], benchmark.groups)
            row["Medium" if subset == "all" else subset] = percent(np.stack(values))
        rows.append(row)
    study.results.save()
    return pd.DataFrame(rows)


def fused(study: Study, model: Model, other: str | None, weight: float, split: str, subset: str = "all") -> tuple:
    """Descriptors of queries and database whose similarity is (1 − weight) · model + weight · other."""
    pair = study.descriptors(model, split=split, subset=subset)
    if other is None:
        return pair
    others = study.descriptors(study.model(other), split=split, subset=subset)
    both = ((torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(pair, others, strict=True))
    return tuple(late_fusion(a, b, weight).numpy() for a, b in both)


def choose_fusion_weight(study: Study, model: Model, other: str) -> float:
    """The weight with the best Medium mAP on validation; every trial is a row."""
    benchmark, best = study.benchmark(split="validation"), (-1.0, 0.0)
    for weight in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        value = metrics.evaluate(rank(*fused(study, model, other, weight, "validation")), benchmark).map["medium"]
        key = row_key(
            model, "claims", {"dataset": "synthetic", "split": "validation"}, fusion_with=other, weight=weight
        )
        study.results.add(**key, metric="mAP", difficulty="medium", value=value, n_queries=len(benchmark))
        best = max(best, (value, weight))
    return best[1]


def rankings_and_ap(study: Study, model: Model, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Rankings (Q, N) and Medium AP (Q,) of the test queries."""
    ranks = apply_reranking(method, *study.descriptors(model), choices(study)[method])[0]
    return ranks, metrics.evaluate(ranks, study.benchmark()).ap["medium"]


def status_of(study: Study, query: int, ids: np.ndarray) -> list[str]:
    """ "right", "wrong" or "ignored" for each database id, by the Medium protocol."""
    benchmark = study.benchmark()
    right, ignored = {*benchmark.easy[query], *benchmark.hard[query]}, {*benchmark.junk[query]}
    return ["right" if i in right else "ignored" if i in ignored else "wrong" for i in ids]


def draw_lists(study: Study, query: int, rankings: dict[str, tuple[np.ndarray, np.ndarray]], path, top: int = 10):
    """A picture of the first `top` of several rankings of one query."""
    benchmark, rows = study.benchmark(), []
    for title, (ranks, ap) in rankings.items():
        ids = ranks[query, :top]
        rows.append(
            (
                f"{title}, AP {100 * ap[query]:.0f}",
                [benchmark.root / benchmark.database[i] for i in ids],
                None,
                status_of(study, query, ids),
            )
        )
    return figures.ranked_lists(benchmark.root / benchmark.queries[query], rows, path)


def extreme_lists(study: Study, model: Model) -> dict[str, object]:
    """Pictures of the query that gains most and of the one that loses most by our re-ranking."""
    rankings = {name: rankings_and_ap(study, model, method) for name, method in (("before", "none"), ("after", "ours"))}
    gain = rankings["after"][1] - rankings["before"][1]
    picks = {"gains most": int(np.nanargmax(gain)), "loses most": int(np.nanargmin(gain))}
    return {
        f"{name} ({100 * gain[q]:+.0f} points of AP)": draw_lists(
            study, q, rankings, study.figure(f"lists_{name.split()[0]}.png")
        )
        for name, q in picks.items()
    }


def worst_queries(study: Study, model: Model, count: int = 8) -> pd.DataFrame:
    """The queries with the lowest Medium AP after our re-ranking, and what stands in front of their first positive."""
    benchmark = study.benchmark()
    ranks, ap = rankings_and_ap(study, model, "ours")
    rows = []
    for query in np.argsort(np.where(np.isnan(ap), np.inf, ap), kind="stable")[:count]:
        status = np.array(status_of(study, query, ranks[query]))
        first = int(np.flatnonzero(status == "right")[0])
        wrong = ranks[query][:first][status[:first] == "wrong"]
        twins = np.isin(wrong, benchmark.extra["twins"][query]).sum()
        rows.append(
            {
                "query": int(query),
                "landmark": benchmark.groups[query],
                "AP": 100 * ap[query],
                "positives": len(benchmark.easy[query]) + len(benchmark.hard[query]),
                "of them hard": len(benchmark.hard[query]),
                "wrong before the first right": len(wrong),
                "of them twins": int(twins),
            }
        )
    return pd.DataFrame(rows)


def worst_picture(study: Study, model: Model, worst: pd.DataFrame, path):
    """The ranked list of the worst query, before and after our re-ranking."""
    rankings = {name: rankings_and_ap(study, model, method) for name, method in (("before", "none"), ("after", "ours"))}
    return draw_lists(study, int(worst["query"].iloc[0]), rankings, path)
