"""What re-ranking and the module cost: time and bytes on the machine at hand. Medians of repeated runs, but for local features."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from ssr_lib import metrics
from ssr_lib.rerank import (
    alpha_query_expansion,
    augment_database,
    average_query_expansion,
    database_augmentation,
    global_rerank,
    local_rerank,
    superglobal_rerank,
)
from ssr_lib.rerank.global_rerank import refines_whole_database
from ssr_lib.search import rank
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import NAMES, add_mean, apply_reranking, choices, row_key
from ssr_lib.study.variants import Model


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """The median time of `repeats` runs after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def parts(method: str, queries: np.ndarray, database: np.ndarray, p: dict) -> tuple[Callable | None, Callable]:
    """What is done once for a database (None: nothing) and what is done for the queries, for one method."""
    if "shortlist" in p:
        p = p | {"shortlist": min(p["shortlist"], len(database))}
    if method == "ours":
        own = {
            key: value for key, value in p.items() if key in ("k", "alpha", "weighting", "power", "reduce", "rounds")
        }
        if not refines_whole_database(**p):
            return None, lambda: global_rerank(queries, database, **p)
        stored = augment_database(database, **own)
        return lambda: augment_database(database, **own), lambda: global_rerank(
            queries, database, **p, augmented=stored
        )
    if method in ("dba", "alpha_qe_dba"):
        augmented = database_augmentation(database, p["k"], p["exponent"])
        expand = lambda: alpha_query_expansion(queries, augmented, p["k"], p["exponent"])
        online = (lambda: rank(expand(), augmented)) if method == "alpha_qe_dba" else (lambda: rank(queries, augmented))
        return lambda: database_augmentation(database, p["k"], p["exponent"]), online
    online = {
        "none": lambda: rank(queries, database),
        "aqe": lambda: rank(average_query_expansion(queries, database, p["k"]), database),
        "alpha_qe": lambda: rank(alpha_query_expansion(queries, database, p["k"], p["exponent"]), database),
        "superglobal": lambda: superglobal_rerank(queries, database, **p),
    }
    return None, online[method]


def descriptor_bytes(method: str, database: np.ndarray) -> int:
    """Bytes an image while queries are answered: ours needs both descriptors, since neighbours are looked up in the originals."""
    return 4 * database.shape[1] * (2 if method == "ours" else 1)


def rerank_costs(study: Study, model: Model, repeats: int, dataset: str = "synthetic") -> pd.DataFrame:
    """Offline and online time and bytes of every method, with local re-ranking of the profile's subset of queries last."""
    queries, database = study.descriptors(model, dataset)
    chosen, rows = choices(study, dataset), []
    for method in ("none", *study["rerank.candidates"]):
        offline, online = parts(method, queries, database, chosen[method])
        rows.append(
            {
                "re-ranking": NAMES[method],
                "offline s": median_seconds(offline, repeats) if offline else 0.0,
                "online ms a query": 1000 * median_seconds(online, repeats) / len(queries),
                "bytes an image": descriptor_bytes(method, database),
            }
        )
        add_costs(study, row_key(model, "rerank", {"dataset": dataset}, method, chosen[method]), rows[-1])
    local = study.results.costs(rerank="local", dataset=dataset)
    local = local.set_index("quantity")["value"] if len(local) else local_costs(study, [model], dataset)[1]
    rows.append({"re-ranking": NAMES["local"], **{column: float(local[column]) for column in list(rows[0])[1:]}})
    study.results.save()
    return pd.DataFrame(rows)


def add_costs(study: Study, key: dict, row: dict) -> None:
    """The columns of a cost row, in the units their names end in."""
    units = {"offline s": "s", "online ms a query": "ms", "bytes an image": "bytes"}
    for quantity, unit in units.items():
        study.results.add_cost(**key, quantity=quantity, value=row[quantity], unit=unit)


