"""Published figures are read as they stand or refused by line and column; measured ones join them only where they may."""

import re

import pandas as pd
import pytest
from ssr_lib.study.run.run import published

from ssr_lib.study.artefacts import Study
from ssr_lib.study.provenance import repository_root

LINE = {
    "kind": "published",
    "method": "GeM",
    "backbone": "ResNet50",
    "descriptor": "global",
    "rerank": "none",
    "roxf_E": "80.0",
    "roxf_M": "60.5",
    "roxf_H": "30",
    "rpar_M": "70",
    "source": "a/b",
    "read_in": "readme",
}


def file_of(path, *lines) -> str:
    rows = [dict.fromkeys(published.COLUMNS, "") | LINE | line for line in lines]
    pd.DataFrame(rows, columns=published.COLUMNS).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return published.read_published()


@pytest.fixture
def study(tmp_path) -> Study:
    return Study("smoke", tmp_path, progress=False)


def measure(study, dataset, value, *, difficulty="medium", variant="plain", seed=None, rerank="none", **others):
    key = {"experiment": "components", "dataset": dataset, "backbone": "resnet50", "variant": variant, "seed": seed}
    study.results.add(**key | {"rerank": rerank} | others, metric="mAP", difficulty=difficulty, value=value)


# ---- the file in the repository


def test_the_table_in_the_repository_is_valid_and_every_row_says_where_it_was_read(table):
    assert len(table) > 100 and (table["where"] != "").all()
    assert set(table["kind"]) == set(published.LEGAL["kind"])
    assert (table[table["kind"] == "user run"]["read_in"] == "issue").all()


def test_a_figure_known_by_heart_to_its_readme_is_read_from_the_right_column(table):
    gem = table[table["variant"] == "rSfM120k-tl-resnet101-gem-w"].iloc[0]
    assert [gem[c] for c in ("roxf_M", "roxf_H", "rpar_M", "rpar_H")] == [67.8, 41.7, 77.6, 56.3]


def test_a_million_distractors_never_raise_a_published_figure(table):
    for short in ("roxf", "rpar"):
        for letter in "MH":
            both = table[[f"{short}_{letter}", f"{short}1m_{letter}"]].dropna()
            assert (both.iloc[:, 1] < both.iloc[:, 0]).all() and len(both) > 20


def test_the_same_figures_of_the_same_method_do_not_stand_twice(table):
    figures = table[published.FIGURES].round(1)
    paper = table.assign(**figures)[table["kind"] == "published"].dropna(
        subset=["roxf_M", "roxf_H", "rpar_M", "rpar_H"]
    )
    assert not paper.duplicated(["roxf_M", "roxf_H", "rpar_M", "rpar_H"]).any()


def test_the_data_card_counts_the_rows_that_there_are(table):
    card = (repository_root() / "data" / "README.md").read_text(encoding="utf-8")
    counts = table["kind"].value_counts()
    assert f"{len(table)} rows of mAP" in card and f"from {table['source'].nunique()} public sources" in card
    assert f"{counts['published']} rows are published, {counts['reference output']} are reference output" in card


# ---- reading


