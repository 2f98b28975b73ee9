"""Rows, scores and tables: means and intervals of what was measured, whole files, nothing that is out of date."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssr_lib import significance
from ssr_lib.benchmark import Benchmark
from ssr_lib.study import provenance, rows
from ssr_lib.study.profile import load_profile
from ssr_lib.study.tables import mean_and_deviation, styled

RANDOM = np.random.default_rng(0)
SIX, FOUR = ["a", "a", "b", "b", "c", "c"], ["x", "x", "x", "x"]  # groups of queries


def measured(seeds=(0, 1, 2), groups=SIX, **key):
    key, frames = {"dataset": "drawn", "network": "plain"} | key, []
    queries = Benchmark("made", ".", [], groups, *3 * [[[]] * len(groups)], groups=groups)  # nothing is right
    for seed in seeds:
        values = {"medium": np.r_[0.5, np.nan, RANDOM.random(len(groups) - 2)], "hard": np.full(len(groups), np.nan)}
        frames.append(rows.per_query(values, queries, seed=seed, **key))
    return pd.concat(frames)


@pytest.fixture
def study(tmp_path):
    profile, folder = load_profile("smoke"), tmp_path / "smoke"
    return SimpleNamespace(profile=profile, results_dir=folder, notebook="05_ablation", source="smoke", written=set())


def test_scores_have_a_line_a_query_and_leave_out_difficulties_without_values():
    scores = measured(seeds=[3], chosen={"k": 2, "alpha": 1.0}, reranker="GFR")
    assert list(scores) == rows.SCORES and set(scores["difficulty"]) == {"medium"}
    assert scores["query"].tolist() == [0, 1, 2, 3, 4, 5] and scores["group"].tolist() == SIX
    assert set(scores["chosen"]) == {'{"alpha": 1.0, "k": 2}'}


def test_a_row_is_the_mean_with_its_interval_of_one_seed_and_of_all(study):
    scores = measured()
    rows.write(study, scores)
    table = rows.read_rows(study, "05_ablation")
    assert list(table) == rows.ROWS and table["seed"].isna().sum() == 1 and set(table["measure"]) == {"mAP"}
    values = rows.matrix(scores, network="plain").round(4).to_numpy()
    expected, overall = significance.mean_interval(values, SIX), table[table["seed"].isna()].iloc[0]
    assert overall["value"] == pytest.approx(np.nanmean(values), rel=1e-5) and overall["n"] == 5
    assert overall["low"] == pytest.approx(expected.ci_low, rel=1e-5)
    assert table["value"][:3].tolist() == pytest.approx(np.nanmean(values, axis=1), rel=1e-5)


def test_one_group_has_no_interval_and_what_the_profile_says_is_named(study):
    rows.write(study, pd.concat([measured([None], FOUR, network=name) for name in ("untrained", "colour histogram")]))
    table = rows.read_rows(study, "05_ablation")
    assert table[["low", "high"]].isna().all(axis=None) and table["value"].notna().all()
    assert table["spec"].str.len().tolist() == [8, 8] and table["spec"].nunique() == 2


def test_figures_stand_beside_scores_and_other_columns_are_refused(study):
    costs = pd.DataFrame({"reranker": ["GFR"], "measure": ["ms"], "value": [1.5]})
    rows.write(study, None, costs)
    table = rows.read_rows(study, "05_ablation")
    assert table["value"].tolist() == [1.5] and table["network"].tolist() == [""] and table["seed"].isna().all()
    with pytest.raises(ValueError, match="figures have columns unit; legal are dataset, network"):
        rows.write(study, None, costs.assign(unit="ms"))
    with pytest.raises(ValueError, match="duplicate keys"):
        rows.write(study, None, pd.concat([costs, costs]))


def test_scores_come_back_as_they_were_written_to_four_decimals_in_the_same_bytes_every_time(study):
    scores, contents = pd.concat([measured(), measured([None], FOUR, dataset="other", chosen={"k": 2})]), []
    for written in (measured(network="product"), scores, scores):
        rows.write(study, written)
        contents.append([path.read_bytes() for path in sorted(study.results_dir.glob("*/05_ablation.csv*"))])
    assert len(contents[0]) == 2 and contents[1] == contents[2]
    found, sort = rows.read_scores(study, "05_ablation"), {"by": [*rows.KEY, "query"], "ignore_index": True}
    pd.testing.assert_frame_equal(found.sort_values(**sort), scores.round({"value": 4}).sort_values(**sort))
    assert rows.groups(found, "other").tolist() == FOUR


def test_a_matrix_pairs_seeds_and_queries_and_wants_one_setting():
    scores = pd.concat([measured(), *(measured([0], reranker="GFR", chosen={"k": k}) for k in (1, 2))])
    assert rows.matrix(scores, network="plain").shape == (3, 6)
    with pytest.raises(ValueError, match=r'one setting of drawn, plain, GFR, .* there are \{"k": 1\}; \{"k": 2\}'):
        rows.matrix(scores, network="plain", reranker="GFR")


def test_rows_of_another_profile_or_notebook_are_refused_with_the_command(study, monkeypatch, capsys):
    def refused():
        with pytest.raises(ValueError, match=r"05_ablation\.csv is not there, or of another .*; run `ssr study"):
            rows.read_rows(study, "05_ablation")

    refused()
    rows.write(study, measured())
    monkeypatch.setattr(provenance, "commit", lambda: "another")
    study.profile = load_profile("smoke", {"reads.05_ablation": [], "report.table": "other"})  # makes no figure
    rows.read_rows(study, "05_ablation")
    assert "were made by commit" in capsys.readouterr().out, "another commit of the library is only named"
    made, study.profile = study.profile, load_profile("smoke", {"training.steps": 3})
    refused()
    study.profile = made
    monkeypatch.setattr(provenance, "source_of", lambda *notebook: ["other"])
    refused()


def test_means_over_queries_and_their_deviation_over_seeds_by_hand():
    lines = [("plain", 0, "medium", 0.1), ("plain", 0, "medium", 0.3), ("plain", 1, "medium", 0.4)]
    lines += [("plain", 1, "medium", np.nan), ("plain", 0, "hard", 0.5), ("plain", 1, "hard", 0.5)]
    lines += [("untrained", None, "medium", 0.25)]
    scores = pd.DataFrame(lines, columns=["network", "seed", "difficulty", "value"]).astype({"seed": "Int64"})
    table = mean_and_deviation(scores, ["network"])
    assert list(table) == ["network", "seeds", "medium", "hard"]
    assert table.iloc[0].tolist() == ["plain", 2, "30.0 ± 14.1", "50.0 ± 0.0"]  # 20 and 40: deviation 20 / √2
    assert table.iloc[1, :3].tolist() == ["untrained", 0, "25.0"]
    shown, again = (styled(pd.DataFrame({"mAP": [50.123, np.nan]})).to_html() for _ in range(2))
    assert "50.12" in shown and "50.123" not in shown and "nan" not in shown and shown == again
