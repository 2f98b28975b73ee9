"""The negative control of notebooks 03b and 14c: a head against itself, whose trainings are split at random."""

import ast
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ssr_lib.significance import paired_difference

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
GROUPS = np.repeat(np.arange(20), 2)  # 20 landmarks of 2 queries


def called_apart(notebook, compare):
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    (source,) = [source for source in sources if "def called_apart" in source]
    (found,) = [part for part in ast.parse(source).body if getattr(part, "name", "") == "called_apart"]
    values = {"np": np, "paired_difference": compare}
    exec(ast.unparse(found), values)
    return values["called_apart"]


def trainings(data):
    """AP (4 starts, 5 seeds, 40 queries) of one head: what chance does to a training, and to its landmarks."""
    rng = np.random.default_rng(data)
    of_training, of_landmark = rng.normal(0, 0.01, (4, 5, 1)), rng.normal(0, 0.05, (4, 5, 20))
    return 0.3 + of_training + of_landmark[:, :, GROUPS]


@pytest.mark.parametrize("notebook", ["03b_controls", "14c_real_claims"])
class TestCalledApart:
    def test_a_head_is_seldom_called_different_from_itself_but_by_intervals_that_are_too_short(self, notebook):
        control = called_apart(notebook, paired_difference)
        assert np.mean([control(trainings(data), GROUPS, splits=50) for data in range(10)]) <= 0.05
        assert called_apart(notebook, partial(paired_difference, level=0.5))(trainings(0), GROUPS) > 0.25

    def test_a_split_takes_two_starts_of_each_seed(self, notebook):
        def compare(first, second, groups):
            seen.append(tuple(first[:, 0]))
            assert first.shape == second.shape == (5, 40) and (first != second).all()  # starts are two
            np.testing.assert_array_equal(first % 10000, second % 10000)  # seeds and queries are paired
            return paired_difference(first, second, groups)

        seen = []
        start, seed, query = np.ogrid[:4, :5, :40]
        called_apart(notebook, compare)(10000.0 * start + 100 * seed + query, GROUPS, splits=30)
        assert len(set(seen)) > 20, "drawn at random for each seed"
