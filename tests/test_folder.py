"""A folder or a CSV of one's own becomes a benchmark that says exactly what it holds, or an error that says why not."""

import os
from pathlib import Path

import numpy as np
import pytest

from ssr_lib.datasets.folder import (
    NAMES_SHOWN,
    count_unsupported,
    read_folder,
    read_label_rows,
    read_labels,
    read_training_labels,
)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.JPEG", "sub/c.png", "sub/deeper/d.tif", ".hidden.jpg", ".cache/e.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write_csv(folder, *lines, header="file,label,split", name="labels.csv", touch=True):
    path = folder / name
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    if touch:
        for line in lines:
            (folder / line.split(",")[0]).touch()
    return path


# ---- folders -------------------------------------------------------------------------------------------------------


def test_folder_is_read_recursively_in_order_without_hidden_and_other_files(folder):
    assert read_folder(folder) == ["a.JPEG", "b.jpg", "sub/c.png", "sub/deeper/d.tif"]


def test_pictures_of_kinds_that_are_not_read_are_counted(folder):
    for name in ("x.HEIC", "sub/y.heic", "z.dng", ".hidden.heic"):
        (folder / name).touch()
    assert count_unsupported(folder) == {".heic": 2, ".dng": 1}
    assert len(read_folder(folder)) == 4


def test_empty_missing_and_no_folder_are_errors_that_name_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no pictures"):
        read_folder(tmp_path)
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "x.jpg").touch()
    with pytest.raises(NotADirectoryError, match=r"x\.jpg is not a folder"):
        read_folder(tmp_path / "x.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_subfolder_without_the_right_to_read_is_an_error_not_an_omission(folder):
    os.chmod(folder / "sub", 0)
    try:
        with pytest.raises(PermissionError, match="sub"):
            read_folder(folder)
    finally:
        os.chmod(folder / "sub", 0o700)


# ---- labels with splits --------------------------------------------------------------------------------------------

LINES = ("q1.jpg,tower,query", "q2.jpg,bridge,query", "1.jpg,tower,db", "2.jpg,bridge,db", "3.jpg,tower,db")
MORE = ("4.jpg,tower,distractor", "5.jpg,,distractor", "6.jpg,,db", "7.jpg,tower,train")


def test_positives_are_the_database_pictures_of_the_same_label(tmp_path):
    benchmark = read_labels(write_csv(tmp_path, *LINES, *MORE))
    assert benchmark.queries == ["q1.jpg", "q2.jpg"]
    assert benchmark.database == [f"{i}.jpg" for i in (1, 2, 3, 4, 5, 6)]
    assert [ids.tolist() for ids in benchmark.easy] == [[0, 2], [1]]
    assert all(len(ids) == 0 for ids in (*benchmark.hard, *benchmark.junk))
    assert benchmark.groups == ["tower", "bridge"] and benchmark.query_ids == [-1, -1]
    assert benchmark.root == tmp_path and benchmark.name == tmp_path.name


def test_query_that_is_also_in_the_database_is_not_its_own_positive(tmp_path):
    benchmark = read_labels(write_csv(tmp_path, *LINES, "q1.jpg,tower,db"))
    assert benchmark.query_ids == [3, -1]
    assert benchmark.easy[0].tolist() == [0, 2]


def test_query_without_positives_is_named_or_kept_on_request(tmp_path):
    path = write_csv(tmp_path, *LINES, "q3.jpg,castle,query")
    with pytest.raises(ValueError, match=r"q3\.jpg \(line 7, label 'castle'\)"):
        read_labels(path)
    assert [len(ids) for ids in read_labels(path, on_lonely="keep").easy] == [2, 1, 0]


def test_nothing_but_lonely_queries_is_an_error_in_any_case(tmp_path):
    path = write_csv(tmp_path, "q3.jpg,castle,query", "1.jpg,tower,db")
    with pytest.raises(ValueError, match="castle"):
        read_labels(path, on_lonely="keep")


# ---- labels without splits -----------------------------------------------------------------------------------------


def test_without_splits_every_picture_with_a_partner_asks_for_the_others(tmp_path):
    lines = ("a.jpg,tower", "b.jpg,bridge", "c.jpg,tower", "d.jpg,tower", "e.jpg,castle", "f.jpg,")
    benchmark = read_labels(write_csv(tmp_path, *lines, header="file,label"))
    assert benchmark.database == [f"{letter}.jpg" for letter in "abcdef"]
    assert benchmark.queries == ["a.jpg", "c.jpg", "d.jpg"] and benchmark.query_ids == [0, 2, 3]
    assert [ids.tolist() for ids in benchmark.easy] == [[2, 3], [0, 3], [0, 2]]


def test_labels_that_nobody_shares_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="a label that two pictures share"):
        read_labels(write_csv(tmp_path, "a.jpg,1", "b.jpg,2", "c.jpg,", "d.jpg,", header="file,label"))


