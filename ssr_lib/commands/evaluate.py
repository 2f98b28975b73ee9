"""`ssr evaluate`: mAP before and after re-ranking. `ssr whiten`: a whitening that labelled pictures teach."""

import json
import os
import sys
import tempfile
import zipfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from scipy.io import loadmat

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.commands.main import check_file, note, shown
from ssr_lib.commands.search import opened
from ssr_lib.datasets import revisited
from ssr_lib.datasets.folder import check_there, listed, read_labels, read_training_labels
from ssr_lib.extract import extract, extract_benchmark
from ssr_lib.files import one_line
from ssr_lib.images import Preprocess
from ssr_lib.rerank import first_ranking
from ssr_lib.rerank._choice import choose_reranker
from ssr_lib.scale.descriptors import describe_pictures
from ssr_lib.scale.engine import on_ray, one_machine
from ssr_lib.scale.live import FILE
from ssr_lib.search import Prepared, prepare, rank
from ssr_lib.search.prepared import blocks
from ssr_lib.significance import paired_difference
from ssr_lib.weights import check_destination, save_checkpoint
from ssr_lib.whitening import fit_lda

AT = (1, 5, 10)
FIGURES = ("mAP", *(f"mP@{k}" for k in AT))
PAIRS = 1 << 21  # of query and picture ranked at once: some 200 MB
PER_SHARD = 1024  # pictures: what a killed worker repeats
SHORTLIST = 400  # of GFR among distractors: to refine a million of them would cost a search for each
DIRECTIONS = 512  # that a whitening keeps; all where the pictures vary along fewer
SHRINKAGE = 1.0  # of a whitening: adds the mean variance within labels to every direction, for the sake of few pictures
WITH_FEATURES = ("command", "traceback", "ground_truth", "features", "json", "rerank", "k", "alpha")  # and no others


def evaluate(args: Namespace) -> None:
    """Print mAP and mP@1, 5, 10 of a labelled set, without and with re-ranking."""
    benchmark = _benchmark(args)
    if args.index and any(Path(args.index).rglob(FILE)):
        raise ValueError(f"--index {args.index} holds a live index, whose lists are approximate: name another folder")
    if args.distractors:
        names = revisited.read_distractors(args.distractors)
        check_there(args.distractors, names)  # before anything is described
        benchmark = revisited.with_distractors(benchmark, names, args.distractors)
    shortlist = min(SHORTLIST, len(benchmark.database) - int(max(benchmark.query_ids) >= 0))
    in_shortlist = bool(args.distractors) and args.rerank == "gfr"
    others = (shortlist if in_shortlist else len(benchmark.database)) - 1
    part, parameters = choose_reranker(args.rerank, others, k=args.k, alpha=args.alpha)
    if in_shortlist:
        parameters |= {"neighbourhood": "shortlist", "shortlist": shortlist}
    with tempfile.TemporaryDirectory(prefix="ssr-") as temporary:
        if args.features:
            queries, database = read_features(check_file(args.features), benchmark)
            made_by = {"features": args.features}
        else:
            queries, database, made_by = _described(args, benchmark, args.index or temporary)
        with one_line(args.features or f"--rerank {args.rerank}"):
            results = _measured(benchmark, queries, database, part, parameters)
    counts = {"queries": len(benchmark), "groups": len(set(benchmark.groups)), "database": len(benchmark.database)}
    if args.json:
        made_by |= {"rerank": args.rerank, **parameters, "unit": "fraction"}
        print(json.dumps({"benchmark": benchmark.name, **counts, **made_by, "results": results}, indent=1))
    else:
        told = ", ".join([args.rerank, *(f"{name} = {value}" for name, value in parameters.items())])
        n = "{:,} queries in {:,} groups, {:,} database pictures".format(*counts.values())
        print(f"{shown(benchmark.name)}: {n}; re-ranking by {told}\n")
        print(f"{'per cent':27s}" + "".join(f"{name:>8s}" for name in FIGURES))
        for title, by_difficulty in results.items():
            for difficulty, values in by_difficulty.items():
                figures = ("      --" if value is None else f"{100 * value:8.2f}" for value in values.values())
                print(f"{title + ', ' + difficulty.title():27s}" + "".join(figures))


