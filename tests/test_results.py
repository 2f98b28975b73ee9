"""Rows of results: replaced, merged, written the same twice, and compared with tolerances."""

import gzip
import json
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from ssr_lib.study.rows import EXPERIMENTS, Results, canonical_params
from ssr_lib.study.verify import Tolerances, compare, same_study

KEY = {"experiment": "ablation", "dataset": "synthetic", "backbone": "lite0", "variant": "plain"}
FIGURE = {**KEY, "metric": "mAP", "difficulty": "medium"}


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in ("run.json", ".lock")}


def test_a_row_replaces_the_row_with_the_same_key_and_no_other(tmp_path):
    results = Results(tmp_path)
    results.add(**FIGURE, seed=0, value=0.4)
    results.add(**FIGURE, seed=1, value=0.5)
    results.save()
    results.add(**FIGURE, seed=0, value=0.6, ci_low=0.5, ci_high=0.7, n_queries=12, n_groups=3)
    results.save()
    frame = Results(tmp_path).frame()
    assert frame[["seed", "value"]].values.tolist() == [[0, 0.6], [1, 0.5]]
    assert frame.loc[0, ["ci_low", "ci_high", "n_queries", "n_groups"]].tolist() == [0.5, 0.7, 12, 3]
    assert frame.loc[1, ["ci_low", "n_queries"]].isna().all()


@pytest.mark.parametrize(
    "change",
    [
        {"experiment": "rerank"},
        {"split": "validation"},
        {"subset": "night"},
        {"seed": 1},
        {"rerank": "ours"},
        {"k": 3},
        {"alpha": 0.5},
        {"params": {"window": 5}},
        {"metric": "mP@10"},
        {"difficulty": "hard"},
    ],
)
def test_every_key_column_tells_rows_apart(tmp_path, change):
    results = Results(tmp_path)
    results.add(**FIGURE, value=0.1)
    results.add(**{**FIGURE, **change}, value=0.2)
    results.save()
    assert sorted(Results(tmp_path).frame()["value"]) == [0.1, 0.2]


def test_equal_figures_give_equal_files_whatever_the_order_and_the_kind_of_number(tmp_path):
    def fill(results, order, number):
        for seed in order:
            results.add(
                **FIGURE,
                seed=seed,
                k=number(5),
                alpha=float(number(1)) / 4,
                value=seed / 3,
                params={"b": number(2), "a": 1},
            )
            results.add_per_query(**KEY, seed=seed, ap=[0.25, np.nan, 1 / 3], groups=["a", "a", "b"], difficulty="hard")
            results.add_cost(**KEY, seed=seed, quantity="time per query", unit="ms", value=1.5)
            results.save()

    fill(Results(tmp_path / "one"), [0, 10, 2], int)
    fill(Results(tmp_path / "two"), [10, 2, 0], np.int64)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert Results(tmp_path / "one").frame()["seed"].tolist() == [0, 2, 10]  # as numbers, not as text
    assert set(files(tmp_path / "one")) == {"results.csv", "per_query.csv.gz", "costs.csv"}


def test_figures_are_written_with_six_decimals_and_no_negative_zero(tmp_path):
    results = Results(tmp_path)
    results.add(**FIGURE, alpha=0.1 + 0.2, value=-1e-9)
    results.save()
    assert (tmp_path / "results.csv").read_text().splitlines()[1] == (
        "ablation,synthetic,test,all,lite0,plain,,none,,0.3,{},mAP,medium,0.000000,,,,"
    )


def test_what_was_added_is_seen_before_it_is_saved_as_it_will_be_read_back(tmp_path):
    results = Results(tmp_path)
    results.add(**FIGURE, value=1 / 3)
    before = results.frame()
    results.save()
    assert before.equals(Results(tmp_path).frame())
    assert before["value"].tolist() == [0.333333]


def test_filters_take_values_lists_missing_values_and_params(tmp_path):
    results = Results(tmp_path)
    for k in (None, 3, 5):
        results.add(**FIGURE, k=k, params={"window": k or 0}, value=0.1)
    assert results.frame(k=5)["k"].tolist() == [5]
    assert results.frame(k=[3, 5])["k"].tolist() == [3, 5]
    assert len(results.frame(k=None)) == 1
    assert results.frame(params={"window": 3})["k"].tolist() == [3]
    with pytest.raises(ValueError, match="no column 'kk'"):
        results.frame(kk=3)


def test_per_query_rows_keep_their_order_and_leave_missing_ap_missing(tmp_path):
    results = Results(tmp_path)
    results.add_per_query(**KEY, ap=[0.5] * 12, groups=[f"g{i}" for i in range(12)], difficulty="easy")
    results.add_per_query(**KEY, ap=[0.5, np.nan], groups=["a", "b"], difficulty="hard")
    results.add_per_query(**KEY, ap=[0.25, np.nan], groups=["a", "b"], difficulty="hard")  # replaces both rows
    results.save()
    hard = Results(tmp_path).per_query(difficulty="hard")
    assert hard["group"].tolist() == ["a", "b"] and hard["ap"].tolist()[0] == 0.25 and np.isnan(hard["ap"][1])
    assert Results(tmp_path).per_query(difficulty="easy")["query"].tolist() == list(range(12))
    assert gzip.decompress((tmp_path / "per_query.csv.gz").read_bytes()).startswith(b"experiment,")


