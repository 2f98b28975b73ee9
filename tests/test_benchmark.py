"""A benchmark cut down to some queries or some images keeps its ground truth; a damaged file of one is refused."""

import json

import numpy as np
import pytest

from ssr_lib.benchmark import Benchmark


@pytest.fixture
def benchmark():
    names = [f"{i}.jpg" for i in range(6)], ["a.jpg", "3.jpg"]
    return Benchmark("made", ".", *names, easy=[[0, 4], [1]], hard=[[2], []], junk=[[5], [4]], groups=["a", "b"],
                     query_ids=[-1, 3], extra={"same_style": [[3], [5]]})  # fmt: skip


def as_lists(lists):
    return [ids.tolist() for ids in lists]


def test_images_that_are_left_out_leave_every_list_and_the_rest_is_numbered_anew_and_queries_come_as_asked(benchmark):
    cut = benchmark.select_images([0, 3, 4])
    assert cut.database == ["0.jpg", "3.jpg", "4.jpg"] and cut.queries == benchmark.queries
    assert (as_lists(cut.easy), as_lists(cut.hard), as_lists(cut.junk)) == ([[0, 2], []], [[], []], [[], [2]])
    assert as_lists(cut.extra["same_style"]) == [[1], []] and cut.query_ids == [-1, 1]
    assert benchmark.select_images([0, 1]).query_ids == [-1, -1]
    with pytest.raises(ValueError, match="outside the database"):  # the first images must hold every listed one
        benchmark.first_images(5)
    chosen = benchmark.select_queries([1, 0])
    assert chosen.queries == ["3.jpg", "a.jpg"] and chosen.groups == ["b", "a"]
    assert as_lists(chosen.extra["same_style"]) == [[5], [3]]


def test_medium_takes_easy_and_hard_as_right_and_ignores_junk_and_ids_are_whole_numbers(benchmark):
    assert as_lists(benchmark.positives) == [[0, 2, 4], [1]]
    assert benchmark.status(0, np.array([5, 4, 3, 2])) == ["ignored", "right", "wrong", "right"]
    with pytest.raises(ValueError, match=r"made: entry 0 of 'easy' is \[1\.9\]; wanted whole"):
        Benchmark("made", ".", ["0.jpg", "1.jpg"], ["a.jpg"], [[1.9]], [[]], [[]])


@pytest.mark.parametrize("changes,words", [
    ({"easy": None}, "field required"), ({"easy": [[0.9], [1]]}, "easy.0.0 is 0.9"), ({"name": 1}, "name is 1; "),
    ({"easy": [["0"], []]}, "easy.0.0 is '0'"), ({"easy": [[True], []]}, "is True; input should be a valid integer"),
    ({"query_ids": [-1, 4]}, "query 1 (3.jpg): 4 in 'query_ids'"), ({"query_ids": [99, 3]}, "(a.jpg): 99 in 'query_ids'"),
    ({"boxes": [[0, 0, 0, 5], None]}, "query 0 (a.jpg): box (0, 0, 0, 5) is not (x0, y0, x1, y1)"),
    ({"groups": ["a"]}, "benchmark made: 1 entries in 'groups' for 2 queries"),
    ({"database": ["0.jpg"] * 6}, "database image '0.jpg' is listed twice"),
])  # fmt: skip
def test_stored_benchmark_that_is_none_is_refused_by_its_file(benchmark, tmp_path, changes, words):
    file = tmp_path / "made.json"
    benchmark.save(file)
    assert repr(Benchmark.load(file)) == repr(benchmark) and Benchmark.load(file).query_ids == [-1, 3]
    record = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    with pytest.raises(ValueError) as caught:
        Benchmark.load(file)
    assert str(caught.value).startswith(str(file)) and words in str(caught.value)
