"""Structure against appearance, on the drawn benchmark: twins and doubles, invariance, guards, late fusion."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import torch

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.images import crop, load_image
from ssr_lib.pooling import late_fusion
from ssr_lib.search import rank
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import add_mean, measure, over_seeds, row_key, variants_of
from ssr_lib.study.comparisons import percent, positives_of, seeds_of
from ssr_lib.study.variants import Model


def structure_auc(queries: np.ndarray, database: np.ndarray, benchmark: Benchmark) -> dict[str, np.ndarray]:
    """For each query (Q,) the AUC of positives against twins and of doubles against unrelated landmarks."""
    extra = benchmark.extra
    return {
        "twins": metrics.auc_against(queries, database, positives_of(benchmark), extra["twins"]),
        "doubles": metrics.auc_against(queries, database, extra["doubles"], extra["unrelated"]),
    }


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


def structure_table(study: Study, regime: str | None = None) -> pd.DataFrame:
    """Twins and doubles for every compared variant and the training-free descriptors; AUC in percent."""
    rows = []
    for variant in ("untrained", "structural", *variants_of(study, regime)):
        scores = structure_scores(study, seeds_of(study, variant, regime))
        rows.append({"variant": variant} | {f"AUC {name}": percent(value) for name, value in scores.items()})
    study.results.save()
    return pd.DataFrame(rows)


def invariance_table(study: Study, regime: str | None = None) -> pd.DataFrame:
    """Medium mAP in percent of each form of the test queries, for the compared variants and the training-free descriptors."""
    rows = []
    for variant in ("untrained", "structural", "grid", *variants_of(study, regime)):
        models = seeds_of(study, variant, regime)
        row = {"variant": variant}
        for subset in ("all", *study["data.subsets"]):
            ap = measure(study, models, "claims", subset=subset)
            row["ordinary" if subset == "all" else subset] = 100 * np.nanmean(ap["medium"])
        rows.append(row)
    study.results.save()
    return pd.DataFrame(rows).set_index("variant")


# ---- guards and late fusion


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """A picture's (H, W, 3) uint8 RGB histogram over 8 × 4 × 4 bins of hue, saturation and value, L2-normalised (128,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256]).ravel()
    return counts / np.linalg.norm(counts)


def chance(benchmark: Benchmark, repeats: int = 20) -> float:
    """Medium mAP of random rankings, the mean over `repeats` of them for each query."""
    generator, everything = np.random.default_rng(0), np.tile(np.arange(len(benchmark.database)), (len(benchmark), 1))
    ranks = (generator.permuted(everything, axis=1) for _ in range(repeats))
    return float(np.mean([metrics.evaluate(r, benchmark).map["medium"] for r in ranks]))


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
    plain, untrained = study.model("plain"), study.model("untrained")
    models = [
        ("plain, building painted over", plain, "masked", "near chance"),
        ("untrained, ordinary queries", untrained, "all", "far below trained"),
        ("plain, ordinary queries", plain, "all", "40 to 60"),
    ]
    if study["training.start"] == "fitted":
        models.append(("plain as fitted, before the first step", study.model("plain", steps=0), "all", "below trained"))
        if study["comparison.reskinned_seeds"]:
            fitted = study.model("plain", regime="reskinned", steps=0)
            models.append(("neighbour on re-skinned views", study.model("neighbour", regime="reskinned"), "all", ""))
            models.append(("plain as fitted to re-skinned views", fitted, "all", "below the row above"))
    for what, model, subset, wanted in models:
        ap = measure(study, [model], "claims", split="validation", subset=subset)["medium"]
        rows.append((f"{what}, Medium mAP", 100 * np.nanmean(ap), wanted))
    rows.insert(2, ("chance, random rankings, Medium mAP", 100 * chance(benchmark), ""))
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