def _add_rows(directory, worker):
    for step in range(10):
        results = Results(directory)
        results.add(**FIGURE, seed=worker, k=step + 1, value=0.5)
        results.save()


def test_two_processes_that_save_at_once_lose_no_row(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_rows, args=(tmp_path, worker)) for worker in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(Results(tmp_path).frame()) == 20


def test_run_json_says_commit_versions_and_machine_but_not_whose_machine(tmp_path):
    import getpass
    import platform

    results = Results(tmp_path)
    results.add(**FIGURE, value=0.5)
    results.save()
    text = (tmp_path / "run.json").read_text()
    record = json.loads(text)
    assert set(record) == {"commit", "versions", "machine"}
    assert {"python", "torch", "numpy"} <= set(record["versions"]) and record["machine"]["cores"] >= 1
    assert "/" not in text.replace(str(record["machine"]["processor"]), "")
    assert not {platform.node(), getpass.getuser()} & set(json.dumps(record["machine"]).split('"'))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"experiment": "mine", "value": 0.1}, f"no experiment 'mine'; wanted one of {EXPERIMENTS[0]}"),
        ({"value": float("inf")}, "the value of mAP is infinite"),
        ({"value": 0.1, "ci_low": 0.3, "ci_high": 0.2}, r"the interval of mAP is \[0.3, 0.2\]"),
        ({"value": 0.1, "ci_low": 0.3}, r"the interval of mAP is \[0.3, None\]"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        Results(tmp_path).add(**{**FIGURE, **arguments})


def test_a_file_with_other_columns_is_refused_by_name(tmp_path):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"results.csv has columns a, b; wanted experiment, "):
        Results(tmp_path).frame()


