"""The notebooks of the profile `real`, on pictures made in a second: they run, and say what their tables hold."""

import pickle

import numpy as np
import pytest
from kernels import execute_here
from PIL import Image

from ssr_lib.study.artefacts import Study

PROFILE = """
base: {real}
data:
  datasets: [north, south, few]
  labels: {base: null, north: north/gnd_north.pkl, south: south/gnd_south.pkl, few: few/labels.csv}
  training_labels: train/labels.csv
  whitening_labels: {groceries: train/labels.csv}
  distractors: wrong
model: {descriptor_dim: 8}
photographs: {sizes: [64, 80], reduced: 48, square: 64, shrinkage: [1.0], folds: 2, galleries: 1, positives: [1, 3], asked: 2,
              distractors: 4, rates: [1.0e-2], no_more_than: [2]}
training: {steps: 2, batch_size: 4, seeds: [0, 1]}
tables: {main: [plain, product, neighbour]}
rerankers:
  αQE: {candidates: {k: [1, 2], exponent: [1.0]}}
  αQE + DBA: {candidates: {k: [1, 2], exponent: [1.0]}}
  SuperGlobal: {candidates: {k: [1, 2], beta: [1.0]}}
  GFR: {candidates: {k: [1, 2], alpha: [0.5]}}
"""


def draw(folder, name, landmark, view):
    """A picture of a landmark: its own coarse pattern with the noise of the view."""
    coarse = np.random.default_rng([landmark, 7]).integers(0, 256, (6, 8, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((96, 72), Image.Resampling.NEAREST), int)
    noise = np.random.default_rng([landmark, view]).integers(-60, 61, picture.shape)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(folder / name)


def table(folder, rows):
    """A folder of pictures with its labels.csv; rows: (landmark, view, split)."""
    lines = ["file,label,split"]
    for landmark, view, split in rows:
        draw(folder, f"{landmark}_{view}.png", landmark, view)
        lines.append(f"{landmark}_{view}.png,{landmark},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def city(folder, first):
    """A benchmark of three landmarks with two queries, two easy and a hard picture each."""
    imlist, qimlist, gnd = [], [], []
    for landmark in range(first, first + 3):
        here = len(imlist)
        imlist += [f"{landmark}_{view}" for view in range(3)]
        qimlist += [f"{landmark}_{view}" for view in (3, 4)]
        gnd += [{"easy": [here, here + 1], "hard": [here + 2], "junk": [], "bbx": [4, 4, 60, 50]}] * 2
        for view in range(5):
            draw(folder, f"{landmark}_{view}.jpg", landmark, view)
    truth = {"imlist": imlist, "qimlist": qimlist, "gnd": gnd}
    (folder / f"gnd_{folder.name}.pkl").write_bytes(pickle.dumps(truth))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    city(folder / "data" / "north", 100)
    city(folder / "data" / "south", 200)
    table(folder / "data" / "few", [(300 + i // 2, i % 2, ("query", "db")[i % 2]) for i in range(6)])
    table(folder / "data" / "train", [(400 + i // 5, i % 5, "train") for i in range(30)])
    for i in range(5):
        draw(folder / "data" / "wrong", f"{i}.png", 500 + i, 0)
    (folder / "tiny.yaml").write_text(PROFILE.replace("{real}", "real"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(folder / "data"))
        yield Study(str(folder / "tiny.yaml"), folder, progress=False)


@pytest.fixture(scope="module")
def re_ranked(study):
    execute_here(study, "14_real", profile=study.source, workspace=str(study.workspace), changes=None)
    return Study(study.source, study.workspace, notebook="14_real")


def test_every_network_and_reranker_has_its_rows(re_ranked):
    found = re_ranked.read_rows("14_real").query("measure == 'mAP' and difficulty == 'medium' and dataset == 'north'")
    whitened = [f"whitened {where}" for where in ("across cities", "on landmarks", "on groceries")]
    assert set(found["network"]) == {"untrained", *whitened}
    assert set(found["reranker"]) == {*re_ranked.profile.rerankers} and len(found) == 4 * len(
        re_ranked.profile.rerankers
    )
    assert found["n"].eq(6).all() and found["value"].between(0, 1).all()


def test_the_ap_of_a_query_is_its_mean_over_the_sizes(re_ranked):
    scores = re_ranked.read_scores("14_real").query("dataset == 'north' and difficulty == 'hard'")
    wide = scores.pivot(index=["network", "reranker", "query"], columns="measure", values="value")
    assert wide["AP"].to_numpy() == pytest.approx(wide[["AP, 64", "AP, 80"]].mean(axis=1).to_numpy(), abs=1e-4)
    assert "AP, mean" in wide