def _benchmark(args: Namespace) -> Benchmark:
    useless = [name for name, value in vars(args).items() if name not in WITH_FEATURES and value is not None]
    if args.features and useless:
        told = ", ".join(useless).replace("_", "-")
        raise ValueError(f"--features stands for the pictures of a --ground-truth: leave out {told}")
    file = check_file(args.labels or args.ground_truth)
    if args.labels:
        benchmark = read_labels(file, args.images, on_lonely="keep")
    elif file.suffix == ".json":
        if args.images:
            raise ValueError(f"{file} says where its pictures lie: leave out --images")
        benchmark = Benchmark.load(file)
        if not args.features:
            check_there(benchmark.root, [*benchmark.database, *benchmark.queries])
    elif args.images or args.features:
        benchmark = revisited.read_ground_truth(file, args.images, subset=True)
        if benchmark.name not in revisited.OFFICIAL:
            note(f"{file} is not a published ground truth; compare its figures only with each other")
    else:
        raise ValueError("--ground-truth wants --images DIR, the folder of its pictures, or --features FILE")
    if not benchmark.queries or not benchmark.database:
        counts = f"{len(benchmark)} queries and {len(benchmark.database)} database pictures"
        raise ValueError(f"{file} has {counts}; one or more of each is wanted")
    if lonely := [name for name, ids in zip(benchmark.queries, benchmark.positives, strict=True) if len(ids) == 0]:
        note(listed(lonely, "queries have no right picture in the database and no part in the means"))
    return benchmark


def _described(args: Namespace, benchmark: Benchmark, folder: str) -> tuple[np.ndarray, np.ndarray | Prepared, dict]:
    """Descriptors of queries (Q, D) and database (N, D), in shards where it is large, and what made them."""
    net, preprocess, options = opened(args)
    made_by = {"model": args.model or "lite0", "preprocess": preprocess.to_dict()}
    if not args.engine and not args.distractors:
        return *extract_benchmark(net, benchmark, preprocess, folder, progress=sys.stderr.isatty(), **options), made_by
    engine = on_ray(os.cpu_count(), os.environ.get("RAY_ADDRESS", "local")) if args.engine else one_machine
    options["root"], place = benchmark.root, Path(folder, "shards")
    shards = describe_pictures(place, net, benchmark.database, preprocess, PER_SHARD, engine=engine, **options)
    if min(benchmark.query_ids) >= 0 and all(box is None for box in benchmark.boxes):
        return shards[np.array(benchmark.query_ids)], shards.prepared(), made_by  # described already
    options |= {"boxes": benchmark.boxes, "progress": False}
    queries = extract(net, benchmark.queries, preprocess, Path(folder, "queries"), **options)
    return queries, shards.prepared(), made_by


