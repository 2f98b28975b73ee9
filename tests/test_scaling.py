"""The notebooks of the profile `scaling`, on drawings made in seconds: they run, and their figures agree with each other."""

import pandas as pd
import pytest
from cities import table
from kernels import study_here

SMALL = {"13_when": {"right": [1, 2, 3], "neighbours": [1, 2, 3], "weights": [1.0], "lows": [0.7]}}
SMALL |= {"13a_when_tradeoff": {}, "13c_when_photographs": {}}
SMALL |= {"13b_when_module": {"growth": [0.5, 1], "places": [2], "shares": [0.0, 0.5]}}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(folder / "photographs"))
        pairs = [(300 + i // 2, i % 2, ("query", "db")[i % 2]) for i in range(24)]
        table(folder / "photographs" / "smvs_landmarks", pairs)
        table(folder / "photographs" / "train_landmarks", [(400 + i // 5, i % 5, "train") for i in range(10)])
        return study_here("scaling.yaml", folder, SMALL)


def test_every_setting_has_a_gain_for_every_number_of_right_pictures(done):
    table = pd.read_csv(done.results_dir / "tables" / "when_reranking.csv")
    assert table.groupby(["comparison", "R"]).size().eq(3 + 3 + 1).all() and set(table["R"]) == {1, 2, 3}
    assert set(table["comparison"]) == {f"drawn {which}, {net}" for which in "ABC" for net in ("untrained", "plain")}
    rule, trade = (pd.read_csv(done.results_dir / "tables" / f"when_{name}.csv") for name in ("rule", "tradeoff"))
    assert (rule["right"] <= rule["count"]).all() and len(rule) == 6
    full = trade[(trade["setting"] == "GFR, α = 1") & (trade["k"] == 3)]  # the yardstick
    assert len(trade) == 6 * (3 + 3 + 1) and full["kept"].eq(100).equals(full["low, R largest"] > 0)


def test_photographs_as_they_are_have_a_gain_for_every_setting(done):
    found = pd.read_csv(done.results_dir / "tables" / "when_measured.csv")
    assert found.groupby("descriptors").size().to_dict() == {"untrained": 7, "whitened": 7}
    assert set(found["set"]) == {"buildings"} and found["R"].eq(1).all() and found["queries"].eq(12).all()
    kept = done.read_scores("13c_when_photographs").query("network == 'untrained'")
    of_gfr = found.query("descriptors == 'untrained' and setting == 'GFR, α = 1'")["difference"]
    before, after = (kept[kept["reranker"] == name].groupby("chosen")["value"].mean() for name in ("none", "GFR"))
    assert [*of_gfr] == pytest.approx([*(100 * (after - before.item()))], abs=0.01)


def test_the_base_is_the_same_on_every_axis(done):
    rows = done.read_rows("13b_when_module").query("measure == 'mAP' and seed.notna()").set_index(["network", "seed"])
    base = [rows[rows["dataset"] == axis]["value"] for axis in ("training landmarks 8", "places a side 2")]
    assert len(base[0]) == 6 and base[0].equals(base[1])
    assert base[0].equals(rows[rows["dataset"] == "share restyled 0"]["value"])
