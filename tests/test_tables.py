"""Tables as a reader sees them."""

import pandas as pd

from ssr_lib.study.tables import to_markdown, write_table


def test_markdown_aligns_numbers_right_and_escapes_pipes():
    frame = pd.DataFrame({"a|b": ["x|y", None], "n": [1.25, float("nan")], "k": [3, 4]})
    assert (
        to_markdown(frame, digits=2) == "| a\\|b | n | k |\n| --- | ---: | ---: |\n| x\\|y | 1.25 | 3 |\n|  |  | 4 |\n"
    )


def test_small_numbers_keep_three_digits_and_a_p_value_is_never_nought():
    frame = pd.DataFrame({"AUC": [0.9641, 0.5], "mAP": [47.26, 0.04], "p": [0.004, 0.049]})
    assert to_markdown(frame).splitlines()[2:] == ["| 0.964 | 47.3 | <0.01 |", "| 0.500 | 0.0 | 0.05 |"]


def test_a_written_table_keeps_full_precision_in_csv_and_names_its_index(tmp_path):
    write_table(pd.DataFrame({"v": [1 / 3]}, index=pd.Index(["plain"], name="variant")), tmp_path / "tables" / "t.v1")
    assert (tmp_path / "tables" / "t.v1.csv").read_text() == "variant,v\nplain,0.333333\n"
    assert (tmp_path / "tables" / "t.v1.md").read_text().splitlines()[2] == "| plain | 0.333 |"