def test_a_file_that_was_cut_off_is_refused_by_name(tmp_path):
    results = Results(tmp_path)
    results.add(**FIGURE, value=0.5)
    key = {k: v for k, v in FIGURE.items() if k != "metric"}
    results.add_per_query(**key | {"difficulty": "medium"}, ap=[0.1, 0.2], groups=["a", "b"])
    results.save()
    for name in ("results.csv", "per_query.csv.gz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) - 20])
    with pytest.raises(ValueError, match=r"results\.csv line 2 is cut off; move the file away"):
        Results(tmp_path).frame()
    with pytest.raises(ValueError, match=r"per_query\.csv\.gz is damaged .*; move the file away"):
        Results(tmp_path).per_query()


def test_params_have_one_text_whatever_their_order():
    assert canonical_params({"b": 1, "a": [np.int64(2), 0.5]}) == canonical_params('{"a": [2, 0.5], "b": 1}')
    assert canonical_params(None) == "{}"


# ---- compare


def run(directory, rows):
    results = Results(directory)
    for row in rows:
        results.add(**{**FIGURE, **row})
    return results


def test_an_untrained_figure_may_move_by_a_tenth_of_a_point_and_no_more(tmp_path):
    first = run(tmp_path / "a", [{"value": 0.5}])
    assert compare(first, run(tmp_path / "b", [{"value": 0.501}]))["agrees"].all()
    assert not compare(first, run(tmp_path / "c", [{"value": 0.5011}]))["agrees"].any()


def test_a_trained_figure_is_compared_as_its_mean_over_seeds(tmp_path):
    first = run(tmp_path / "a", [{"seed": s, "value": 0.50 + 0.02 * s} for s in range(3)])  # mean 0.52, sd 0.02
    second = run(tmp_path / "b", [{"seed": s, "value": 0.56 + 0.04 * (s - 1)} for s in range(3)])
    row = compare(first, second).iloc[0]
    assert (row["first"], row["second"], row["tolerance"], row["n_seeds"]) == pytest.approx((0.52, 0.56, 0.04, 3))
    assert row["agrees"]
    narrow = Tolerances(deviations=1.0)
    assert not compare(first, second, narrow)["agrees"].any()


def test_a_single_training_gets_the_spread_of_its_like_and_at_least_a_point(tmp_path):
    like = [{"seed": s, "value": 0.5 + 0.02 * s} for s in range(3)]
    one = {"seed": 0, "variant": "conv"}
    first = run(tmp_path / "a", [*like, {**one, "value": 0.50}])
    second = run(tmp_path / "b", [*like, {**one, "value": 0.539}])
    assert compare(first, second)["agrees"].all()
    alone = compare(run(tmp_path / "c", [{**one, "value": 0.50}]), run(tmp_path / "d", [{**one, "value": 0.511}]))
    assert alone["tolerance"].tolist() == [0.01] and not alone["agrees"].any()


def test_a_difference_over_several_trainings_may_move_by_half_its_interval_and_two_points_at_most(tmp_path):
    difference = {"params": {"seeds": 3}, "metric": "difference", "ci_low": -0.02, "ci_high": 0.04}
    first = run(tmp_path / "a", [{**difference, "value": 0.01}])
    assert compare(first, run(tmp_path / "b", [{**difference, "value": 0.029}]))["agrees"].all()
    assert not compare(first, run(tmp_path / "c", [{**difference, "value": 0.031}]))["agrees"].any()


def test_a_mean_over_trainings_may_move_as_the_trainings_behind_it_spread(tmp_path):
    rows = [{"seed": seed, "params": {"regime": "ordinary"}, "value": 0.5 + 0.02 * seed} for seed in range(3)]
    mean = {"params": {"regime": "ordinary", "seeds": 3}, "ci_low": 0.4, "ci_high": 0.64}
    first = run(tmp_path / "a", [*rows, {**mean, "value": 0.52}])
    assert compare(first, run(tmp_path / "b", [*rows, {**mean, "value": 0.559}]))["agrees"].all()
    assert not compare(first, run(tmp_path / "c", [*rows, {**mean, "value": 0.561}]))["agrees"].all()


def test_figures_with_other_parameters_chosen_are_paired_training_by_training_and_in_the_mean(tmp_path):
    def chosen(k, exponent):
        rows = [{"seed": s, "rerank": "dba", "k": k, "params": {"exponent": exponent}} for s in (0, 1)]
        rows.append({"rerank": "dba", "k": k, "params": {"exponent": exponent, "seeds": 2}})
        sweep = {"experiment": "sweep", "rerank": "ours", "k": k, "params": {"varied": "alpha"}, "value": 0.1 * k}
        return [{**row, "value": 0.5} for row in rows] + [sweep]

    table = compare(run(tmp_path / "a", chosen(3, 1.0)), run(tmp_path / "b", chosen(5, 2.0)))
    assert table["agrees"].all() and set(table["note"]) == {"other parameters were chosen"}


def test_precision_at_k_may_move_by_few_queries_and_narrow_arithmetic_is_not_compared(tmp_path):
    precision = {"metric": "mP@1", "n_queries": 300, "value": 0.5}
    narrow = {"params": {"changed": "dtype bfloat16"}, "value": 0.5}
    first = run(tmp_path / "a", [precision, narrow])
    assert compare(first, run(tmp_path / "b", [{**precision, "value": 0.51}, {**narrow, "value": 0.9}]))["agrees"].all()
    assert not compare(first, run(tmp_path / "c", [{**precision, "value": 0.52}, narrow]))["agrees"].any()


def test_a_figure_that_one_run_lacks_does_not_agree(tmp_path):
    table = compare(run(tmp_path / "a", [{"value": 0.5}]), run(tmp_path / "b", [{"metric": "mP@1", "value": 0.5}]))
    assert not table["agrees"].any()
    assert table["note"].tolist() == ["only in the first run", "only in the second run"]


def test_figures_under_other_chosen_parameters_are_compared_and_said_to_be(tmp_path):
    ours = {"rerank": "ours", "seed": 0}
    first = run(tmp_path / "a", [{**ours, "k": 5, "alpha": 0.5, "value": 0.6}])
    second = run(tmp_path / "b", [{**ours, "k": 10, "alpha": 0.25, "value": 0.605}])
    table = compare(first, second)
    assert table["note"].tolist() == ["other parameters were chosen"] and table["agrees"].all()
    sweep = [
        run(tmp_path / n, [{**ours, "experiment": "sweep", "k": k, "value": 0.6}]) for n, k in (("c", 3), ("d", 5))
    ]
    assert not compare(*sweep)["agrees"].any()  # a sweep has the parameters that it asks for


def test_missing_values_agree_with_missing_values_only(tmp_path):
    nothing, something = run(tmp_path / "a", [{"value": np.nan}]), run(tmp_path / "b", [{"value": 0.5}])
    assert compare(nothing, nothing)["agrees"].all()
    assert not compare(nothing, something)["agrees"].any()
    assert not compare(something, nothing)["agrees"].any()


def test_p_values_are_not_compared(tmp_path):
    table = compare(run(tmp_path / "a", [{"metric": "p_value", "value": 0.1}]), run(tmp_path / "b", []))
    assert len(table) == 0


def test_a_study_is_the_same_where_few_trained_figures_are_outside_and_no_other():
    table = pd.DataFrame({"first": [0.5] * 20, "second": 0.5, "tolerance": 0.01, "agrees": True, "trained": True})
    table["difference"] = 0.0
    assert same_study(table)

    def changed(rows, difference, **columns):
        other = table.copy()
        other.loc[other.index[rows], ["difference", "agrees"]] = difference, False
        return other.assign(**columns)

    assert same_study(changed([0, 1], 0.03)) and not same_study(changed([0, 1, 2], 0.03))
    assert not same_study(changed([0], 0.11)), "eleven tolerances away"
    assert not same_study(changed([0], 0.03, trained=False)), "nothing was trained: no chance in it"
    assert not same_study(changed([0], float("nan"), second=float("nan"))), "missing in the second run"
