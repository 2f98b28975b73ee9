"""`ssr evaluate`: mAP of a labelled set of pictures, or of a benchmark in the revisited form, before and after re-ranking."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
import zlib
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.commands.search import check_k, extraction_options, load_net, note
from ssr_lib.datasets.folder import read_label_rows, read_labels
from ssr_lib.datasets.revisited import (
    OFFICIAL,
    check_distractors,
    read_distractors,
    read_ground_truth,
    with_distractors,
)
from ssr_lib.extract import extract, extract_benchmark
from ssr_lib.files import digest
from ssr_lib.rerank import Reranking, global_rerank, superglobal_rerank
from ssr_lib.rerank.global_rerank import check_number, check_shortlist
from ssr_lib.search import rank
from ssr_lib.store import stacked

AT = (1, 5, 10)
LONG = 1000  # pictures from which on it is worth a word that descriptors are not kept


def evaluate(args: Namespace) -> int:
    """Print mAP and mP@1, 5, 10 of a labelled set, without and with re-ranking."""
    check_number(args.alpha, "--alpha")
    described = benchmark = _benchmark(args)
    names = read_distractors(args.distractors) if args.distractors else []
    if names:
        check_distractors(args.distractors, names)  # before anything is described
        benchmark = with_distractors(benchmark, names, args.distractors)
    if not args.index and not args.features and len(benchmark.database) > LONG:
        note(
            f"{len(benchmark.database):,} pictures: --index DIR would keep their descriptors for an interrupted or a second run"
        )
    own = np.array(benchmark.query_ids) if max(benchmark.query_ids) >= 0 else None
    k = _neighbours(args, len(benchmark.database), own)
    with nullcontext(args.index) if args.index else tempfile.TemporaryDirectory(prefix="ssr-") as directory:
        if args.features:
            (queries, database), made_by = read_features(Path(args.features), benchmark), {"features": args.features}
        else:
            queries, database, made_by = _described(args, described, names, Path(directory))
        before = metrics.evaluate(rank(queries, database, exclude=own), benchmark, at=AT)
        reranked, parameters = _rerank(args, queries, database, k, own)
        after = metrics.evaluate(reranked.ranks, benchmark, at=AT)
        del queries, database, reranked  # they map files of the folder that goes away
    graded = any(len(ids) for lists in (benchmark.hard, benchmark.junk) for ids in lists)
    difficulties = ("easy", "medium", "hard") if graded else ("medium",)
    results = {
        "without re-ranking": {d: _figures(before, d) for d in difficulties},
        "with re-ranking": {d: _figures(after, d) for d in difficulties},
    }
    if args.json:
        print(json.dumps({
            "benchmark": benchmark.name, "queries": len(benchmark), "groups": len(set(benchmark.groups)),
            "database": len(benchmark.database), **made_by, "rerank": args.rerank, **parameters,
            "unit": "fraction", "results": results,
        }, indent=1))  # fmt: skip
    else:
        _print_results(benchmark, results, ", ".join(f"{name} = {value}" for name, value in parameters.items()))
    return 0


def _benchmark(args: Namespace) -> Benchmark:
    if (args.labels is None) == (args.ground_truth is None):
        raise ValueError("name either a LABELS.csv or a --ground-truth FILE.pkl")
    if args.features and (args.distractors or args.images or args.labels):
        raise ValueError("--features stands for the pictures of a --ground-truth: leave out --images and --distractors")
    if args.ground_truth is not None:
        stored = Path(args.ground_truth).suffix == ".json"
        if stored and args.images is not None:
            raise ValueError(f"{args.ground_truth} says where its pictures lie: leave out --images")
        if args.images is None and args.features is None and not stored:
            raise ValueError("--ground-truth wants --images DIR, the folder of its pictures, or --features FILE")
        if stored:
            return _stored(args.ground_truth)
        benchmark = read_ground_truth(args.ground_truth, args.images, subset=True)
        if benchmark.name not in {official.name for official in OFFICIAL}:
            note(f"{args.ground_truth} is not a published ground truth; compare its figures only with each other")
        return benchmark
    return _labelled(args)


def _stored(path: str) -> Benchmark:
    benchmark = Benchmark.load(path)
    if not benchmark.queries or not benchmark.database:
        raise ValueError(
            f"{path} has {len(benchmark)} queries and {len(benchmark.database)} database pictures; "
            "one or more of each is wanted"
        )
    return benchmark


def _labelled(args: Namespace) -> Benchmark:
    n_training = sum(row.split == "train" for row in read_label_rows(args.labels))
    if n_training:
        note(f"{n_training:,} rows with split 'train' are left out")
    benchmark = read_labels(args.labels, args.images, on_lonely="keep")
    lonely = [name for name, ids in zip(benchmark.queries, benchmark.easy, strict=True) if len(ids) == 0]
    if lonely:
        note(f"{len(lonely)} queries have no picture of their label in the database and no part in the means: "
             + ", ".join(lonely))  # fmt: skip
    return benchmark


def _described(
    args: Namespace, benchmark: Benchmark, distractors: list[str], directory: Path
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Descriptors of queries (Q, D) and database (N, D), the distractors behind it, and what made them."""
    options = extraction_options(args)
    net, preprocess = load_net(args)
    queries, database = extract_benchmark(net, benchmark, preprocess, directory, **options)
    if distractors:
        behind = extract(net, distractors, preprocess, directory / "distractors", root=args.distractors, **options)
        name = digest([distractors, benchmark.database])[:16]
        database = stacked(directory / f"database-{name}.npy", (database, behind))
    return queries, database, {"model": args.model, "preprocess": preprocess.to_dict()}


