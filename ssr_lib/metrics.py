"""The protocol of the revisited benchmarks (Radenovic et al., CVPR 2018), and the other figures of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssr_lib.benchmark import LISTS, Benchmark

# The lists that are positives; ids of the other lists are ignored.
PROTOCOLS = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
GroundTruth = Benchmark | Sequence[Mapping]
Ranks = np.ndarray | torch.Tensor | Iterator[np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Figures of Q queries in [0, 1], keyed "easy", "medium", "hard"; NaN where there are no positives.

    `map`: mean AP. `mp`: mean precision at each place of `at`, (len(at),). `ap` (Q,), `precision` (Q, len(at)): the
    same for each query.
    """

    map: dict[str, float]
    mp: dict[str, np.ndarray]
    ap: dict[str, np.ndarray]
    precision: dict[str, np.ndarray]
    at: tuple[int, ...]


def _listed(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every listed image: query, database id, place of its list in LISTS; a query's own image is junk."""
    if isinstance(truth, Benchmark):
        own = [[i] if i >= 0 and i not in junk else [] for i, junk in zip(truth.query_ids, truth.junk, strict=True)]
        junk = [np.append(ids, mine).astype(np.int64) for ids, mine in zip(truth.junk, own, strict=True)]
        truth = [dict(zip(LISTS, lists, strict=True)) for lists in zip(truth.easy, truth.hard, junk, strict=True)]
    parts = [np.zeros((3, 0), np.int64)]
    for query, lists in enumerate(truth):
        if missing := [key for key in LISTS if key not in lists]:
            raise ValueError(f"query {query}: the ground truth lacks {missing}; an empty list says that there are none")
        for label, key in enumerate(LISTS):
            ids = np.asarray(lists[key]).reshape(-1)
            if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0):
                raise ValueError(f"query {query}: '{key}' holds {ids.min()} ({ids.dtype}); ids are integers from 0")
            part = np.full((3, len(ids)), [[query], [0], [label]])
            part[1] = ids
            parts.append(part)
    queries, ids, labels = np.concatenate(parts, axis=1)
    order = np.lexsort((ids, queries))
    twice = order[:-1][(np.diff(queries[order]) == 0) & (np.diff(ids[order]) == 0)]
    if len(twice):
        told = f"query {queries[twice[0]]}: id {ids[twice[0]]} is listed twice"
        raise ValueError(f"{told}; an image is positive or ignored, once")
    return queries, ids, labels


def _rankings(ranks: Ranks, truth: GroundTruth) -> Iterator[np.ndarray]:
    """The ranking (N,) of each query, its ids validated."""
    for part in ranks if isinstance(ranks, Iterator) else [ranks]:
        block = np.asarray(part.cpu() if isinstance(part, torch.Tensor) else part)
        if block.ndim != 2 or block.dtype.kind not in "iu":
            wanted = "wanted integers (queries, places), best first"
            raise ValueError(f"ranks are {block.dtype} of shape {block.shape}; {wanted}")
        told = f"ranks hold ids from {block.min(initial=0)} to {block.max(initial=0)}"
        if block.min(initial=0) < 0:
            raise ValueError(f"{told}; wanted ids from 0: rankings that end early are cut to one length, not filled up")
        if isinstance(truth, Benchmark) and block.max(initial=0) >= len(truth.database):
            raise ValueError(f"{told}; wanted 0 to {len(truth.database) - 1}")
        yield from block


