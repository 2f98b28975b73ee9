"""Verification: two runs beside each other, each figure against its tolerance."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from ssr_lib.commands.main import main
from ssr_lib.files import write_atomic
from ssr_lib.study import verify

LINE = {"notebook": "05", "dataset": "drawn", "network": "plain", "reranker": "none", "difficulty": "medium"}
LINE |= {"measure": "mAP", "chosen": "", "seed": 0, "value": 0.5}
UNTRAINED = {"network": "untrained", "seed": np.nan}
FIVE_HEADS = [{"network": f"head {i // 20}", "measure": f"{i}"} for i in range(100)]  # 20 figures each


def frame(*lines: dict) -> pd.DataFrame:
    return pd.DataFrame([LINE | line for line in lines])


def trainings(*values, **more) -> list[dict]:
    seeds = [*enumerate(values), (np.nan, float(np.mean(values)))]
    return [{"seed": seed, "value": value} | more for seed, value in seeds]


def agrees(first, second, given=()) -> list[bool]:
    return verify.compare(frame(*first), frame(*second), given)["agrees"].tolist()


@pytest.mark.parametrize("first,second,same", [
    ([UNTRAINED], [UNTRAINED | {"value": 0.5009}], True), ([UNTRAINED], [UNTRAINED | {"value": 0.502}], False),
    (trainings(0.50, 0.50), trainings(0.51, 0.505), True),  # a point
    (trainings(0.50, 0.50), trainings(0.52, 0.51), False), (trainings(0.45, 0.55), trainings(0.65, 0.75), False),
    (trainings(0.45, 0.55), trainings(0.55, 0.65), True),  # deviation 0.07: twice that is 0.14
    ([{"value": 4.0}], [{"value": 4.03}], True),  # a hundredth of what is above 1
    ([{"value": 4.0}], [{"value": 4.05}], False),
    ([{"value": np.nan}], [{"value": np.nan}], True), ([{"value": 0.5}], [{"value": np.nan}], False),
])  # fmt: skip
def test_a_figure_agrees_within_its_tolerance(first, second, same):
    assert agrees(first, second) == [same]


def test_a_single_training_gets_the_spread_of_its_kind_and_a_checkpoint_none():
    several, other = trainings(0.45, 0.55, network="product"), {"dataset": "100 distractors", "value": 0.5}
    assert agrees([*several, other], [*several, other | {"value": 0.6}]) == [True, True]
    assert agrees([other], [other | {"value": 0.6}]) == [False], "without others of its kind a point"
    assert agrees([{}], [{"value": 0.502}]) == [True] and agrees([{}], [{"value": 0.502}], ["plain"]) == [False]


def test_a_figure_of_one_run_only_does_not_agree_but_for_sweeps_around_another_choice():
    table = verify.compare(frame({}, UNTRAINED), frame({}))
    assert table["agrees"].tolist() == [True, False] and not verify.same_study(table)
    sweep = [{"reranker": "GFR", "chosen": f'{{"k": {k}}}'} for k in (1, 2, 3)]
    assert agrees(sweep[:2], sweep[1:]) == agrees([sweep[0]], [sweep[1]]) == [True], "also one setting, chosen anew"
    galleries = [UNTRAINED | {"chosen": f'{{"R": {count}}}'} for count in (1, 2)]  # there a query or two may move
    assert agrees(galleries, [galleries[0] | {"value": 0.506}, galleries[1] | {"value": 0.52}]) == [True, False]


def reproduced(count: int, by: float, lines) -> bool:
    moved = [line | {"value": 0.5 + by} for line in lines[:count]]
    return verify.same_study(verify.compare(frame(*lines), frame(*moved, *lines[count:])))


def test_a_tenth_of_the_figures_of_each_trained_network_may_be_outside_by_chance_and_none_far():
    assert reproduced(2, 0.02, FIVE_HEADS) and not reproduced(3, 0.02, FIVE_HEADS), "3 of 20; the others hide none"
    assert reproduced(1, 0.02, FIVE_HEADS[18:]) and not reproduced(2, 0.02, FIVE_HEADS[18:]), "of two figures one"
    assert not reproduced(1, 0.2, FIVE_HEADS), "20 tolerances away"
    assert not reproduced(1, 0.002, [UNTRAINED, *FIVE_HEADS])
    assert not reproduced(1, 0.02, [FIVE_HEADS[0] | {"measure": "activity"}, *FIVE_HEADS]), "another head in its place"


def test_times_and_other_arithmetic_are_another_machines_own(tmp_path):
    lines = [{"measure": measure} for measure in ("online ms a query", "offline s", "training s", "P@10")]
    frame(*lines, {"chosen": '{"dtype": "bfloat16"}'}).drop(columns="notebook").to_csv(tmp_path / "08.csv", index=False)
    assert verify._read(tmp_path)["measure"].tolist() == ["P@10"]


def test_verify_compares_a_new_run_with_the_committed_rows(tmp_path, monkeypatch, capsys):
    """The run that is made finds 0.5 and then 0.502; rows of the tree that were not committed count for nothing."""
    committed, values = tmp_path / "results" / "smoke" / "rows", [0.5, 0.502]
    write_atomic(committed / "05.csv", frame(UNTRAINED).to_csv(index=False))
    for command in ("init -q", "add results", "-c user.name=a -c user.email=a@b commit -qm rows"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    frame({"value": 0.9}).to_csv(committed / "05.csv", index=False)

    def run(profile, *, workspace, progress):
        table = frame(UNTRAINED | {"value": values.pop(0)}).to_csv(index=False)
        write_atomic(workspace / "results" / profile / "rows" / "05.csv", table)
        write_atomic(workspace / "data" / "study" / "x", "")
        return workspace / "results" / profile

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr(verify, "repository_root", lambda: tmp_path)
    assert verify.verify("smoke") == 0
    assert "1 figures of smoke, 0 outside: the study is reproduced" in capsys.readouterr().out
    left = tmp_path / "build" / "verify" / "smoke" / "data" / "cache" / "pictures"
    left.mkdir(parents=True)
    assert main(["verify", "smoke"]) == 1
    printed = capsys.readouterr().out
    assert "0.502" in printed and "NOT reproduced" in printed
    assert not left.exists() and committed.is_dir(), "a finished one starts from nothing, and nothing else goes"
    assert main(["report", "nothing", "--workspace", str(tmp_path)]) == 2
    assert "run `ssr study nothing` first" in capsys.readouterr().err
