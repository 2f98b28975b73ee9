"""The notebooks of the profile `real`, on pictures made in a second: they run, and say what their tables hold."""

import json
import re
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from cities import city, table
from kernels import study_here

from ssr_lib.study import describe, provenance
from ssr_lib.study.artefacts import Study

METHODS = ["none", "αQE", "αQE + DBA", "SuperGlobal", "GFR", "adaptive GFR, preferred after a look at ROxford5k"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    data = folder / "data"
    city(data / "north", 100)
    city(data / "south", 200)
    table(data / "few", [(300 + i // 2, i % 2, ("query", "db")[i % 2]) for i in range(6)])
    table(data / "train", [(400 + i // 5, i % 5, "train") for i in range(30)])
    table(data / "wrong", [(500 + i, 0, "distractor") for i in range(5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(data))
        yield study_here("real.yaml", folder)


def test_every_network_and_reranker_has_its_rows(done):
    found = done.read_rows("14_real").query("measure == 'mAP' and difficulty == 'medium' and dataset == 'north'")
    names = ["untrained", *(f"whitened {where}" for where in ("across cities", "on landmarks", "on groceries"))]
    assert [*found.groupby(["network", "reranker"], sort=False).groups] == [*product(names, METHODS)]
    assert found["n"].eq(6).all() and found["value"].between(0, 1).all()
    heads = done.read_rows("14b_real_heads").query("measure == 'mAP' and difficulty == 'medium' and dataset == 'south'")
    keys = heads[["network", "reranker"]].assign(seed=heads["seed"].fillna(-1))  # -1: of all trainings
    assert {*keys.itertuples(index=False)} == {*product(["plain", "product", "neighbour"], METHODS, [0, 1, -1])}
    assert heads["chosen"].str.contains('"learned from": "train/labels.csv".*"rate": 0.01').all()
    few = pd.read_csv(done.results_dir / "tables" / "real_head_differences_few.csv")
    assert [*few["comparison"][:3]] == ["product − neighbour", "product − plain", "neighbour − plain"]


def test_the_ap_of_a_query_is_its_mean_over_the_sizes(done):
    for notebook in ("14_real", "14b_real_heads"):
        scores = done.read_scores(notebook).query("dataset == 'north' and difficulty == 'hard'")
        scores = scores[~scores["network"].str.contains("again")]  # seen at one size
        scores["seed"] = scores["seed"].fillna(-1)
        wide = scores.pivot(index=["network", "reranker", "seed", "query"], columns="measure", values="value")
        mean = wide[["AP, 64", "AP, 80"]].mean(axis=1)
        assert wide["AP"].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-4) and "AP, mean" in wide


def test_distractors_never_help_a_ranking_without_re_ranking(done):
    scores = done.read_scores("14_real").query("reranker == 'none' and measure == 'AP' and dataset.str.contains(' px')")
    wide = scores.pivot(index=["network", "difficulty", "query"], columns="dataset", values="value").dropna()
    assert (wide["north at 48 px with distractors"] <= wide["north at 48 px"]).all() and len(wide) == 2 * 3 * 6


def test_every_claim_has_a_verdict_and_heads_none_without_a_module_control(done):
    claims = pd.read_csv(done.results_dir / "tables" / "real_claims_north.csv").set_index("comparison")
    assert claims["verdict"]["product − neighbour"] == "no verdict"
    assert claims["verdict"]["attention − attention neighbour"] == "not tested here"
    assert claims["called with flipped signs (%)"][:3].between(0, 100).all()


def test_heads_are_compared_with_what_they_do_without_s_and_with_themselves(done):
    found = done.read_rows("14b_real_heads").pivot_table("value", "network", "measure")
    assert found["cosine"].between(0.5, 1).sum() == 2 and found["reference"].notna().sum() == 1
    again = done.read_scores("14b_real_heads").query("network.str.contains('again')")
    assert again.groupby(["network", "seed"]).ngroups == 3 * 2 and set(again["measure"]) == {"AP, 80"}
    negative = pd.read_csv(done.results_dir / "tables" / "real_negative_controls_north.csv", index_col="control")
    assert [*negative.index] == ["flipped signs", "against itself"] and negative["called (%)"].between(0, 100).all()


def test_what_is_missing_is_named_with_what_brings_it_and_the_rest_is_there(done):
    needed, further = describe.files_named(done.profile)
    provenance.check_data(needed)
    holidays, lost = provenance.missing(further)
    assert "`ssr fetch holidays` brings it" in holidays and lost.startswith("lost/labels.csv is not in")
    assert "lost" not in " ".join(done.read_rows("14_real")["network"])


def test_tables_of_the_labelled_subset_say_so(extra_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    folder, photos = tmp_path / "roxford5k" / "jpg", extra_data / "photos" / "roxford_subset"
    folder.mkdir(parents=True)
    pictures = [*(photos / "images").iterdir(), *(photos / "queries_original").iterdir()]
    for name, picture in {picture.name: picture for picture in pictures}.items():
        (folder / name).symlink_to(picture)
    (tmp_path / "roxford5k" / "gnd_roxford5k.pkl").symlink_to(extra_data / "gnd" / "gnd_roxford5k.pkl")
    study = Study("real", tmp_path)
    assert study.caption("roxford5k") == "roxford5k, labelled subset (775 of 4,993)" and study.caption("few") == "few"
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in study.benchmark("roxford5k").boxes]
    assert [sum(side < size for side in sides) for size in (272, 384)] == [9, 13], "cut from the original files"
    with pytest.raises(FileNotFoundError, match="of 5063 pictures"):
        Study("real", tmp_path, {"data.images": "complete"}).benchmark("roxford5k")


def page_of_queries(done, **parameters):
    study_here("real.yaml", done.workspace, {"11b_queries": parameters})
    text = (done.workspace / "data" / "pages" / done.name / "queries.html").read_text(encoding="utf-8")
    return json.loads(re.search('id="data">(.*?)</script>', text)[1])


def test_a_page_of_queries_ranks_photographs_as_notebook_14_does_and_is_no_result(done):
    maps, scores = {*(done.cache / "maps").iterdir()}, done.read_scores("14_real").sort_values("query")
    page = page_of_queries(done)
    assert {*(done.cache / "maps").iterdir()} == maps and not (done.results_dir / "queries.html").exists()
    scores = scores.query("measure == 'AP, 80' and difficulty == 'medium' and dataset in ['north', 'south', 'few']")
    for (dataset, network, method), values in scores.groupby(["dataset", "network", "reranker"])["value"]:
        if network in ("untrained", "whitened across cities") and method in ("none", "GFR", "αQE + DBA"):
            found = [query["ap"] for query in page["lists"][dataset][network][method]]
            assert found == pytest.approx(values.to_list(), abs=1e-4)
    assert re.match(".*'absent': holidays/labels.csv is not in", *page["missing"]) and len(page["pictures"]) == 36


def test_a_page_of_queries_names_pictures_a_network_and_a_reranker_that_are_gone_and_shows_the_rest(done, tmp_path):
    gone = [*done.workspace.glob("data/north/jpg/100_[012].jpg"), done.workspace / "data" / "few" / "300_0.png"]
    away = [file.rename(tmp_path / file.name) for file in gone]
    page = page_of_queries(done, networks=["untrained", "product"], methods=["none", "GFR", "renamed"])
    assert [*map(Path.rename, away, gone)] == gone
    told = "'product', of .* 'renamed', which .* 3 of 15 pictures [(]100_0, .* 6 pictures [(]300_0.png[)] "
    assert re.search(told, " ".join(page["missing"])) and list(page["lists"]["north"]["untrained"]) == ["none", "GFR"]
    assert [query["right"] for query in page["queries"]["north"] + page["queries"]["few"]] == [0, 0, 3, 3, 3, 3, 1, 1]
    assert [query["ap"] is None for query in page["lists"]["north"]["untrained"]["GFR"]] == [True] * 2 + [False] * 4