def test_a_file_is_read_with_numbers_and_missing_figures(tmp_path):
    read = published.read_published(file_of(tmp_path / "p.csv", {"dim": "2048"}, {"method": "MAC", "roxf_E": ""}))
    assert read["roxf_M"].tolist() == [60.5, 60.5] and read["roxf_E"].isna().tolist() == [False, True]
    assert read["dim"].tolist() == [2048, pd.NA] and read["train_set"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"roxf_M": "sixty"}, r"line 3, column roxf_M: 'sixty'; wanted percent"),
        ({"rpar_M": "0.7e3"}, r"line 3, column rpar_M: '0.7e3'; wanted percent"),
        ({"roxf_M": "25"}, r"line 3, column roxf_H: '30'; it lies above roxf_M"),
        ({"roxf_E": "20"}, r"line 3, column roxf_M: '60.5'; it lies above roxf_E"),
        ({"roxf_E": "20", "roxf_M": ""}, r"line 3, column roxf_H: '30'; it lies above"),
        ({"kind": "guess"}, r"line 3, column kind: 'guess'; wanted one of 'published'"),
        ({"dim": "2.5"}, r"line 3, column dim: '2.5'; wanted a whole number"),
        ({"source": " "}, r"line 3, column source: ' '; every row has one"),
        (dict.fromkeys(published.FIGURES, ""), r"line 3, column roxf_E: ''; the row has no figure"),
        ({"method": "GeM"}, r"line 3, column method: 'GeM'; an earlier row has the same"),
    ],
)
def test_a_wrong_row_is_refused_by_line_and_column(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        published.read_published(file_of(tmp_path / "p.csv", {}, {"method": "MAC"} | wrong))


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("method,map\nGeM,64\n")
    with pytest.raises(ValueError, match="has columns method, map; wanted kind"):
        published.read_published(tmp_path / "p.csv")


# ---- measured


def test_drawn_and_other_data_never_become_rows(study):
    for dataset in ("synthetic", "holidays", "roxford5k+rparis6k"):
        measure(study, dataset, 0.9)
    measure(study, "roxford5k", 0.9, split="validation")
    measure(study, "roxford5k", 0.9, variant="all", experiment="rerank", rerank="ours", k=3)
    measure(study, "roxford5k", 0.9, params={"queries": 20}, experiment="rerank")
    measure(study, "roxford5k", 0.9, experiment="sweep")
    rows = published.measured_rows(study)
    assert rows.empty and list(rows.columns) == published.COLUMNS


@pytest.fixture(autouse=True)
def record(monkeypatch):
    """Every checkpoint's record: trained on GLDv2-clean, 512 dimensions."""
    monkeypatch.setattr(published, "data_file", lambda name: name)
    stored = {"config": {"descriptor_dim": 512}, "extra": {"trained_on": "GLDv2-clean"}}
    monkeypatch.setattr(published, "read_record", lambda path: stored)


def test_training_set_and_dimension_are_those_of_the_checkpoint(study):
    measure(study, "roxford5k", 0.651, params={"checkpoint": "senet_{seed}"}, seed=1)
    row = published.measured_rows(study).squeeze()
    assert (row["train_set"], row["dim"]) == ("GLDv2-clean", 512) != ("", study["model.descriptor_dim"])


def test_figures_with_a_million_distractors_join_the_row_of_their_network(study, table):
    params = {"checkpoint": "senet_r50"}
    measure(study, "roxford5k", 0.651, params=params)
    for count, value in ((0, 0.651), (12, 0.6), (1_001_001, 0.501)):
        measure(study, "roxford5k", value, experiment="sweep", params=params | {"distractors": count})
    within = params | {"distractors": 1_001_001, "neighbourhood": "shortlist", "shortlist": 400}
    measure(study, "roxford5k", 0.55, experiment="sweep", rerank="ours", k=3, alpha=0.5, params=within)
    rows = published.measured_rows(study).set_index("rerank")
    assert rows.loc["none", ["roxf_M", "roxf1m_M"]].tolist() == pytest.approx([65.1, 50.1])
    assert rows.loc["ours in the shortlist", "roxf1m_M"] == pytest.approx(55.0)
    beside = published.side_by_side(table, published.measured_rows(study), "medium")
    assert beside.loc[beside["kind"] == "measured here", "roxford5k + 1M"].tolist() == pytest.approx([50.1, 55.0])


def test_a_checkpoint_gives_one_row_of_both_benchmarks_in_percent(study):
    for experiment in ("components", "rerank"):
        for dataset, value in (("roxford5k", 0.651), ("rparis6k", 0.772)):
            measure(study, dataset, value, experiment=experiment, params={"checkpoint": "senet_r50"})
    measure(study, "roxford5k", 0.401, difficulty="hard", params={"checkpoint": "senet_r50"})
    row = published.measured_rows(study).squeeze()
    assert (row["roxf_M"], row["rpar_M"], row["roxf_H"]) == pytest.approx((65.1, 77.2, 40.1))
    assert (row["kind"], row["backbone"], row["variant"]) == ("measured here", "ResNet50", "senet_r50")
    assert row["query_crop"] == "yes" and pd.isna(row["rpar_H"]) and row["note"] == ""


def test_trainings_are_averaged_once_though_their_mean_is_stored_too(study):
    for seed, value in enumerate((0.50, 0.54)):
        measure(study, "rparis6k", value, seed=seed, params={"image_size": 512})
    measure(study, "rparis6k", 0.52, params={"image_size": 512, "seeds": 2})
    row = published.measured_rows(study).squeeze()
    assert row["rpar_M"] == pytest.approx(52) and row["note"] == "mean of 2 trainings" and "320 px" in row["inputs"]


def test_parameters_chosen_for_each_benchmark_share_a_row_and_are_named(study):
    measure(study, "roxford5k", 0.6, rerank="ours", k=5, alpha=0.3)
    measure(study, "rparis6k", 0.7, rerank="ours", k=10, alpha=0.5)
    row = published.measured_rows(study).squeeze()
    assert (row["roxf_M"], row["rpar_M"], row["rerank"]) == (60, 70, "ours")
    assert row["note"] == "k 5, alpha 0.3 on roxford5k; k 10, alpha 0.5 on rparis6k"
    measure(study, "roxford5k", 0.9, rerank="ours", k=7, alpha=0.3)
    assert sorted(published.measured_rows(study)["roxf_M"].dropna()) == [60, 90], "two choices are not averaged"


# ---- tables


def test_measured_rows_stand_among_the_published_of_their_backbone(study, table):
    assert published.side_by_side(table, published.measured_rows(study), "hard").empty
    measure(study, "roxford5k", 0.999)
    beside = published.side_by_side(table, published.measured_rows(study), "medium")
    assert set(beside["backbone"]) == {"ResNet50"} and "user run" not in set(beside["kind"])
    assert beside.iloc[0]["kind"] == "measured here" and beside["roxford5k"].dropna().is_monotonic_decreasing
    with pytest.raises(ValueError, match="no difficulty 'M'"):
        published.side_by_side(table, table[:0], "M")


def test_the_best_of_a_group_is_its_highest_row(table):
    best = published.best_of(table, ["backbone"]).set_index("backbone")
    assert best.at["VGG16", "roxf_M"] == 61.9 and best.at["VGG16", "rows"] == 2


def test_a_contrast_compares_only_what_agrees_otherwise(table):
    dolg = table[(table["method"] == "DOLG") & (table["source"] == "feymanpriv/DOLG") & (table["kind"] == "published")]
    crop = published.contrast(dolg, "query_crop", "yes", "no", ["method", "backbone"]).set_index("backbone")
    assert crop.at["ResNet50", "roxf_M"] == pytest.approx(82.38 - 81.20)
    assert published.contrast(table, "train_set", "ImageNet", "SfM-120k", ["method"]).empty


# ---- what the page on reproduction quotes


def test_every_expected_figure_of_the_page_on_reproduction_stands_in_the_table(table):
    page = (repository_root() / "docs" / "reproduce.md").read_text(encoding="utf-8")
    section = page.split("<!-- expected -->")[1].split("<!-- end of expected -->")[0]
    lines = [line for line in section.splitlines() if re.search(r"\d\d\.\d", line)]
    assert len(lines) >= 5
    for line in lines:
        quoted = {float(number) for number in re.findall(r"\b\d\d\.\d+\b", line)}
        rows = table[[f"`{method}`" in line for method in table["method"]]]
        assert any(quoted <= set(row) for row in rows[published.FIGURES].to_numpy()), f"no row holds {quoted}: {line}"
