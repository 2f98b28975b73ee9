"""A head, a loss, a re-ranker and a data set of one's own: one file or one line of a profile each, and their rows come."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssr_lib import metrics
from ssr_lib.rerank import first_ranking
from ssr_lib.study import Study, choose, rows, tables

HEAD = """
import torch
from torch import nn

class Head(nn.Module):
    def __init__(self, channels, *, seed=0, weight: float = 1.0):
        super().__init__()
        self.width, self.weight = channels[2], nn.Parameter(torch.tensor(weight))

    def forward(self, mid, last, project):
        x = project(last)  # (B, C, H, W)
        return x.mean((2, 3)) + self.weight * x.amax((2, 3))
"""
LOSS = """
import torch

class Loss(torch.nn.Module):
    per_class = 2

    def __init__(self, width, classes, *, seed=0, scale: float = 10.0):
        super().__init__()
        self.scale = scale

    def forward(self, descriptors, labels):
        itself = torch.eye(len(labels), dtype=torch.bool)
        similarities = (self.scale * descriptors @ descriptors.T).masked_fill(itself, -1e9)  # (B, B)
        right = (labels[:, None] == labels) & ~itself
        nearest = right.gather(1, similarities.argmax(1, keepdim=True)).float().mean()
        return -similarities.log_softmax(1)[right].mean(), nearest
"""
RERANKER = """
import numpy as np

from ssr_lib.rerank import Reranking, first_ranking

NEEDS = "descriptors"

def rerank(queries, database, first, *, prepared=None, places: int = 0):
    found = first_ranking(queries, database) if first is None else first
    return Reranking(np.roll(found.ids, places, axis=1), np.roll(found.scores, places, axis=1))
"""
PROFILE = """
base: smoke
title: Parts of one's own
data:
  image_size: 64
  drawn_size: 64
  training: {seed: 1, landmarks: 4, views: 3}
  validation: {seed: 2, landmarks: 3, views: [3, 4], same_style: 0, same_building: 0, distractors: 4}
  test: {seed: 3, landmarks: 3, views: [3, 4], same_style: 0, same_building: 0, distractors: 4}
model: {descriptor_dim: 8}
networks: {mine: {head: my_head.py, options: {weight: 0.5}, seeds: [0, 1], steps: 2}}
tables: {main: [mine]}
training: {loss: my_loss.py, loss_options: {base: null, scale: 12.0}, batch_size: 4}
rerankers: {AQE: null, αQE: null, DBA: null, αQE + DBA: null, SuperGlobal: null, GFR: null,
             mine: {module: my_reranker.py, candidates: {places: [0, 1]}}}
"""


@pytest.fixture
def profile(tmp_path):
    """A profile that names a head, a loss and a re-ranker of the folder that it lies in."""
    for name, text in {"head": HEAD, "loss": LOSS, "reranker": RERANKER}.items():
        (tmp_path / f"my_{name}.py").write_text(text, encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def test_a_head_a_loss_and_a_reranker_from_a_folder_have_their_rows_in_the_table(profile, tmp_path):
    study = Study(str(profile), tmp_path, notebook="05_ablation", progress=False)
    benchmark, scores = study.benchmark(), []
    for network in study.networks("main"):
        for seed in study.seeds(network):
            queries, database = study.descriptors(network, seed)  # (Q, 8), (N, 8)
            first = first_ranking(queries, database)
            for name, chosen in study.choices().items():
                found = study.reranker(name).rerank(queries, database, first, **chosen)
                key = {"dataset": "drawn", "network": network, "reranker": name, "seed": seed, "chosen": chosen}
                scores.append(rows.per_query(metrics.evaluate(found.ranks, benchmark).ap, benchmark, **key))
    scores = pd.concat(scores)
    study.write_rows(scores)
    study.write_table("main", tables.mean_and_deviation(scores, ["network", "reranker"]))

    trials = pd.DataFrame(choose.record(study, "drawn")["trials"])
    assert list(trials["parameters"]) == [{"places": 0}, {"places": 1}]
    assert study.choices()["mine"] == trials.loc[trials["mAP"].idxmax(), "parameters"]
    assert float(study.network("mine", 0).head.weight.detach()) != 0.5, "the head's own parameter is trained"
    table = pd.read_csv(study.results_dir / "tables" / "main.csv")
    assert table[["network", "reranker"]].to_numpy().tolist() == [["mine", "none"], ["mine", "mine"]]
    found = study.read_rows("05_ablation").query("difficulty == 'medium'")
    assert set(found["reranker"]) == {"none", "mine"} and set(found["seed"].dropna()) == {0, 1}


def test_a_data_set_is_one_line_of_a_profile(profile, tmp_path):
    rng, table = np.random.default_rng(0), ["file,label,split"]
    for label, colour in {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}.items():
        for split in ("query", "db", "db"):
            table.append(f"{label}{len(table)}.png,{label},{split}")
            picture = (rng.integers(-40, 40, (64, 64, 3)) + colour).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / table[-1].partition(",")[0])
    (tmp_path / "labels.csv").write_text("\n".join(table) + "\n")
    text = profile.read_text(encoding="utf-8").replace("data:\n", f"data:\n  labels: {{mine: {tmp_path}/labels.csv}}\n")
    profile.write_text(text, encoding="utf-8")

    study = Study(str(profile), tmp_path, progress=False)
    first = first_ranking(*study.descriptors("untrained", None, "mine"))
    assert metrics.evaluate(first.ids, study.benchmark("mine")).map["medium"] == 1.0, "colours tell these apart"
