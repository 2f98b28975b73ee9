"""Verdicts come from stored rows alone, and follow the rule that was fixed."""

import numpy as np
import pandas as pd
import pytest
from ssr_lib.study.run.run import claims, readings

from ssr_lib.benchmark import Benchmark
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import METHODS, apply_reranking, choose, grid, row_key
from ssr_lib.study.claims import CLAIMS, Cell

GROUPS = [f"landmark {i}" for i in range(40)]


def fill(study, shift, seeds=(0, 1, 2)):
    """Rows for every cell that a claim needs: the first cell of each is better than the second by `shift`."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, len(GROUPS))
    done = {}
    for claim in CLAIMS:
        for cell, extra in ((claim.second, 0.0), (claim.first, shift)):
            done.setdefault(cell, extra)
        if claim.beside:
            done.setdefault(claim.beside, 0.0)
    for variant in ("self-similarity", "neighbour"):
        done.setdefault(Cell(variant, experiment="claims"), 0.0)
    for cell, extra in done.items():
        for seed in seeds:
            model = study.model(cell.variant, seed, cell.regime)
            key = row_key(model, cell.experiment, {"dataset": "synthetic", "subset": cell.subset}, cell.rerank)
            ap = base + extra + rng.normal(0, 0.002, len(GROUPS))
            study.results.add_per_query(**key, difficulty=cell.difficulty, ap=ap, groups=GROUPS)


@pytest.fixture
def study(tmp_path):
    return Study("smoke", tmp_path)


def test_a_clear_gain_is_supported_and_a_clear_loss_refuted(study):
    fill(study, 0.05)
    table = claims.claims_table(study).set_index("comparison")
    primary = table.loc["Medium mAP, module − neighbour control"]
    assert primary["verdict"] == "supported" and primary["difference"] == pytest.approx(5, abs=0.2)
    assert primary["low"] < primary["difference"] < primary["high"]
    fill(study, -0.05)
    assert claims.claims_table(study).iloc[0]["verdict"] == "refuted"


def test_no_difference_is_not_shown_and_one_seed_carries_no_verdict(study, tmp_path):
    fill(study, 0.0)
    assert claims.claims_table(study).iloc[0]["verdict"] == "not shown"
    single = Study("smoke", tmp_path / "single")
    fill(single, 0.05, seeds=(0,))
    assert set(claims.claims_table(single)["verdict"]) == {"no verdict", "not tested here"}


def test_the_published_benchmarks_are_said_to_be_untested(study):
    fill(study, 0.0)
    assert claims.claims_table(study).iloc[-1]["verdict"] == "not tested here"


def test_the_share_kept_is_a_ratio_of_means(study):
    for variant, kept in (("self-similarity", 0.9), ("neighbour", 0.5)):
        for subset, factor in (("all", 1.0), ("reskinned", kept)):
            for seed in (0, 1):
                key = row_key(study.model(variant, seed), "claims", {"dataset": "synthetic", "subset": subset})
                study.results.add_per_query(
                    **key, difficulty="medium", ap=np.linspace(0.2, 0.8, 40) * factor, groups=GROUPS
                )
    claim = next(c for c in CLAIMS if "reskinned" in c.statistic)
    assert claims.share_kept(study, claim).estimate == pytest.approx(0.4)


def test_rows_that_are_missing_are_named(study):
    with pytest.raises(ValueError, match=r"no rows for .*run the notebook that measures experiment 'components' first"):
        claims.values(study, Cell())


def test_exactly_one_claim_is_primary():
    assert sum(claim.primary for claim in CLAIMS) == 1 and CLAIMS[0].primary


def test_a_grid_is_every_combination_in_a_fixed_order():
    assert grid({"k": [1, 2], "alpha": [0.1, 0.2]}) == [
        {"k": 1, "alpha": 0.1}, {"k": 1, "alpha": 0.2}, {"k": 2, "alpha": 0.1}, {"k": 2, "alpha": 0.2}
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ranks_every_image_once(method):
    rng = np.random.default_rng(1)
    queries, database = rng.standard_normal((3, 8), np.float32), rng.standard_normal((20, 8), np.float32)
    parameters = {
        "none": {},
        "aqe": {"k": 3},
        "ours": {"k": 3, "alpha": 0.5},
        "superglobal": {"k": 3, "beta": 0.15, "shortlist": 400},
    }
    ranks = apply_reranking(method, queries, database, parameters.get(method, {"k": 3, "exponent": 1.0}))[0]
    assert ranks.shape == (3, 20) and (np.sort(ranks, axis=1) == np.arange(20)).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="no re-ranking 'magic'"):
        apply_reranking("magic", np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), {})


def test_the_choice_is_the_best_trial_and_every_trial_is_logged(study, monkeypatch):
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((5, 16)).astype(np.float32)
    labels = np.repeat(np.arange(5), 6)
    database = (centres[labels] + 0.8 * rng.standard_normal((30, 16))).astype(np.float32)
    queries = (centres + 0.8 * rng.standard_normal((5, 16))).astype(np.float32)
    made = Benchmark(
        name="made", root=".", database=[f"{i}.jpg" for i in range(30)], queries=[f"q{i}.jpg" for i in range(5)],
        easy=[np.flatnonzero(labels == i) for i in range(5)], hard=[[]] * 5, junk=[[]] * 5,
    )  # fmt: skip
    monkeypatch.setattr(study, "benchmark", lambda *a, **k: made)
    monkeypatch.setattr(study, "descriptors", lambda *a, **k: (queries, database))
    chosen = choose(study, "ours")
    trials = study.results.frame(experiment="rerank", split="validation", rerank="ours")
    assert len(trials) == len(grid(study["rerank.candidates"]["ours"]))
    best = trials.loc[trials["value"].idxmax()]
    assert (chosen["k"], chosen["alpha"]) == (best["k"], best["alpha"])


def test_the_reading_of_differences_counts_what_excludes_zero():
    table = pd.DataFrame({
        "comparison": ["a − b", "a − c"], "difference": [2.0, 0.1], "low": [1.0, -1.0], "high": [3.0, 1.2], "seeds": [3, 3],
    })  # fmt: skip
    text = readings.read_differences(table)
    assert "1 of 2" in text and "a − b (+2.0)" in text and "other 1 no difference is shown" in text
    assert "0 of 1" in readings.read_differences(table[1:]) and "other" not in readings.read_differences(table[1:])
    text = readings.read_differences(table.assign(seeds=[1, 3]))
    assert "0 of 1" in text and "favour" not in text, "one training names no winner"
    assert "1 comparison rests on one training and carries no verdict" in text and "1 of them without 0" in text
