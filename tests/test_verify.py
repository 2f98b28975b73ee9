"""Verification: two runs beside each other, each figure against its tolerance."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from ssr_lib.study import verify

TRAINED = ["plain", "product"]
LINE = {"notebook": "05", "dataset": "drawn", "network": "plain", "reranker": "none", "difficulty": "medium"}
LINE |= {"measure": "mAP", "chosen": "", "seed": np.nan, "low": np.nan, "high": np.nan}


def frame(*lines: dict) -> pd.DataFrame:
    return pd.DataFrame([LINE | line for line in lines])


def trainings(values, **more) -> list[dict]:
    """A row of each training and the one over all of them."""
    seeds = [{"seed": seed, "value": value} | more for seed, value in enumerate(values)]
    return [*seeds, {"value": float(np.mean(values))} | more]


def agrees(first, second) -> list[bool]:
    return verify.compare(frame(*first), frame(*second), TRAINED)["agrees"].tolist()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([{"network": "untrained", "value": 0.5}], [{"network": "untrained", "value": 0.5009}], True),
        ([{"network": "untrained", "value": 0.5}], [{"network": "untrained", "value": 0.502}], False),
        (trainings([0.50, 0.50]), trainings([0.51, 0.505]), True),  # a point
        (trainings([0.50, 0.50]), trainings([0.52, 0.51]), False),
        (trainings([0.45, 0.55]), trainings([0.55, 0.65]), True),  # deviation 0.07: twice that is 0.14
        (trainings([0.45, 0.55]), trainings([0.65, 0.75]), False),
        ([{"value": 2.0, "low": -1.0, "high": 4.0}], [{"value": 4.4, "low": 0.0, "high": 5.0}], True),  # half: 2.5
        ([{"value": 1.0, "low": 0.0, "high": 1.0}], [{"value": 1.6, "low": 0.0, "high": 1.0}], False),
        ([{"value": np.nan}], [{"value": np.nan}], True),
        ([{"value": 0.5}], [{"value": np.nan}], False),
    ],
)
def test_a_figure_agrees_within_its_tolerance(first, second, same):
    assert agrees(first, second) == [same]


def test_a_single_training_gets_the_spread_of_its_kind():
    several, other = trainings([0.45, 0.55], network="product"), {"seed": 0, "value": 0.5}
    assert agrees([*several, other], [*several, other | {"value": 0.6}]) == [True, True]
    assert agrees([other], [other | {"value": 0.6}]) == [False], "without others of its kind a point"


def test_a_figure_of_one_run_only_does_not_agree_but_for_sweeps_around_another_choice():
    first = [{"value": 0.5}, {"value": 0.4, "network": "untrained"}]
    table = verify.compare(frame(*first), frame(first[0]), TRAINED)
    assert table["agrees"].tolist() == [True, False] and not verify.same_study(table)
    sweep = [{"value": 0.5, "reranker": "GFR", "chosen": f'{{"k": {k}}}'} for k in (1, 2, 3)]
    assert agrees(sweep[:2], sweep[1:]) == [True]
    assert agrees([sweep[0]], [sweep[1]]) == [True], "one setting, chosen anew"


def test_a_tenth_of_the_trained_figures_may_be_outside_by_chance_and_none_far():
    names = [f"m{i}" for i in range(20)]
    first = [{"measure": name, "value": 0.5} for name in names]

    def moved(count: int, by: float, **more) -> bool:
        second = [line | ({"value": 0.5 + by} if i < count else {}) | more for i, line in enumerate(first)]
        return verify.same_study(verify.compare(frame(*[line | more for line in first]), frame(*second), TRAINED))

    assert moved(2, 0.02) and not moved(3, 0.02)
    assert not moved(1, 0.2), "ten tolerances away"
    assert not moved(1, 0.002, network="untrained")


def test_times_and_other_arithmetic_are_another_machines_own(tmp_path):
    lines = [{"value": 1.0, "measure": measure} for measure in ("online ms a query", "offline s", "training s", "P@10")]
    lines.append({"value": 1.0, "chosen": '{"dtype": "bfloat16"}'})
    frame(*lines).drop(columns="notebook").to_csv(tmp_path / "08_cost.csv", index=False)
    assert verify._read(tmp_path)["measure"].tolist() == ["P@10"]
    with pytest.raises(FileNotFoundError, match="holds no rows; run `ssr study real` first"):
        verify._read(tmp_path / "real" / "rows")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with rows of `smoke`, and a run that makes those of `again.csv`."""
    rows = tmp_path / "results" / "smoke" / "rows"
    rows.mkdir(parents=True)
    frame({"value": 0.5, "network": "untrained"}).to_csv(rows / "05.csv", index=False)

    def run(profile, *, workspace, progress):
        target = workspace / "results" / profile / "rows"
        target.mkdir(parents=True, exist_ok=True)
        (workspace / "data" / "study").mkdir(parents=True, exist_ok=True)
        (target / "05.csv").write_bytes((tmp_path / "again.csv").read_bytes())
        return workspace / "results" / profile

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr(verify, "repository_root", lambda: tmp_path)
    (tmp_path / "again.csv").write_bytes((rows / "05.csv").read_bytes())
    return tmp_path


def test_verify_agrees_with_itself_and_finds_a_figure_that_moved(repository, capsys):
    assert verify.verify("smoke") == 0
    assert "1 figures of smoke, 0 outside: the study is reproduced" in capsys.readouterr().out
    frame({"value": 0.502, "network": "untrained"}).to_csv(repository / "again.csv", index=False)
    left = repository / "build" / "verify" / "data" / "cache" / "pictures"
    left.mkdir(parents=True)
    assert verify.verify("smoke") == 1
    printed = capsys.readouterr().out
    assert "0.502" in printed and "NOT reproduced" in printed
    assert not left.exists(), "a finished one starts from nothing"


def test_verify_compares_with_what_was_committed(repository, capsys):
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "results"], ["commit", "-qm", "rows"]):
        subprocess.run([*git, *command], check=True)
    frame({"value": 0.9}).to_csv(repository / "results" / "smoke" / "rows" / "05.csv", index=False)
    assert verify.verify("smoke") == 0, capsys.readouterr().out
