"""Rows of results as tables for reading."""

import pandas as pd
import pytest

from ssr_lib.results import Results
from ssr_lib.tables import grid, over_seeds, to_html, to_markdown, write_table

KEY = {"experiment": "ablation", "dataset": "synthetic", "backbone": "lite0", "metric": "mAP", "difficulty": "medium"}


@pytest.fixture
def frame(tmp_path):
    results = Results(tmp_path)
    for variant, base in (("self-similarity", 0.50), ("plain", 0.40)):
        for seed in range(3):
            for rerank in ("none", "ours"):
                value = base + 0.01 * seed + (0.1 if rerank == "ours" else 0)
                results.add(
                    **{**KEY, "variant": variant, "seed": seed, "rerank": rerank},
                    value=value,
                    ci_low=value - 0.02,
                    ci_high=value + 0.02,
                )
    return results.frame()


def test_a_grid_shows_the_mean_and_the_spread_over_seeds_in_the_wanted_order(frame):
    table = grid(
        frame, "variant", "rerank", order={"variant": ["plain", "self-similarity"], "rerank": ["none", "ours"]}
    )
    assert table.values.tolist() == [
        ["plain", "41.0 ± 1.0", "51.0 ± 1.0"],
        ["self-similarity", "51.0 ± 1.0", "61.0 ± 1.0"],
    ]
    assert list(table.columns) == ["variant", "none", "ours"]


def test_a_grid_of_one_seed_shows_the_interval_and_leaves_unmeasured_cells_empty(frame):
    one = frame[(frame["seed"] == 0) & ~((frame["variant"] == "plain") & (frame["rerank"] == "ours"))]
    table = grid(one, "variant", "rerank", spread="ci", order={"variant": ["plain"]})
    assert table.values.tolist() == [
        ["plain", "40.0 [38.0, 42.0]", ""],
        ["self-similarity", "50.0 [48.0, 52.0]", "60.0 [58.0, 62.0]"],
    ]


def test_rows_that_differ_in_a_forgotten_column_are_not_averaged(frame):
    with pytest.raises(ValueError, match="add one of the columns that tell them apart: rerank"):
        over_seeds(frame, ["variant"])


def test_markdown_aligns_numbers_right_and_escapes_pipes():
    frame = pd.DataFrame({"a|b": ["x|y", None], "n": [1.25, float("nan")], "k": [3, 4]})
    assert (
        to_markdown(frame, digits=2) == "| a\\|b | n | k |\n| --- | ---: | ---: |\n| x\\|y | 1.25 | 3 |\n|  |  | 4 |\n"
    )


def test_html_has_the_rounded_numbers_and_no_index():
    html = to_html(pd.DataFrame({"n": [1.234]}, index=[7]))
    assert "1.2" in html and "1.23" not in html and "<th>7" not in html


def test_a_written_table_keeps_full_precision_in_csv_and_names_its_index(tmp_path):
    write_table(pd.DataFrame({"v": [1 / 3]}, index=pd.Index(["plain"], name="variant")), tmp_path / "tables" / "t.v1")
    assert (tmp_path / "tables" / "t.v1.csv").read_text() == "variant,v\nplain,0.333333\n"
    assert (tmp_path / "tables" / "t.v1.md").read_text().splitlines()[2] == "| plain | 0.3 |"