def local_costs(study: Study, models: list[Model], dataset: str = "synthetic") -> tuple[dict[str, np.ndarray], dict]:
    """Local re-ranking of the profile's subset of queries: Medium AP (S, Q) of none, ours and local, and what local costs.

    Ours re-orders the same shortlist. The queries are spread evenly over the benchmark; features are kept in the cache.
    Local features are found in the pictures as they are stored; where the profile says so, "local_small" finds them in
    pictures as small as the networks see them.
    """
    benchmark, settings = study.benchmark(dataset), study["rerank.local"]
    asked = np.linspace(0, len(benchmark) - 1, min(settings["queries"], len(benchmark))).astype(int)
    some = benchmark.select_queries(asked)
    files = [[some.root / name for name in names] for names in (some.queries, some.database)]
    sizes = {"local": {}}
    if settings.get("small_too"):
        sizes["local_small"] = {"longest": study["data.image_size"]}
    known = {method: {} for method in sizes}  # inlier counts: other networks ask for many of the same pairs
    ap = {method: [] for method in ("none", "ours", *sizes)}
    cost, key = {}, {}
    for model in models:
        queries, database = study.descriptors(model, dataset)
        queries, shortlist = queries[asked], min(settings["shortlist"], len(database))
        first = rank(queries, database)
        parameters = choices(study, dataset)["ours"] | {"shortlist": shortlist}
        ranks = {"none": first, "ours": apply_reranking("ours", queries, database, parameters)[0]}
        for method, size in sizes.items():
            options = {"boxes": some.boxes, "cache": study.cache / "sift", "known": known[method]} | size
            local = local_rerank(*files, first, shortlist, **options)
            ranks[method] = local.ranks
            if method == "local":
                cost = cost or {
                    "offline s": local.cost["seconds_per_image"] * len(database),
                    "online ms a query": 1000 * local.cost["seconds_per_query"],
                    "bytes an image": local.cost["bytes_per_image"],
                }
        for method, ranking in ranks.items():
            ap[method].append(metrics.evaluate(ranking, some).ap["medium"])
            how = {} if method == "none" else {"shortlist": shortlist} | sizes.get(method, {})
            key[method] = row_key(model, "rerank", {"dataset": dataset}, method, how, queries=len(some))
            add_mean(study, key[method], "mAP", "medium", ap[method][-1][None], some.groups)
            study.results.add_per_query(**key[method], difficulty="local", ap=ap[method][-1], groups=some.groups)
    add_costs(study, key["local"] | {"seed": models[0].seed}, cost)
    study.results.save()
    return {method: np.stack(values) for method, values in ap.items()}, cost


def local_table(study: Study, models: list[Model], dataset: str = "synthetic") -> pd.DataFrame:
    """mAP in percent, milliseconds a query and bytes an image of no, our and local re-ranking on the same queries."""
    ap, cost = local_costs(study, models, dataset)
    queries, database = study.descriptors(models[0], dataset)
    shortlist = {"shortlist": study["rerank.local.shortlist"]}
    ours = parts("ours", queries, database, choices(study, dataset)["ours"] | shortlist)[1]
    run = {"none": lambda: rank(queries, database), "ours": ours}
    rows = []
    for method, values in ap.items():
        row = {"re-ranking": NAMES[method], "Medium": 100 * np.nanmean(values), "queries": values.shape[1]}
        if method in run:
            row["ms a query"] = 1000 * median_seconds(run[method], 1) / len(queries)
            row["bytes an image"] = descriptor_bytes(method, database)
        elif method == "local":
            row |= {"ms a query": cost["online ms a query"], "bytes an image": cost["bytes an image"]}
        rows.append(row)
    return pd.DataFrame(rows)


def growth(study: Study, repeats: int, p: dict) -> pd.DataFrame:
    """Milliseconds a query of search and re-ranking, and of our offline part, against the size of the database; `p`: parameters of ours."""
    generator, rows = np.random.default_rng(study["statistics.seed"]), []
    queries = generator.standard_normal((64, study["model.descriptor_dim"]), np.float32)
    for size in study["sweeps.database"]:
        database = generator.standard_normal((size, queries.shape[1]), np.float32)
        offline, online = parts("ours", queries, database, p)
        timed = (
            ("search, for a query", lambda d=database: rank(queries, d), len(queries)),
            ("ours, online, for a query", online, len(queries)),
            ("ours, offline, for an image", offline, size),
        )
        for part, run, count in timed:
            if run is not None:
                rows.append({"images": size, "part": part, "milliseconds": 1000 * median_seconds(run, repeats) / count})
    return pd.DataFrame(rows)


def module_costs(study: Study, repeats: int) -> pd.DataFrame:
    """Parameters and milliseconds a picture of each variant's head, and of the trunk that all share, timed again for each."""
    rows = []
    with torch.inference_mode():
        for variant in study["comparison.variants"]:
            net = study.network(study.model(variant, study["comparison.seeds"][0]))
            images = torch.zeros(16, 3, study["data.image_size"], study["data.image_size"])
            maps = net.trunk(images)
            rows.append(
                {
                    "variant": variant,
                    "parameters of the module": sum(p.numel() for p in net.embedding.parameters()),
                    "trunk ms": 1000 * median_seconds(lambda n=net, x=images: n.trunk(x), repeats) / len(images),
                    "head ms": 1000 * median_seconds(lambda n=net, x=maps: n.head(x), repeats) / len(images),
                }
            )
    return pd.DataFrame(rows)
