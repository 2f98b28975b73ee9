"""The notebooks of the profile `paper`, end to end on two small revisited benchmarks: only data and sizes change."""

import json
from pathlib import Path

import pandas as pd
import pytest
import timm
from cities import city, draw
from kernels import execute_here
from safetensors.torch import save_file

from ssr_lib.commands.main import main
from ssr_lib.datasets import revisited
from ssr_lib.files import hash_file
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.official import convert
from ssr_lib.study import describe, run
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile
from ssr_lib.study.provenance import data_file
from ssr_lib.weights import save_checkpoint, stored_preprocess

NAMES = ("roxford5k", "rparis6k")  # their names, so that every table is made; admitted for these tests only
PROFILE = str(Path(__file__).parent / "profiles" / "paper.yaml")
VIT = {"backbone": "vit_small_patch16_224", "image_size": 64}  # of the one transformer
PAPER = load_profile(PROFILE)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    admitted = {name: hash_file(city(folder / name, 100 * i)) for i, name in enumerate(NAMES)}
    for i in range(12):
        draw(folder / "revisitop1m" / "jpg", f"{i}.jpg", 500 + i, 0)
    (folder / "revisitop1m" / "revisitop1m.txt").write_text("\n".join(f"{i}.jpg" for i in range(12)))
    extra = {"family": "cvnet", "trained_on": "GLDv2-clean", "preprocess": PRESETS["cvnet"].to_dict()}
    heads = {"plain": {"feed_forward": True}, "product": {"place": "last", "mid_channels": 16, "window": 3}}
    for backbone in ("resnet18", "resnet10t"):
        for head, options in heads.items():  # untrained
            net = RetrievalNet(backbone, head, options, descriptor_dim=64, pretrained="none", seed=0)
            save_checkpoint(folder / f"{backbone}-{head}", net, extra)
    save_file(timm.create_model(VIT["backbone"]).state_dict(), folder / "weights.safetensors")
    assert stored_preprocess(convert(folder / "weights.safetensors", VIT["backbone"], folder / "vit")).size == 224
    prepared = [change | ({"size": 64} if "size" in change else {}) for change in PAPER.sweeps.preprocess.changes]
    changes = {"sweeps.preprocess": {"images": 20, "changes": prepared}, "networks.DINOv2 S": VIT}
    workspace = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisited, "OFFICIAL", admitted)
        patch.setenv("SSR_DATA", str(folder))
        patch.setattr(run, "_execute", execute_here)
        measured = [name for name in PAPER.notebooks if name[:2] not in ("01", "02")]
        run.run(PROFILE, workspace, changes, notebooks=measured, progress=False)
        yield Study(PROFILE, workspace, changes, notebook="05_ablation", progress=False)


def test_every_table_is_made_for_both_benchmarks(opened):
    tables = {path.stem for path in (opened.results_dir / "tables").glob("*.csv")}
    for name in ("main", "backbones", "rerank", "claims", "k_alpha", "rerank_options", "preprocess"):
        assert {f"{name}_{dataset}" for dataset in NAMES} <= tables, name
    assert (opened.results_dir / "report.html").is_file()
    beside = pd.read_csv(opened.results_dir / "tables" / "comparison_hard.csv").query("backbone == 'ViT-S/16'")
    mine = beside[beside["kind"] == "measured here"]
    assert set(mine["method"]) == {"DINOv2 S"} and "DINOv3" in set(beside["method"]) and set(mine["dim"]) == {384}
    assert mine["inputs"].str.startswith("longest 64, ").all()
    assert {f"{name} 12 distractors" for name in NAMES} <= set(opened.read_rows("07_sweeps")["dataset"])
    made = {folder.name for folder in opened.cache.iterdir()}
    assert not made & {"networks", "pictures"}, "nothing is trained and nothing drawn"
    claims = pd.read_csv(opened.results_dir / "tables" / f"claims_{NAMES[0]}.csv")
    assert set(claims["verdict"]) == {"no verdict", "not tested here"}, "of single checkpoints, without drawings"


def test_a_set_under_a_published_name_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(describe, "OFFICIAL", {NAMES[0]: ""})
    with pytest.raises(ValueError, match=r"not the published .* in a profile: another name"):
        describe.read_benchmark(city(tmp_path, 7), NAMES[0], "complete")


def test_the_figure_is_the_one_that_the_command_line_measures(opened, capsys):
    name, weights = NAMES[0], data_file("resnet18-plain.safetensors")
    truth = data_file(f"{name}/gnd_{name}.pkl")
    command = ["evaluate", "--ground-truth", str(truth), "--images", str(truth.parent), "--model", str(weights)]
    assert main([*command, "--size", "80", "--k", "1", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["results"]["without re-ranking"]
    table = opened.read_rows("05_ablation").query("dataset == @name and network == 'plain' and reranker == 'none'")
    for difficulty, value in table.query("measure == 'mAP'").set_index("difficulty")["value"].items():
        assert value == pytest.approx(expected[difficulty]["mAP"], abs=1e-4), difficulty


def test_parameters_are_chosen_on_the_other_benchmark(opened):
    stored = json.loads((opened.results_dir / "choices.json").read_text(encoding="utf-8"))
    assert set(stored) == set(NAMES), "each is keyed by what it was chosen on"
    used = opened.read_rows("05_ablation").query("dataset == @NAMES[0] and reranker == 'GFR'")
    assert {text for text in used["chosen"]} == {json.dumps(stored[NAMES[1]]["chosen"]["GFR"], sort_keys=True)}
