"""Photographs: networks trained on nothing more, on drawings or on other photographs side by side; what preprocessing moves."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ssr_lib import metrics, significance
from ssr_lib.search import rank
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import NAMES, add_mean, choices, measure, name_of, resampling, row_key, with_positives
from ssr_lib.study.claims import as_row
from ssr_lib.study.comparisons import percent, seeds_of
from ssr_lib.study.variants import Model

TRAINED_ON = {"ordinary": "drawings", "photographs": "photographs"}


def photo_models(study: Study) -> dict[tuple[str, str], list[Model]]:
    """The networks of the table by (variant, trained on): untrained, then every variant in both ways."""
    models = {("untrained", "ImageNet only"): [study.model("untrained")]}
    if study.regime != "photographs":
        raise ValueError("data.training_labels is empty; name the CSV of the photographs to train on")
    for regime, name in TRAINED_ON.items():
        for variant in study["comparison.variants"]:
            models[variant, name] = seeds_of(study, variant, regime)
    return models


def photo_values(study: Study, dataset: str) -> dict[tuple[str, str, str], np.ndarray]:
    """AP (S, Q) by (variant, trained on, re-ranking), without and with ours; every query has one difficulty here."""
    chosen = choices(study, dataset)
    return {
        (*name, method): measure(study, models, "photos", method=method, parameters=chosen[method], dataset=dataset)[
            "medium"
        ]
        for name, models in photo_models(study).items()
        for method in ("none", "ours")
    }


def photo_table(study: Study, values: dict[tuple[str, str, str], np.ndarray], dataset: str) -> pd.DataFrame:
    """mAP in percent, one row for each network and re-ranking, whose parameters are named; seeds: trainings."""
    chosen = choices(study, dataset)
    name = lambda m: " ".join([NAMES[m], ", ".join(f"{key} {value}" for key, value in chosen[m].items())]).strip()
    return pd.DataFrame(
        {
            "variant": v,
            "trained on": t,
            "seeds": len(ap) * (v != "untrained"),
            "re-ranking": name(m),
            "mAP": percent(ap),
        }
        for (v, t, m), ap in values.items()
    )


def photo_differences(study: Study, values: dict[tuple[str, str, str], np.ndarray], dataset: str) -> pd.DataFrame:
    """What re-ranking, training and the module change, in points of mAP, with intervals over groups and seeds."""
    names = list(TRAINED_ON.values())
    pairs = {"ours − none, untrained": (("untrained", "ImageNet only", "ours"), ("untrained", "ImageNet only", "none"))}
    for name in names:
        ours = [("self-similarity", name, m) for m in ("ours", "none")]
        pairs[f"ours − none, self-similarity trained on {name}"] = tuple(ours)
        for other in study["comparison.variants"]:
            if other != "self-similarity":
                pairs[f"self-similarity − {other}, trained on {name}"] = (ours[1], (other, name, "none"))
        pairs[f"plain, trained on {name} − untrained"] = (
            ("plain", name, "none"),
            ("untrained", "ImageNet only", "none"),
        )
    groups, rows = study.benchmark(dataset).groups, []
    for name, cells in pairs.items():
        first, second = np.broadcast_arrays(*(values[cell] for cell in cells))  # an untrained network has one row
        found = significance.paired_difference(first, second, groups, **resampling(study))
        key = {"experiment": "photos", "dataset": dataset, "backbone": study["model.backbone"], "variant": name}
        key |= {"params": {"seeds": found.n_seeds}, "metric": "difference", "difficulty": "medium"}
        interval = {"ci_low": found.ci_low, "ci_high": found.ci_high, "n_groups": found.n_groups}
        study.results.add(**key, value=found.estimate, **interval)
        trained = any(variant != "untrained" for variant, *_ in cells)
        rows.append(as_row(name, found) | {"seeds": found.n_seeds * trained, "groups": found.n_groups})
    study.results.save()
    return pd.DataFrame(rows).drop(columns="landmarks")


# ---- what the steps between file and network move


def preprocess_table(study: Study, model: Model, dataset: str = "synthetic") -> pd.DataFrame:
    """mAP in percent with one choice of the preprocessing changed at a time, and the difference of Medium from the unchanged.

    Of a drawn benchmark the validation part, with some of its database images: these rows are for reading, no choice rests on them.
    """
    split = "validation" if dataset == "synthetic" else "test"
    benchmark = study.benchmark(dataset, split)
    if images := study["sweeps.preprocess.images"]:
        count = len(benchmark.database)
        benchmark = benchmark.select_images(np.linspace(0, count - 1, min(images, count)).astype(int))
    rows, unchanged = [], None
    same = study.preprocess(model)
    for change in [{}, *study["sweeps.preprocess.changes"]]:
        if change and study.preprocess(model, **change) == same:
            continue  # this network's pictures are prepared like that already
        descriptors = study.extracted(model, benchmark, f"{dataset}-{split}-{len(benchmark.database)}", **change)
        ap = metrics.evaluate(rank(*descriptors), benchmark).ap
        unchanged = ap["medium"] if unchanged is None else unchanged
        key = row_key(model, "sweep", {"dataset": dataset, "split": split}, changed=name_of(change, "nothing"))
        for difficulty, values in with_positives(ap).items():
            add_mean(study, key, "mAP", difficulty, values[None], benchmark.groups)
        row = {"changed": name_of(change, "nothing")} | {
            d.capitalize(): 100 * np.nanmean(v) for d, v in with_positives(ap).items()
        }
        if change:
            found = significance.paired_difference(ap["medium"], unchanged, benchmark.groups, **resampling(study))
            row |= {"difference": 100 * found.estimate, "low": 100 * found.ci_low, "high": 100 * found.ci_high}
        rows.append(row)
    study.results.save()
    return pd.DataFrame(rows)
