"""GLDv2-clean: its table, and landmarks that are left out."""

import numpy as np
import pytest

from ssr_lib.datasets.gldv2 import read_clean, read_ids


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train_clean.csv"
    path.write_text("landmark_id,images\n1,17660ef415d37059 92b6290d571448f6\n7,0123456789abcdef\n9,ff00000000000000\n")
    return path


def test_every_picture_gets_its_landmark_and_its_place(table):
    files, labels = read_clean(table)
    assert files[0] == "1/7/6/17660ef415d37059.jpg" and files[2] == "0/1/2/0123456789abcdef.jpg"
    assert labels.tolist() == [1, 1, 7, 9] and labels.dtype == np.int64


def test_landmarks_can_be_left_out(table, tmp_path):
    ids = tmp_path / "overlap.txt"
    ids.write_text("# in Paris\n1\n\n9\n")
    files, labels = read_clean(table, leave_out=read_ids(ids))
    assert labels.tolist() == [7] and files == ["0/1/2/0123456789abcdef.jpg"]


def test_an_unknown_landmark_to_leave_out_is_named(table):
    with pytest.raises(ValueError, match="no landmark 8 to leave out"):
        read_clean(table, leave_out=[1, 8])


def test_a_landmark_with_thousands_of_pictures_is_read(tmp_path):
    path = tmp_path / "train_clean.csv"
    path.write_text("landmark_id,images\n5," + " ".join(f"{i:016x}" for i in range(12000)) + "\n")
    assert len(read_clean(path)[0]) == 12000


def test_other_columns_and_other_ids_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("id,url,landmark_id\nab,http,1\n")
    with pytest.raises(ValueError, match=r"train\.csv has columns \['id'"):
        read_clean(tmp_path / "train.csv")
    (tmp_path / "ids.txt").write_text("1\nPantheon\n")
    with pytest.raises(ValueError, match=r"ids\.txt.*Pantheon"):
        read_ids(tmp_path / "ids.txt")


@pytest.mark.parametrize("row", ["x,17660ef415d37059", "1,ab", "1,../../../etc abc"])
def test_a_row_that_is_no_landmark_is_refused_by_line(tmp_path, row):
    (tmp_path / "train.csv").write_text(f"landmark_id,images\n7,0123456789abcdef\n{row}\n")
    with pytest.raises(ValueError, match=r"train\.csv line 3: .* are wanted"):
        read_clean(tmp_path / "train.csv")
