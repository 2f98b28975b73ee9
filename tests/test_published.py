"""data/published.csv: a figure is a percentage in its place, a row says where it was read, none stands twice."""

import re
from pathlib import Path

import pandas as pd
import pytest
from kernels import execute_here

from ssr_lib.study import Study

ROOT = Path(__file__).parents[1]
CONDITIONS = ["method", "variant", "backbone", "train_set", "dim", "descriptor", "rerank", "inputs", "query_crop"]
FIGURES = ["roxf_E", "roxf_M", "roxf_H", "rpar_E", "rpar_M", "rpar_H", "roxf1m_M", "roxf1m_H", "rpar1m_M", "rpar1m_H"]
LEGAL = {"kind": {"published", "reference output", "user run"}, "descriptor": {"global", "local"}}
LEGAL |= {"query_crop": {"yes", "no", ""}, "read_in": {"readme", "image", "issue", "paper", "second hand"}}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    table = pd.read_csv(ROOT / "data" / "published.csv", dtype=str, keep_default_na=False)
    return table.assign(**table[[*FIGURES, "dim"]].apply(pd.to_numeric))  # refuses what is no number


def test_columns_hold_what_they_say_no_row_stands_twice_and_figures_fall_with_difficulty_and_distractors(table):
    assert list(table.columns) == ["kind", *CONDITIONS, *FIGURES, "source", "where", "read_in", "also_in", "note"]
    assert all(set(table[column]) <= legal for column, legal in LEGAL.items())
    assert (table[["method", "source", "where"]] != "").all(axis=None)
    assert (table[table["kind"] == "user run"]["read_in"] == "issue").all()
    assert not table.duplicated(["kind", *CONDITIONS[:4], "rerank", "query_crop", "source"]).any()
    four = table[table["kind"] == "published"][["roxf_M", "roxf_H", "rpar_M", "rpar_H"]].dropna().round(1)
    assert not four.duplicated().any(), "the same figures were read in two places"
    assert len(table) > 100 and table[FIGURES].notna().any(axis=1).all()
    assert table[FIGURES].stack().dropna().between(0, 100).all() and (table["dim"].dropna() % 1 == 0).all()
    for short in ("roxf", "rpar"):
        given = table[[f"{short}_{letter}" for letter in "EMH"]].ffill(axis=1)  # what is not given is in order
        assert not (given.diff(axis=1) > 0).any(axis=None), "a harder protocol stands above an easier one"
        for letter in "MH":
            assert not (table[f"{short}1m_{letter}"] >= table[f"{short}_{letter}"]).any()


def test_the_documents_quote_the_table(table):
    card, counts = (ROOT / "data" / "README.md").read_text(encoding="utf-8"), table["kind"].value_counts()
    assert f"{len(table)} rows of mAP" in card and f"from {table['source'].nunique()} public sources" in card
    assert f"{counts['published']} rows are published, {counts['reference output']} are reference output" in card
    section = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8").split("<!-- expected -->")[1]
    for line in re.findall(r"(?m)^.*\d\d\.\d.*$", section.split("<!-- end of expected -->")[0]):
        quoted = {float(number) for number in re.findall(r"\b\d\d\.\d+\b", line)}
        rows = table[[f"`{method}`" in line for method in table["method"]]]
        assert any(quoted <= set(row) for row in rows[FIGURES].to_numpy()), line


def test_every_reference_has_a_part_or_a_reason_and_the_figures_of_its_rows(tmp_path):
    study = Study("peers", tmp_path, progress=False)
    execute_here(study, "12d_references", profile="peers", workspace=str(tmp_path), changes=None)
    made = study.results_dir / "tables"
    table, measured = (pd.read_csv(made / name) for name in ("references.csv", "references_measured.csv"))
    assert table["number"].tolist() == [*range(1, 40)] and (table["files"].isna() ^ table["otherwise"].isna()).all()
    key = ["measure", "dataset", "network", "reranker", "difficulty"]
    rows = pd.read_csv(ROOT / "results" / "demo" / "rows" / "05_ablation.csv").query("seed.isna()").set_index(key)
    expected = 100 * rows["value"]["mAP", "drawn", "CBAM", "none", "hard"]
    assert measured.query("number == 26 and profile == 'demo'")["hard"].tolist() == [pytest.approx(expected, rel=1e-4)]