def read_features(path: Path, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Stored descriptors of queries (Q, D) and database (N, D), float32, of a .mat or .npz with Q (D, Q) and X (D, N);
    what the file holds decides, not its name. Raises `ValueError` naming it where that is something else."""
    wanted = "it is damaged, of MATLAB 7.3 (save it with -v7), or neither .mat nor .npz"
    with one_line(f"{path} holds no arrays Q (D, queries) and X (D, N): {wanted}"):
        stored = np.load(path, allow_pickle=False) if zipfile.is_zipfile(path) else loadmat(path, appendmat=False)
        arrays = [np.asarray(stored[name]) for name in ("Q", "X")]
    for name, array, wanted in zip("QX", arrays, (len(benchmark), len(benchmark.database)), strict=True):
        if array.ndim != 2 or array.shape[1] != wanted or array.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} is {array.dtype} {array.shape}; wanted numbers (dimension, {wanted})")
    return tuple(np.ascontiguousarray(array.T, dtype=np.float32) for array in arrays)


def _measured(benchmark: Benchmark, queries, database, part: ModuleType, parameters: dict) -> dict[str, dict]:
    """Figures by title and difficulty, a block of queries at a time: a ranking has 16 bytes for each picture."""
    database, own = prepare(database, "database descriptors"), np.array(benchmark.query_ids)
    prepared = part.prepare(database, **parameters) if hasattr(part, "prepare") else None
    found = {"without re-ranking": [], "with re-ranking": []}
    for rows in blocks(len(benchmark), PAIRS // len(database)):
        block = queries[rows]
        first = first_ranking(block, database, own[rows])
        after = part.rerank(block, database, first, prepared=prepared, **parameters)
        for ranks, evaluations in zip((first.ids, after.ranks), found.values(), strict=True):
            evaluations.append(metrics.evaluate(ranks, benchmark.select_queries(range(rows.start, rows.stop)), at=AT))
    graded = any(len(ids) for lists in (benchmark.hard, benchmark.junk) for ids in lists)
    difficulties = ("easy", "medium", "hard") if graded else ("medium",)
    return {title: {d: _means(parts, d) for d in difficulties} for title, parts in found.items()}


def _means(parts: list[metrics.Evaluation], difficulty: str) -> dict[str, float | None]:
    """mAP and mP over the queries that have positives; None where none has."""
    rows = np.concatenate([np.c_[part.ap[difficulty], part.precision[difficulty]] for part in parts])
    rows = rows[~np.isnan(rows[:, 0])]
    return dict(zip(FIGURES, rows.mean(axis=0).tolist() if len(rows) else [None] * len(FIGURES), strict=True))


def whiten(args: Namespace) -> None:
    """Learn a whitening from labelled pictures, store the network that ends in it, and print what it gave on others."""
    labelled = read_training_labels(check_file(args.labels), args.images)
    labels, several = labelled.labels, np.bincount(labelled.labels) > 1
    if several.sum() < 4:
        raise ValueError(f"{args.labels}: {several.sum()} labels have two pictures or more; 4 such labels are wanted")
    out = args.out or f"{Path(args.labels).with_suffix('')}-whitened"
    check_destination(out, "labels_file")
    net, preprocess, options = opened(args)
    if net.config["descriptor_dim"] is not None:
        raise ValueError(f"--model {args.model} ends in a whitening; a network without one is wanted, such as lite0")
    preprocess = Preprocess(**preprocess.to_dict() | {"scales": (1.0,)})  # of several it would whiten each by itself
    options |= {"root": labelled.root, "progress": sys.stderr.isatty()}
    with tempfile.TemporaryDirectory(prefix="ssr-") as temporary:
        x = extract(net, labelled.files, preprocess, args.index or temporary, **options)  # (N, D)
    asked = (several.cumsum() % 2)[labels] == 0  # every second of the labels with several pictures, and some others
    own = labels[asked]
    same = [np.flatnonzero(own == label) for label in own]
    truth = [{"easy": np.setdiff1d(ids, i), "hard": [], "junk": [i]} for i, ids in enumerate(same)]
    both = x[asked], fit_lda(x[~asked], labels[~asked], SHRINKAGE).apply(x[asked], DIRECTIONS)
    parts = [*blocks(len(own), PAIRS // len(own))]  # of the asked pictures
    before, after = (metrics.evaluate((rank(y[part], y) for part in parts), truth).ap["easy"] for y in both)
    learned = fit_lda(x, labels, SHRINKAGE)
    weight = torch.from_numpy(learned.rows(DIRECTIONS).copy())  # (D', D)
    net.whitening = torch.nn.Linear(*weight.T.shape)
    net.whitening.load_state_dict({"weight": weight, "bias": -weight @ torch.from_numpy(learned.mean)})
    net.config |= {"descriptor_dim": len(weight), "normalize_pooled": True}
    file = save_checkpoint(out, net, {"preprocess": preprocess.to_dict(), "labels_file": Path(args.labels).name})
    print(f"learned from {len(x):,} pictures of {len(several):,} labels; --model {shown(str(file))} whitens by it")
    gain = paired_difference(after, before, own)
    points = f"{100 * gain.estimate:+.1f} [{100 * gain.ci_low:+.1f}, {100 * gain.ci_high:+.1f}] points"
    told = f"mAP {100 * np.nanmean(before):.1f} % without it, {100 * np.nanmean(after):.1f} % with it, {points}"
    print(f"learned from every second label and measured on the others: {told}")
