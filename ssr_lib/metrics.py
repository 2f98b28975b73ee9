"""The protocol of the revisited benchmarks (Radenović et al., CVPR 2018), and the other figures of the study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssr_lib.benchmark import LISTS, Benchmark

# The lists that are positives; ids of the other lists are ignored.
PROTOCOLS = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
GroundTruth = Benchmark | Sequence[Mapping]
Ranks = np.ndarray | torch.Tensor | Iterator[np.ndarray]
NOWHERE = np.iinfo(np.int32).max  # the place of an image that is not in a ranking


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


def _listed(truth: GroundTruth, query: int) -> tuple[np.ndarray, np.ndarray]:
    """The database ids that a query lists, its own as junk, and for each the place of its list in LISTS."""
    if isinstance(truth, Benchmark):
        lists, own = [getattr(truth, key)[query] for key in LISTS], truth.query_ids[query]
        if own >= 0:
            lists[2] = np.union1d(lists[2], [own])
    else:
        lists = [np.asarray(truth[query][key]).reshape(-1) for key in LISTS]
    for key, ids in zip(LISTS, lists, strict=True):
        if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0):
            raise ValueError(f"query {query}: '{key}' holds {ids.min()} ({ids.dtype}); ids are integers from 0")
    ids = np.concatenate(lists).astype(np.int64)
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise ValueError(f"query {query}: id {twice[0]} is listed twice; an image is positive or ignored, once")
    return ids, np.repeat(np.arange(len(LISTS)), [len(part) for part in lists])


def _rankings(ranks: Ranks, truth: GroundTruth) -> Iterator[np.ndarray]:
    """The ranking (N,) of each query, its ids validated."""
    end = len(truth.database) if isinstance(truth, Benchmark) else NOWHERE
    count = 0
    for part in ranks if isinstance(ranks, Iterator) else [ranks]:
        block = np.asarray(part.cpu() if isinstance(part, torch.Tensor) else part)
        if block.ndim != 2 or block.dtype.kind not in "iu":
            raise ValueError(f"ranks are {block.dtype} of shape {block.shape}; wanted integers (queries, places)")
        low, high = block.min(initial=0), block.max(initial=0)
        if low < 0 or high >= end:
            wanted = f"wanted 0 to {end - 1}: rankings that end early are cut to one length, not filled up"
            raise ValueError(f"ranks hold ids from {low} to {high}; {wanted}")
        yield from block[: max(0, len(truth) - count)]
        count += len(block)
    if count != len(truth):
        raise ValueError(f"the ground truth has {len(truth)} queries, the ranking {count}; one row for each is wanted")


def _positives(ranks: Ranks, truth: GroundTruth) -> Iterator[tuple]:
    """For each protocol: its name; which of the R listed images are positives that were found, and their places with
    ignored images removed, else 0, (Q, R); how many positives are listed, how many images are left to rank, (Q,)."""
    rows, lengths = [], []
    for query, ranking in enumerate(_rankings(ranks, truth)):
        table = np.full(2 + int(ranking.max(initial=0)), NOWHERE, np.int32)  # place of each id; the last is of none
        table[ranking] = np.arange(len(ranking), dtype=np.int32)
        if np.count_nonzero(table < NOWHERE) < len(ranking):
            raise ValueError(f"the ranking of query {query} holds an id twice; it should hold each image once")
        ids, labels = _listed(truth, query)
        places = table[np.minimum(ids, len(table) - 1)]
        order = places.argsort()
        rows.append((places[order], labels[order]))
        lengths.append(len(ranking))
    shape = len(rows), max([1, *(len(labels) for _, labels in rows)])  # (Q, R)
    places, labels = np.full(shape, NOWHERE, np.int64), np.full(shape, -1)
    for query, (place, label) in enumerate(rows):
        places[query, : len(place)] = place
        labels[query, : len(label)] = label
    found = places < NOWHERE
    for protocol, lists in PROTOCOLS.items():
        positive = np.isin(labels, [LISTS.index(key) for key in lists])
        ignored = found & ~positive
        place = np.where(found & positive, places - ignored.cumsum(axis=1), 0)
        yield protocol, found & positive, place, positive.sum(axis=1), lengths - ignored.sum(axis=1)


def _trapezoids(order: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each positive's share of AP: mean of the precision before and at it; `order` and `places` count from 0."""
    return (np.where(places == 0, 1.0, order / np.maximum(places, 1)) + (order + 1) / (places + 1)) / 2