def read_features(path: Path, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Stored descriptors of queries (Q, D) and database (N, D), float32, from a .mat or .npz with Q (D, Q) and X (D, N).

    Raises `ValueError` naming the file where it holds something else, or not one column for each picture.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored = (
            loadmat(path, variable_names=("Q", "X")) if path.suffix == ".mat" else np.load(path, allow_pickle=False)
        )
        arrays = [np.asarray(stored[name]) for name in ("Q", "X")]
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, EOFError, NotImplementedError, MatReadError,
            zipfile.BadZipFile, zlib.error, OSError) as error:  # fmt: skip
        raise ValueError(f"{path} holds no arrays Q and X: {str(error).partition(chr(10))[0]}") from error
    for name, array, wanted in zip("QX", arrays, (len(benchmark), len(benchmark.database)), strict=True):
        if array.ndim != 2 or array.shape[1] != wanted or array.dtype.kind != "f":
            raise ValueError(f"{path}: {name} is {array.dtype} {array.shape}; wanted floats (dimension, {wanted})")
    return tuple(np.ascontiguousarray(array.T, dtype=np.float32) for array in arrays)


def _shortlist(n_database: int, own) -> int:
    return check_shortlist(None, n_database - (own is not None))


def _neighbours(args: Namespace, n_database: int, own) -> int:
    """How many neighbours, checked before anything is described by the rules of the re-ranking that is asked for."""
    if args.rerank == "superglobal":
        return check_k(args.k, n_database - 1, 9)
    if args.distractors:
        return check_k(args.k, _shortlist(n_database, own) - 1, among="shortlist")
    return check_k(args.k, n_database - 1)


def _rerank(args: Namespace, queries, database, k: int, own) -> tuple[Reranking, dict]:
    """The re-ranking that is asked for, and its parameters by name."""
    shortlist = _shortlist(len(database), own)
    if args.rerank == "superglobal":
        parameters = {"k": k, "beta": 0.15, "shortlist": shortlist}
        return superglobal_rerank(queries, database, shortlist, k, 0.15, query_ids=own), parameters
    parameters = {"k": k, "alpha": args.alpha}
    if args.distractors:  # the database side of a million pictures would cost a search for each of them
        within = {"neighbourhood": "shortlist", "shortlist": shortlist}
        return global_rerank(queries, database, k, args.alpha, query_ids=own, **within), parameters | within
    return global_rerank(queries, database, k, args.alpha, query_ids=own), parameters


def _figures(evaluation: metrics.Evaluation, difficulty: str) -> dict[str, float | None]:
    values = [evaluation.map[difficulty], *evaluation.mp[difficulty]]
    names = ["mAP", *(f"mP@{k}" for k in evaluation.at)]
    return {name: None if math.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _print_results(benchmark: Benchmark, results: dict, parameters: str) -> None:
    print(
        f"{benchmark.name}: {len(benchmark):,} queries in {len(set(benchmark.groups)):,} groups, "
        f"{len(benchmark.database):,} database pictures; re-ranking with {parameters}\n"
    )
    names = ["mAP", *(f"mP@{k}" for k in AT)]
    graded = len(next(iter(results.values()))) > 1
    print(f"{'per cent':27s}" + "".join(f"{name:>8s}" for name in names))
    for title, by_difficulty in results.items():
        for difficulty, values in by_difficulty.items():
            label = f"{title}, {difficulty.title()}" if graded else title
            figures = ("      --" if values[n] is None else f"{100 * values[n]:8.2f}" for n in names)
            print(f"{label:27s}" + "".join(figures))
