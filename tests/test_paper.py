"""The notebooks of the profile `paper`, end to end on two revisited benchmarks in miniature: nothing but data and sizes changes."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from kernels import execute_here

from drawn_landmarks import SyntheticSpec, draw_benchmark
from ssr_lib.benchmark import Benchmark
from ssr_lib.commands.main import main
from ssr_lib.datasets import revisited
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.study import describe, run
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile
from ssr_lib.weights import save_checkpoint

NAMES = ("roxford5k", "rparis6k")  # their names, so that every table is made; admitted for these tests only
PAPER = load_profile("paper")


def build(folder: Path, name: str, town: Benchmark, groups: list[str], distractors: list[str]) -> str:
    """A set in exactly the layout of a fetched one: the queries of `groups`; and revisitop1m with the distractors.

    Returns the SHA-256 of its ground truth. A query's box leaves out a margin; of its positives the first is easy, the
    second hard, the third junk, and so on.
    """
    queries = [q for q, group in enumerate(town.groups) if group in groups]
    used = sorted(set(np.concatenate([town.positives[q] for q in queries]).tolist()))
    listed = [town.database[i] for i in used], [town.queries[q] for q in queries]
    for target, files in ((f"{name}/jpg", [*listed[0], *listed[1]]), ("revisitop1m/jpg/a0", distractors)):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(town.root / file, folder / target)
    names = [f"a0/{Path(file).name}\n" for file in sorted(distractors)]
    (folder / "revisitop1m" / "revisitop1m.txt").write_text("".join(names))
    truth = []
    for q in queries:
        height, width = cv2.imread(str(town.root / town.queries[q])).shape[:2]
        places = np.searchsorted(used, [*town.easy[q], *town.hard[q]])
        record = {"easy": places[::3], "hard": places[1::3], "junk": places[2::3]}
        truth.append(record | {"bbx": [0.05 * width, 0.05 * height, 0.95 * width, 0.95 * height]})
    imlist, qimlist = ([Path(file).stem for file in files] for files in listed)
    data = pickle.dumps({"imlist": imlist, "qimlist": qimlist, "gnd": truth}, protocol=2)
    (folder / name / f"gnd_{name}.pkl").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with both benchmarks, distractors and checkpoints; and the changes to the profile."""
    folder = tmp_path_factory.mktemp("data")
    views = {"fixed_views": 5, "same_style": 0, "same_building": 0, "distractors": 12}
    spec = SyntheticSpec("town", 5, landmarks=16, size=128, **views)
    town = draw_benchmark(spec, tmp_path_factory.mktemp("town"), progress=False)["ordinary"]
    groups = sorted(set(town.groups))
    admitted = {name: build(folder, name, town, groups[i::2], town.database[-12:]) for i, name in enumerate(NAMES)}
    changes = {"data.distractors": "revisitop1m", "extraction.size": 80, "extraction.device": "cpu"}
    changes |= {"model.descriptor_dim": 64, "model.backbone": "resnet18"}
    extra = {"family": "cvnet", "trained_on": "GLDv2-clean", "preprocess": PRESETS["cvnet"].to_dict()}
    heads = {"plain": {"feed_forward": True}, "product": {"place": "last", "mid_channels": 16, "window": 3}}
    for backbone, prefix in (("resnet18", ""), ("resnet10t", "resnet101 ")):
        for head, options in heads.items():  # untrained
            net = RetrievalNet(backbone, head, options, descriptor_dim=64, pretrained="none", seed=0)
            save_checkpoint(folder / f"{backbone}-{head}", net, extra)
            changes[f"networks.{prefix}{head}"] = {"backbone": backbone, "checkpoint": f"{backbone}-{head}"}
    for name, line in PAPER.rerankers.items():
        few = {key: values[: 4 // len(line.candidates)] for key, values in line.candidates.items()}
        changes[f"rerankers.{name}.candidates"] = few
    changes |= {"local": {"queries": 3, "shortlist": 5}}
    changes |= {"sweeps": {"k": [1, 3], "alpha": [0.25, 0.5], "shortlist": [10]}}
    prepared = [change | ({"size": 64} if "size" in change else {}) for change in PAPER.sweeps.preprocess.changes]
    changes |= {"sweeps.rounds": [1, 2], "sweeps.database": [100, 200]}
    changes["sweeps.preprocess"] = {"images": 20, "changes": prepared}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisited, "OFFICIAL", admitted)
        yield folder, changes


@pytest.fixture(scope="module")
def opened(data, tmp_path_factory):
    """The profile run on them, opened."""
    folder, changes = data
    workspace = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(folder))
        patch.setattr(run, "_execute", execute_here)
        measured = [name for name in PAPER.notebooks if name[:2] not in ("01", "02")]
        run.run("paper", workspace, changes, notebooks=measured, progress=False)
        yield Study("paper", workspace, changes, notebook="05_ablation", progress=False)


def test_every_table_is_made_for_both_benchmarks(opened):
    tables = {path.stem for path in (opened.results_dir / "tables").glob("*.csv")}
    for name in ("main", "backbones", "rerank", "claims", "k_alpha", "rerank_options", "preprocess"):
        assert {f"{name}_{dataset}" for dataset in NAMES} <= tables, name
    assert (opened.results_dir / "report.html").is_file()
    assert {f"{name} 12 distractors" for name in NAMES} <= set(opened.read_rows("07_sweeps")["dataset"])
    made = {folder.name for folder in opened.cache.iterdir()}
    assert not made & {"networks", "pictures"}, "nothing is trained and nothing drawn"
    claims = pd.read_csv(opened.results_dir / "tables" / f"claims_{NAMES[0]}.csv")
    assert set(claims["verdict"]) == {"no verdict", "not tested here"}, "of single checkpoints, without drawings"


def test_a_set_under_a_published_name_that_is_not_the_published_one_is_refused(data, tmp_path, monkeypatch):
    folder, changes = data
    monkeypatch.setenv("SSR_DATA", str(folder))
    monkeypatch.setattr(revisited, "OFFICIAL", {})
    monkeypatch.setattr(describe, "OFFICIAL", {NAMES[0]: ""})
    with pytest.raises(ValueError, match=r"not the published .* in a profile: another name"):
        Study("paper", tmp_path, changes).benchmark(NAMES[0])


def test_the_figure_is_the_one_that_the_command_line_measures(opened, data, capsys):
    folder, changes = data
    name, weights = NAMES[0], folder / changes["networks.plain"]["checkpoint"]
    command = ["evaluate", "--ground-truth", str(folder / name / f"gnd_{name}.pkl"), "--images", str(folder / name)]
    assert main([*command, "--model", f"{weights}.safetensors", "--size", "80", "--k", "1", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["results"]["without re-ranking"]
    table = opened.read_rows("05_ablation").query("dataset == @name and network == 'plain' and reranker == 'none'")
    for difficulty, value in table.query("measure == 'mAP'").set_index("difficulty")["value"].items():
        assert value == pytest.approx(expected[difficulty]["mAP"], abs=1e-4), difficulty


def test_parameters_are_chosen_on_the_other_benchmark(opened):
    stored = json.loads((opened.results_dir / "choices.json").read_text(encoding="utf-8"))
    assert set(stored) == set(NAMES), "each is keyed by what it was chosen on"
    used = opened.read_rows("05_ablation").query("dataset == @NAMES[0] and reranker == 'GFR'")
    assert {text for text in used["chosen"]} == {json.dumps(stored[NAMES[1]]["chosen"]["GFR"], sort_keys=True)}