def _places(ranks: Ranks, truth: GroundTruth, queries: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place from 0 of each listed image in its query's ranking, -1 where it is not there; the rankings' lengths."""
    places, lengths = np.full(len(ids), -1), []
    for query, ranking in enumerate(_rankings(ranks, truth)):
        table = np.full(1 + int(ranking.max(initial=0)), -1, dtype=np.int32)  # place of each id
        table[ranking] = np.arange(len(ranking), dtype=np.int32)
        if np.count_nonzero(table >= 0) < len(ranking):
            raise ValueError(f"the ranking of query {query} holds an id twice; it should hold each image once")
        mine = slice(*np.searchsorted(queries, (query, query + 1)))
        known = ids[mine] < len(table)
        places[mine][known] = table[ids[mine][known]]
        lengths.append(len(ranking))
    if len(lengths) != len(truth):
        told = f"the ground truth has {len(truth)} queries, the ranking {len(lengths)}"
        raise ValueError(f"{told}; one row for each is wanted")
    return places, np.array(lengths, np.int64)


def _positives(ranks: Ranks, truth: GroundTruth) -> dict[str, tuple[np.ndarray, ...]]:
    """For each protocol, with ignored images removed: query and place of the positives found, sorted; how many are
    listed (Q,); how many images are left in the ranking (Q,)."""
    queries, ids, labels = _listed(truth)
    places, lengths = _places(ranks, truth, queries, ids)
    order = np.lexsort((places, queries))
    order = order[places[order] >= 0]
    query, place, found = queries[order], places[order], {}
    for protocol, lists in PROTOCOLS.items():
        positive = np.isin(labels, [LISTS.index(key) for key in lists])
        hit, ignored = positive[order], ~positive[order]
        ignored_in = np.bincount(query[ignored], minlength=len(lengths))
        before = np.cumsum(ignored) - (np.cumsum(ignored_in) - ignored_in)[query]  # ignored ones up to here
        counts = np.bincount(queries[positive], minlength=len(lengths))
        found[protocol] = (query[hit], (place - before)[hit], counts, lengths - ignored_in)
    return found


def _trapezoids(order: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each positive's share of AP: mean of the precision before and at it; `order` and `places` count from 0."""
    return (np.where(places == 0, 1.0, order / np.maximum(places, 1)) + (order + 1) / (places + 1)) / 2


def average_precision(places_of_positives: Sequence[int], number_of_positives: int) -> float:
    """Trapezoidal AP from the places, from 0, of the positives found, ignored images not counted; NaN for no positives.

    `number_of_positives` counts those that were not found too. Raises `ValueError` for places that cannot be.
    """
    places = np.sort(np.asarray(places_of_positives).reshape(-1))
    if places.size and (places.dtype.kind not in "iu" or places[0] < 0 or (np.diff(places) == 0).any()):
        raise ValueError(f"places {places.tolist()} are not distinct integers from 0")
    if len(places) > number_of_positives:
        raise ValueError(f"{len(places)} places for {number_of_positives} positives; count those not found too")
    if not number_of_positives:
        return np.nan
    return float(_trapezoids(np.arange(len(places)), places.astype(np.int64)).sum() / number_of_positives)


def evaluate(ranks: Ranks, ground_truth: GroundTruth, at: Sequence[int] = (1, 5, 10)) -> Evaluation:
    """Mean average precision and precision at k by the Easy, Medium and Hard protocols.

    `ranks` (Q, N) or cut at M: database ids, best first; or an iterator over such blocks of queries, in their order,
    where the rankings of all would not fit into memory. `ground_truth`: a `Benchmark`, or for each query a mapping with
    "easy", "hard", "junk". Positives: easy; easy and hard; hard. The other listed images, and the query's own where a
    `Benchmark` names it, leave the ranking before places are counted. AP is trapezoidal and divides by all positives,
    found or not; P@k divides by min(k, place from 1 of the last positive found).
    Raises `ValueError` for ids listed or ranked twice or out of range. Source: Radenovic et al., CVPR 2018, section 3.
    """
    at = tuple(at)
    if any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in at):
        raise ValueError(f"at is {at}; wanted places from 1")
    maps, mps, aps, precisions = {}, {}, {}, {}
    for protocol, (query, place, listed, _) in _positives(ranks, ground_truth).items():
        n_queries, asked = len(listed), listed > 0
        found = np.bincount(query, minlength=n_queries)
        order = np.arange(len(query)) - (np.cumsum(found) - found)[query]  # 0, 1, … within each query
        last = np.zeros(n_queries, np.int64)
        last[query] = place  # sorted: the last one stays
        ap, precision = np.full(n_queries, np.nan), np.full((n_queries, len(at)), np.nan)
        ap[asked] = np.bincount(query, _trapezoids(order, place), minlength=n_queries)[asked] / listed[asked]
        for column, k in enumerate(at):
            depth = np.minimum(k, last + 1)
            hits = np.bincount(query, place < depth[query], minlength=n_queries)
            precision[asked, column] = (hits / depth)[asked]
        aps[protocol], precisions[protocol] = ap, precision
        maps[protocol] = float(ap[asked].mean()) if asked.any() else np.nan
        mps[protocol] = precision[asked].mean(axis=0) if asked.any() else np.full(len(at), np.nan)
    return Evaluation(maps, mps, aps, precisions, at)


def false_positives_at_r(ranks: Ranks, ground_truth: GroundTruth) -> dict[str, np.ndarray]:
    """Wrong images among each query's first R, (Q,) by protocol: R its number of positives, ignored images removed."""
    wrong = {}
    for protocol, (query, place, listed, length) in _positives(ranks, ground_truth).items():
        hits = np.bincount(query, place < listed[query], minlength=len(listed))
        wrong[protocol] = np.where(listed > 0, np.minimum(listed, length) - hits, np.nan)
    return wrong


def pair_auc(scores_positive: np.ndarray, scores_negative: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties half (area under the ROC); NaN where one is empty."""
    positive, negative = np.ravel(scores_positive), np.sort(scores_negative, axis=None)
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise ValueError("scores hold NaN; an AUC needs an order")
    if not len(positive) or not len(negative):
        return np.nan
    below, not_above = (np.searchsorted(negative, positive, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(negative)))


def _cosines(queries: np.ndarray, database: np.ndarray) -> np.ndarray:
    queries, database = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, database))
    return queries @ database.T


def auc_against(
    queries: np.ndarray, database: np.ndarray, positives: Sequence[np.ndarray], negatives: Sequence[np.ndarray]
) -> np.ndarray:
    """For each query the `pair_auc` of its cosines with two lists of database ids: (Q,), NaN where one is empty.

    On drawn landmarks: positives against "same_style", or "same_building" against "unrelated".
    """
    rows = zip(_cosines(queries, database), positives, negatives, strict=True)
    return np.array([pair_auc(row[np.asarray(p, np.int64)], row[np.asarray(n, np.int64)]) for row, p, n in rows])


def intra_inter_distances(queries: np.ndarray, database: np.ndarray, ground_truth: GroundTruth) -> dict[str, float]:
    """How far classes are apart: mean Euclidean distance of unit descriptors from queries to their positives (easy and
    hard) and to wrong images, the ratio of the two, and the AUC with which similarity tells such pairs apart."""
    if len(queries) != len(ground_truth):
        raise ValueError(f"the ground truth has {len(ground_truth)} queries; there are {len(queries)} descriptors")
    cosines = _cosines(queries, database)
    listed, ids, labels = _listed(ground_truth)
    positive = labels < LISTS.index("junk")
    wrong = np.ones(cosines.shape, bool)
    wrong[listed, ids] = False
    near, far = cosines[listed[positive], ids[positive]], cosines[wrong]
    intra, inter = (float(np.sqrt(np.maximum(2 - 2 * c, 0)).mean()) if len(c) else np.nan for c in (near, far))
    return {"intra": intra, "inter": inter, "intra / inter": intra / inter, "pair AUC": pair_auc(near, far)}