# ---- files ---------------------------------------------------------------------------------------------------------


def test_missing_files_are_all_reported_at_once(tmp_path):
    path = write_csv(tmp_path, *LINES)
    (tmp_path / "q2.jpg").unlink()
    (tmp_path / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 5 files \(q2\.jpg, 3\.jpg\)"):
        read_labels(path)


def test_very_many_missing_files_are_counted(tmp_path):
    lines = [f"{i}.jpg,a" for i in range(NAMES_SHOWN + 5)]
    with pytest.raises(FileNotFoundError, match="and 5 more"):
        read_labels(write_csv(tmp_path, *lines, header="file,label", touch=False))


def test_pictures_may_lie_beside_the_csv_in_its_folder_images_or_where_one_says(tmp_path):
    for place, images in (("images", None), ("elsewhere", tmp_path / "elsewhere")):
        write_csv(tmp_path, *LINES, touch=False)
        (tmp_path / place).mkdir()
        for line in LINES:
            (tmp_path / place / line.split(",")[0]).touch()
        assert read_labels(tmp_path / "labels.csv", images).root == tmp_path / place


# ---- CSV -----------------------------------------------------------------------------------------------------------


def test_semicolons_byte_order_mark_quotes_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes('\ufeffFile;Label;Note\r\n"a; b.jpg";x;1\r\n\r\nc.jpg;ü;2\r\n'.encode())
    assert [(row.file, row.label, row.split) for row in read_label_rows(path)] == [
        ("a; b.jpg", "x", None),
        ("c.jpg", "ü", None),
    ]


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "columns 'file', 'label'"),
        (b"name,class\na.jpg,1\n", "found 'name,class'"),
        (b"file,label\n", "lists no files"),
        (b"file,label,split\na.jpg,1,test\n", "line 2: split is 'test'; one of query, db, distractor, train"),
        (b"file,label\na.jpg,1\nb.jpg\n", "line 3: 1 values for 2 columns"),
        (b"file,label\n,1\n", "line 2: no file name"),
        (b"file,label\na.jpg,1\nb.jpg,1\na.jpg,2\n", r"line 4: a\.jpg was already listed in line 2"),
        (b"file,label\n\xff\xfe.jpg,1\n", "not UTF-8"),
    ],
)
def test_bad_csv_is_an_error_with_its_line(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.csv.*" + message):
        read_labels(path)


def test_training_rows_get_integer_labels(tmp_path):
    lines = ("a.jpg,milk,train", "b.jpg,apple,train", "c.jpg,milk,train", "d.jpg,apple,db", "e.jpg,,train")
    training = read_training_labels(write_csv(tmp_path, *lines))
    assert list(training.files) == ["a.jpg", "b.jpg", "c.jpg"] and Path(training.root) == tmp_path
    np.testing.assert_array_equal(training.labels, [1, 0, 1])
    with pytest.raises(ValueError, match="1 labels"):
        read_training_labels(write_csv(tmp_path, "a.jpg,milk,train"))