def average_precision(places_of_positives: Sequence[int], number_of_positives: int) -> float:
    """Trapezoidal AP from the places, from 0, of the positives found, ignored images not counted; NaN for no positives.

    `number_of_positives` counts those that were not found too. Raises `ValueError` for places that cannot be.
    """
    places = np.sort(np.asarray(places_of_positives).reshape(-1))
    fit = len(np.unique(places)) == len(places) and len(places) <= number_of_positives
    if places.size and (places.dtype.kind not in "iu" or places[0] < 0 or not fit):
        wanted = f"distinct ones from 0 for {number_of_positives} positives are wanted"
        raise ValueError(f"places are {places.tolist()}; {wanted}")
    total = _trapezoids(np.arange(len(places)), places.astype(np.int64)).sum()
    return float(total / number_of_positives) if number_of_positives else np.nan


def evaluate(ranks: Ranks, ground_truth: GroundTruth, at: Sequence[int] = (1, 5, 10)) -> Evaluation:
    """Mean average precision and precision at k by the Easy, Medium and Hard protocols.

    `ranks` (Q, N) or cut at M: database ids, best first; or an iterator over such blocks of queries, in their order,
    where the rankings of all would not fit into memory. `ground_truth`: a `Benchmark`, or for each query a mapping with
    "easy", "hard", "junk". Positives: easy; easy and hard; hard. The other listed images, and the query's own where a
    `Benchmark` names it, leave the ranking before places are counted. AP is trapezoidal and divides by all positives,
    found or not; P@k divides by min(k, place from 1 of the last positive found).
    Raises `ValueError` for ids listed or ranked twice or out of range. Source: Radenović et al., CVPR 2018, section 3.
    """
    if any(k < 1 or k % 1 for k in at):
        raise ValueError(f"at is {', '.join(map(str, at))}; wanted are places from 1")
    maps, mps, aps, precisions = {}, {}, {}, {}
    for protocol, hit, place, listed, _ in _positives(ranks, ground_truth):
        asked = listed > 0
        shares = np.where(hit, _trapezoids(hit.cumsum(axis=1) - 1, place), 0.0)
        aps[protocol] = shares.cumsum(axis=1)[:, -1] / np.where(asked, listed, np.nan)
        depth = np.minimum(at, 1 + place.max(axis=1, keepdims=True))  # (Q, len(at))
        hits = (hit[:, None] & (place[:, None] < depth[:, :, None])).sum(axis=2)
        precisions[protocol] = hits / np.where(asked[:, None], depth, np.nan)
        maps[protocol] = float(aps[protocol][asked].mean()) if asked.any() else np.nan
        mps[protocol] = precisions[protocol][asked].mean(axis=0) if asked.any() else np.full(len(at), np.nan)
    return Evaluation(maps, mps, aps, precisions)


def false_positives_at_r(ranks: Ranks, ground_truth: GroundTruth) -> dict[str, np.ndarray]:
    """Wrong images among each query's first R, (Q,) by protocol: R its number of positives, ignored images removed."""
    wrong = {}
    for protocol, hit, place, listed, length in _positives(ranks, ground_truth):
        hits = (hit & (place < listed[:, None])).sum(axis=1)
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
    cosines = _cosines(queries, database)
    listed = [_listed(ground_truth, query) for query in range(len(ground_truth))]  # ids and labels
    right = [ids[labels < LISTS.index("junk")] for ids, labels in listed]
    near = np.concatenate([row[ids] for row, ids in zip(cosines, right, strict=True)])
    far = np.concatenate([np.delete(row, ids) for row, (ids, _) in zip(cosines, listed, strict=True)])
    intra, inter = (float(np.sqrt(np.maximum(2 - 2 * c, 0)).mean()) if len(c) else np.nan for c in (near, far))
    return {"intra": intra, "inter": inter, "intra / inter": intra / inter, "pair AUC": pair_auc(near, far)}
