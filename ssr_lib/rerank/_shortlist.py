"""What the re-rankers that look at pairs of pictures share: the walk over shortlists, and pairs to train on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ssr_lib.rerank._ranking import Ranking, Reranking, check_shortlist, nearest
from ssr_lib.search import prepare


def reorder(
    first: Ranking, shortlist: int | None, extract: Callable[[], Sequence], stored: Sequence, score, each: float
) -> Reranking:
    """The ranking after the first `shortlist` images (400 or N unless given) of each query were scored again.

    `extract` makes what is compared of all queries, `stored` is that of the database, of `each` bytes a picture;
    `score`: a query's number, what is compared of it, ids (m,) and their scores until now (m,) → new scores (m,).
    Of equal scores the first ranking's order stays, and so do order and scores behind the shortlist. A query's own
    image, at −inf, is not looked at and stays last. `cost`: seconds_per_query (scores), seconds_per_image (`extract`),
    bytes_per_image. Raises `ValueError` where the rankings are not of so many queries and images.
    """
    started = time.perf_counter()
    asked = extract()
    extracted = time.perf_counter()
    ranks, scores = (np.array(torch.as_tensor(part).cpu()) for part in (first.ids, first.scores))
    if ranks.ndim != 2 or len(ranks) != len(asked) or ranks.max(initial=0) >= len(stored):
        told = f"{len(asked)} queries and {len(stored)} images"
        raise ValueError(f"rankings are {ranks.shape}, with ids up to {ranks.max(initial=0)}; there are {told}")
    m, scores = check_shortlist(shortlist, ranks.shape[1]), scores.astype(np.float64)
    for i, own in enumerate(asked):
        looked_at = scores[i, :m] > -np.inf
        found = np.full(m, -np.inf)
        if looked_at.any():
            found[looked_at] = score(i, own, ranks[i, :m][looked_at], scores[i, :m][looked_at])
        order = np.argsort(-found, kind="stable")
        ranks[i, :m], scores[i, :m] = ranks[i, order], found[order]
    cost = {"seconds_per_query": (time.perf_counter() - extracted) / max(1, len(asked))}
    cost |= {"seconds_per_image": (extracted - started) / max(1, len(asked)), "bytes_per_image": float(each)}
    return Reranking(ranks.astype(np.int64), scores, cost=cost)


def learn_pairs(model: nn.Module, logits: Callable[..., torch.Tensor], pairs: Iterator, rate: float) -> None:
    """Train `model`, left in evaluation mode, by binary cross-entropy on `training_pairs`; `logits`: of their ids."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for asked, images, same in pairs:
        loss = F.binary_cross_entropy_with_logits(logits(asked, images), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def training_pairs(
    descriptors: np.ndarray, labels: Sequence, steps: int, batch: int, shortlist: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """For each step ids of queries and of images, (2 · batch,) each, and whether they show one landmark, 0.0 or 1.0.

    A query has an image of its landmark and one of another, both from its own shortlist among the training pictures
    by `descriptors` (N, D); where that has none, from all. Raises `ValueError` where no landmark has two pictures.
    """
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    usable = np.flatnonzero(np.bincount(classes)[classes] > 1)
    if len(usable) == 0 or classes.max() == 0:
        raise ValueError(f"{len(classes)} pictures of {len(set(classes))} landmarks make no pairs of both kinds")
    x, everyone = prepare(descriptors), torch.arange(len(classes))
    near = nearest(x, x, min(shortlist, len(classes) - 1), everyone.to(x.device))[1].cpu().numpy()  # (N, m)
    rng = np.random.default_rng([seed, 5])
    same = torch.tensor([1.0, 0.0]).repeat(batch)
    for _ in range(steps):
        asked = rng.choice(usable, batch, replace=len(usable) < batch)
        images = []
        for i in asked:
            for is_right in (True, False):
                own = near[i][(classes[near[i]] == classes[i]) == is_right]
                if len(own) == 0:
                    own = np.flatnonzero((classes == classes[i]) == is_right)
                    own = own[own != i]
                images.append(rng.choice(own))
        yield asked.repeat(2), np.array(images), same
