"""DQE, discriminative query expansion: a linear classifier learns what the first images have and the last do not.

    q̂ = w of the support vector machine that tells the query and its k nearest images from the last of the ranking

and the database is ranked by w · x. Source: Arandjelović & Zisserman, CVPR 2012, section 3, which takes 200 negatives:
reference [28] of the paper. There the positives are the images that geometry verified; here they are the nearest.
"""

from __future__ import annotations

import numpy as np
import torch

from ssr_lib.rerank._ranking import Ranking, Reranking, check_number, first_ranking, rank_again
from ssr_lib.search.prepared import as_pair, check_integer, own_ids
from ssr_lib.search.prepared import prepare as prepare_rows

NEEDS = "descriptors"


def classifier(positives: np.ndarray, negatives: np.ndarray, c: float) -> np.ndarray:
    """w (D,) of a linear support vector machine with penalty c, the two sides weighing the same in all."""
    from sklearn.svm import SVC  # a second to import

    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    machine = SVC(kernel="linear", C=c, class_weight="balanced").fit(np.concatenate([positives, negatives]), labels)
    return machine.coef_[0]


@torch.no_grad()
def rerank(
    queries, database, first: Ranking | None, *, prepared=None, k: int, negatives: int = 200, c: float = 1.0
) -> Reranking:
    """The ranking of the database (N, D) by the classifiers of the queries (Q, D).

    `negatives`: so many last images of the first ranking, but no more than half of them; `c`: the penalty for training
    examples on the wrong side. Raises `ValueError` as `search.knn`, and for a k of more than half of the database.
    """
    q, d = as_pair(queries, database)
    first = first_ranking(q, d) if first is None else first
    check_number(c, "c")
    ids, scores = (torch.as_tensor(part, device=q.device) for part in (first.ids, first.scores))
    ranked = [images[kept] for images, kept in zip(ids, scores > -torch.inf, strict=True)]
    half = min(map(len, ranked)) // 2
    check_integer(k, "k", 1, half, "half of the images in a ranking")
    check_integer(negatives, "negatives", 1, 2**31, "the last images of a ranking")
    w = np.empty((len(q), d.data.shape[1]), np.float32)
    for i, ids in enumerate(ranked):
        right, wrong = (d.unit(part).cpu().numpy() for part in (ids[:k], ids[-min(negatives, half) :]))
        w[i] = classifier(np.concatenate([q.unit(slice(i, i + 1)).cpu().numpy(), right]), wrong, c)
    return rank_again(prepare_rows(q.like(torch.from_numpy(w)), device=q.device), d, own_ids(first.own, q, d))
