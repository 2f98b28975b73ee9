"""For a folder of one's own: a re-ranker by its name with parameters that fit, and whether it can help a query."""

from __future__ import annotations

import inspect
import math
from types import ModuleType

import numpy as np

from ssr_lib.files import load_part, one_line

# Where a re-ranker has none of its own. k: a folder holds few pictures of a thing; exponent: Radenović et al. 2019.
USUAL = {"k": 2, "alpha": 0.3, "exponent": 3.0}
LARGEST_ALPHA = 1000.0  # beyond, a picture's own feature has no part in the sum
SHARE = 0.7  # of what the best of unrelated images should reach; the same as in `adaptive`
NO_GROUP = "no group of similar photographs here: re-ranking changes little or harms"  # where fewer than k stand out


def standing_out(similarity: np.ndarray) -> int:
    """How many of n images stand out from the background of one query's similarities to them, (n,).

    They are above μ + 0.7 √(2 ln n) σ, where μ and σ are the mean and the deviation of all n: √(2 ln n) deviations is
    what the best of n unrelated images should reach. Where fewer than k stand out, neighbours may be there by chance.
    """
    reach = math.sqrt(2 * math.log(max(len(similarity), 2)))
    return int((similarity > similarity.mean() + SHARE * reach * similarity.std()).sum())


def choose_reranker(name: str, others: int, **given: float | None) -> tuple[ModuleType, dict[str, int | float]]:
    """The re-ranker `name` of descriptors, and its parameters where an image has so many `others` to choose from.

    `given`: `k`, `alpha`, None for the usual one. Raises `ValueError` for what does not go together.
    """
    part, chosen = load_part(name, "rerank"), {}
    if getattr(part, "NEEDS", "descriptors") != "descriptors":
        raise ValueError(f"re-ranker {name} compares {part.NEEDS}; one for descriptors is wanted, such as gfr")
    taken = inspect.signature(part.rerank)
    takes = {key: parameter.default for key, parameter in taken.parameters.items()}
    if "parameters" in takes:  # those of GFR, by keyword
        takes |= {"k": inspect.Parameter.empty, "alpha": inspect.Parameter.empty}
    for key, usual in USUAL.items():
        value = given.get(key)
        if value is not None and key not in takes:
            raise ValueError(f"{key} = {value}: {name} has no {key}; leave it out")
        if key in takes:
            default = usual if takes[key] in (inspect.Parameter.empty, None) else takes[key]
            chosen[key] = default if value is None else value
    if "in_graph" in takes:
        chosen["in_graph"] = False  # so that no query has a part in the ranking of another
    if "k" in chosen and others < 1:
        raise ValueError("one database image has no others to choose from; leave re-ranking out (--rerank none)")
    if given.get("k") is None and "k" in chosen:
        chosen["k"] = min(chosen["k"], others)
    if "k" in chosen and not 1 <= chosen["k"] <= others:
        wanted = f"1 to {others}, as many others as each picture has to choose from"
        raise ValueError(f"k = {chosen['k']}: wanted is {wanted}")
    if not 0 <= chosen.get("alpha", 0) <= LARGEST_ALPHA:  # NaN is not, either
        raise ValueError(f"alpha = {chosen['alpha']:g}: a number from 0 to {LARGEST_ALPHA:g} is wanted")
    with one_line(f"re-ranker {name} wants more than queries, database, k and alpha, so it runs in the study only"):
        taken.bind(None, None, None, **chosen)
    return part, chosen
