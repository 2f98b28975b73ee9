"""Whether two runs of the study agree: every figure of one beside the other's, each against its tolerance."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median, stdev

import pandas as pd

from ssr_lib.study.rows import FIGURE_KEY, Results, canonical_params

KEY = [column for column in FIGURE_KEY if column != "seed"]
CHOSEN = ("k", "alpha", "exponent", "beta", "shortlist", "weight")  # what a study may choose on validation


@dataclass(frozen=True)
class Tolerances:
    """How far a figure may move when the study runs again; figures above 1 by the same share of their size."""

    untrained: float = 0.001  # 0.1 point: the same arithmetic on another machine
    trained: float = 0.01  # 1 point: rounding grows over the steps of a training …
    deviations: float = 2.0  # … or twice the standard deviation over seeds, whichever is more
    queries: int = 3  # of mP@k: a near-tie that falls the other way moves it by 1/Q
    interval: float = 0.02  # of a difference between trained networks, at most; half its interval where that is less
    share: float = 0.1  # of trained figures that may be outside: two deviations leave out 1 in 20
    furthest: float = 10.0  # tolerances that no figure may be away
    not_compared: tuple[str, ...] = ("p_value", "p_holm")  # steep functions of differences that are compared themselves


def compare(first: Results, second: Results, tolerances: Tolerances | None = None) -> pd.DataFrame:
    """Set the figures of two runs side by side: trained ones as means over seeds, the others one by one.

    Returns columns: the key without `seed`, `n_seeds`, `first`, `second`, `difference`, `tolerance`, `agrees`, `note`,
    `trained` (whether a training, of which rounding makes another one elsewhere, stands behind the figure).
    Figures that only one run has do not agree; but where the runs chose other re-ranking parameters (figures equal but
    for `CHOSEN`) the two are compared and the note says so, and sweeps around another base point are left alone.
    """
    tolerances = tolerances or Tolerances()
    left, right = (_means(results.frame(), tolerances) for results in (first, second))
    pairs = [(key, key, "") for key in left if key in right]
    missing = _by_coarse_key(key for key in left if key not in right)
    new = _by_coarse_key(key for key in right if key not in left)
    rechosen = any(len(missing[c]) == len(new[c]) == 1 and c[0] != "sweep" for c in missing)
    for coarse in {**missing, **new}:
        ours, theirs = missing[coarse], new[coarse]
        if len(ours) == len(theirs) == 1 and coarse[0] != "sweep":
            pairs.append((ours[0], theirs[0], "other parameters were chosen"))
        elif coarse[0] != "sweep" or not rechosen:
            pairs += [(key, None, "only in the first run") for key in ours]
            pairs += [(None, key, "only in the second run") for key in theirs]
    rows = []
    for ours, theirs, note in pairs:
        value, tolerance, n_seeds, trained = left.get(ours) or (math.nan, math.nan, *right[theirs][2:])
        other = right[theirs][0] if theirs else math.nan
        both_nan = not note and math.isnan(value) and math.isnan(other)  # nothing to measure in either run
        agrees = both_nan or abs(other - value) <= tolerance + 1e-9
        rows.append((*(ours or theirs), n_seeds, value, other, other - value, tolerance, agrees, note, trained))
    columns = [*KEY, "n_seeds", "first", "second", "difference", "tolerance", "agrees", "note", "trained"]
    return pd.DataFrame(rows, columns=columns)


def same_study(table: pd.DataFrame, tolerances: Tolerances | None = None) -> bool:
    """Whether the figures that `compare` set side by side are those of one study.

    Every figure is in both runs, those without training agree, of the trained ones no more than `Tolerances.share` are
    outside their tolerance, which by chance alone some are, and none is further than `Tolerances.furthest` of them.
    """
    tolerances = tolerances or Tolerances()
    wrong = table[~table["agrees"]]
    if wrong[["first", "second"]].isna().any(axis=None) or not wrong["trained"].all():
        return False
    few = len(wrong) <= tolerances.share * table["trained"].sum()
    return bool(few and (wrong["difference"].abs() <= tolerances.furthest * wrong["tolerance"]).all())


def _means(frame: pd.DataFrame, tolerances: Tolerances) -> dict[tuple, tuple[float, float, int, bool]]:
    """Key → (mean over seeds, tolerance, number of seeds, whether trained) for every figure that is compared."""
    frame = frame[~frame["metric"].isin(tolerances.not_compared)]
    frame = frame[~frame["params"].str.contains('"changed":"dtype')]  # arithmetic in bfloat16 is the machine's own
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        groups[tuple(row[column] for column in KEY)].append(row)
    values = {key: [math.nan if row["value"] is None else row["value"] for row in rows] for key, rows in groups.items()}
    # A single training has no spread of its own: it gets the typical one of figures of its kind.
    kind = lambda key: tuple(key[KEY.index(c)] for c in ("dataset", "split", "subset", "metric", "difficulty"))
    statistic = lambda key: tuple(key[KEY.index(c)] for c in ("metric", "difficulty"))  # where a kind has none
    spreads: dict[tuple, list[float]] = defaultdict(list)
    for key, several in values.items():
        if len(several) > 1:
            for name in (kind(key), statistic(key)):
                spreads[name].append(stdev(several))
    typical = lambda key: median(spreads.get(kind(key)) or spreads.get(statistic(key)) or [0.0])
    means = {}
    for key, rows in groups.items():
        n_seeds = sum(row["seed"] is not None for row in rows)
        mean = fmean(values[key])
        if n_seeds:
            spread = stdev(values[key]) if n_seeds > 1 else typical(key)
            tolerance = max(tolerances.trained, tolerances.deviations * spread)
        elif '"seeds":' in rows[0]["params"]:  # over several trainings: their spread where they stand beside it
            half = typical(key) if rows[0]["ci_low"] is None else (rows[0]["ci_high"] - rows[0]["ci_low"]) / 2
            own = values.get(_of_each_seed(key))
            spread = stdev(own) * tolerances.deviations if own and len(own) > 1 else min(half, tolerances.interval)
            tolerance = max(tolerances.trained, spread)
        else:
            tolerance = tolerances.untrained
        if rows[0]["metric"].startswith("mP@") and rows[0]["n_queries"]:
            tolerance = max(tolerance, tolerances.queries / rows[0]["n_queries"])
        trained = bool(n_seeds) or '"seeds":' in rows[0]["params"]
        means[key] = (mean, tolerance * max(1.0, abs(mean)), n_seeds, trained)
    return means


def _of_each_seed(key: tuple) -> tuple:
    """The key of the single trainings behind a figure over several."""
    params = {name: value for name, value in json.loads(key[KEY.index("params")]).items() if name != "seeds"}
    return tuple(
        canonical_params(params) if column == "params" else cell for column, cell in zip(KEY, key, strict=True)
    )


def _by_coarse_key(keys: Iterable[tuple]) -> dict[tuple, list[tuple]]:
    """Keys grouped by what they share when the parameters that a study chooses are left out."""
    groups: dict[tuple, list[tuple]] = defaultdict(list)
    for key in keys:
        cells = {column: cell for column, cell in zip(KEY, key, strict=True) if column not in CHOSEN}
        params = json.loads(cells["params"])
        cells["params"] = canonical_params({name: value for name, value in params.items() if name not in CHOSEN})
        groups[tuple(cells.values())].append(key)
    return groups
