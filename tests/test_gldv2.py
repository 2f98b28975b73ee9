"""GLDv2-clean: its table, and landmarks that are left out."""

import numpy as np
import pytest

from ssr_lib.datasets.gldv2 import read_clean, read_ids

TABLE = "landmark_id,images\n1,17660ef415d37059 92b6290d571448f6\n7,0123456789abcdef\n9,ff00000000000000\n"


def test_every_picture_gets_its_landmark_and_its_place_and_landmarks_can_be_left_out(tmp_path):
    (tmp_path / "train_clean.csv").write_text(TABLE)
    files, labels = read_clean(tmp_path / "train_clean.csv")
    assert files[0] == "1/7/6/17660ef415d37059.jpg" and files[2] == "0/1/2/0123456789abcdef.jpg"
    assert labels.tolist() == [1, 1, 7, 9] and labels.dtype == np.int64
    (tmp_path / "overlap.txt").write_text("# in Paris\n1\n\n9\n")
    files, labels = read_clean(tmp_path / "train_clean.csv", leave_out=read_ids(tmp_path / "overlap.txt"))
    assert labels.tolist() == [7] and files == ["0/1/2/0123456789abcdef.jpg"]
    with pytest.raises(ValueError, match="no landmark 8 to leave out"):
        read_clean(tmp_path / "train_clean.csv", leave_out=[1, 8])
    many = " ".join(f"{i:016x}" for i in range(12000))
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n5,{many}\n")
    assert len(read_clean(tmp_path / "train_clean.csv")[0]) == 12000
    (tmp_path / "overlap.txt").write_text("1\nPantheon\n")
    with pytest.raises(ValueError, match=r"overlap\.txt.*Pantheon"):
        read_ids(tmp_path / "overlap.txt")


@pytest.mark.parametrize("text,words", [
    ("id,url,landmark_id\nab,http,1\n", "columns landmark_id, images are wanted, each once; found 'id, url, landmark_id'"),
    *((f"{TABLE}{row}\n", r"(from )?line 5( on)?: .*") for row in ("x,17660ef415d37059", "1,ab", "1,../../../etc abc", '1,"ab')),
])  # fmt: skip
def test_other_columns_and_rows_that_are_no_landmarks_are_refused(tmp_path, text, words):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.csv[:,] {words}"):
        read_clean(tmp_path / "train.csv")
