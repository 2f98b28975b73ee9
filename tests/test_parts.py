"""A head, a loss, a re-ranker and a data set of one's own: one file or one line of a profile each, and their rows come."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from cities import table
from kernels import study_here

from ssr_lib import metrics
from ssr_lib.rerank import first_ranking
from ssr_lib.study import Study

PARTS = Path(__file__).parents[1] / "ssr_lib"
HEAD, LOSS = (PARTS / "heads" / "plain.py").read_text(), (PARTS / "losses" / "smooth_ap.py").read_text()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    for name, text in {"my_head": HEAD, "my_loss": LOSS, "my_reranker": (PARTS / "rerank/aqe.py").read_text()}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return Path(shutil.copy(Path(__file__).parent / "profiles" / "mine.yaml", folder))


def test_a_head_a_loss_and_a_reranker_from_a_folder_have_their_rows_in_the_notebooks_of_peers(profile):
    notebooks = {"12_peers": {}, "12b_peers_rerank": {}, "12c_peers_local": {"steps": 2}}
    study = study_here(str(profile), profile.parent, notebooks)
    heads, rerankers = study.read_rows("12_peers"), study.read_rows("12b_peers_rerank")
    losses = ["arcface", "cosface", "triplet", "contrastive", "smooth_ap", "listwise_ap", "second_order"]
    assert [*heads["network"].unique()] == ["plain", "mine", *(f"plain, {loss}" for loss in losses)]
    assert [*rerankers["reranker"].unique()] == ["none", "GFR", "diffusion", "mine", "LAttQE"]
    trials = pd.read_csv(study.results_dir / "tables" / "peers_trials.csv").set_index("reranker")["count"]
    assert (trials["mine"], trials["LAttQE"]) == (2, 6)
    assert {"GFR", "GFR, large", "none, large"} < {*study.read_rows("12c_peers_local")["reranker"]}
    assert float(study.network("mine", 0).head.pooling.p.detach()) != 3.0, "the head's own parameter is trained"
    assert study.recipe("plain", 0).loss == str(profile.parent / "my_loss.py")


def test_a_data_set_is_one_line_of_a_profile(profile, tmp_path):
    table(tmp_path, [(i // 3, i % 3, ("query", "db", "db")[i % 3]) for i in range(9)])
    study = Study(str(profile), tmp_path, {"data.labels": {"mine": f"{tmp_path}/labels.csv"}}, progress=False)
    first = first_ranking(*study.descriptors("untrained", None, "mine"))
    assert metrics.evaluate(first.ids, study.benchmark("mine")).map["medium"] > 0.8  # chance is 0.4
