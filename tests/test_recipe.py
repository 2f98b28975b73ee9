"""Training a whole network on pictures: kill and resume, two processes, what learns, what is refused and how."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
import torch
import yaml
from cities import draw
from test_train import curve, same_weights
from test_weights import Malicious

import recipes.gldv2.train as recipe_module
from recipes.gldv2.recipe import Recipe
from recipes.gldv2.train import Learner, main, train
from recipes.gldv2.views import TrainingViews, random_box, random_view
from ssr_lib.files import write_atomic
from ssr_lib.images import Preprocess
from ssr_lib.weights import load_checkpoint, read_record

SHIPPED = Path(__file__).resolve().parents[1] / "recipes" / "gldv2" / "recipe.yaml"
SMALL = {  # 12 steps over 24 pictures
    "image_size": 32, "workers": 0, "backbone": "test_efficientnet", "pretrained": "none", "descriptor_dim": 8,
    "head_options": {"mid_channels": 4, "window": 3}, "epochs": 4.0, "batch_size": 8, "rate": 0.02, "device": "cpu",
    "checkpoint_every": 4, "log_every": 1,
}  # fmt: skip
PLAIN = {"head": "plain", "head_options": {}}


def small_recipe(folder, out, **changes):
    values = yaml.safe_load(SHIPPED.read_text()) | SMALL
    values |= {"clean_csv": str(folder / "train_clean.csv"), "images": str(folder / "jpg"), "out": str(out)}
    return Recipe.model_validate(values | changes)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight noisy pictures of each of three landmarks where GLDv2 has its own, and their table."""
    folder, rows = tmp_path_factory.mktemp("gldv2"), ["landmark_id,images"]
    for landmark in (7, 70, 700):
        names = [f"{i}{landmark:015d}" for i in range(8)]
        rows.append(f"{landmark},{' '.join(names)}")
        for view, name in enumerate(names):
            draw(folder, f"jpg/{name[0]}/0/0/{name}.jpg", landmark, view)
    (folder / "train_clean.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    recipe = small_recipe(pictures, tmp_path_factory.mktemp("run"))
    return recipe, train(recipe)


@pytest.mark.parametrize("content,message", [
    ({"rate": "1e-4"}, "mine.yaml: rate is '1e-4'; a number is wanted (YAML takes 1e-4 for a text: write 0.0001)"),
    ({"learning_rate": 1.0}, "mine.yaml: learning_rate is unknown; there are clean_csv, images"),
    ("a: [", "mine.yaml is no YAML: "),
    ({"batch_size": 9, "accumulate": 2}, "batch_size is 9; a multiple of 1 processes x 2 parts"),
    ({"loss_options": {"angle": 1}}, "loss 'arcface' has no option angle"),
    ({"loss_options": {"margin": "x"}}, "loss 'arcface': TypeError: "), ({"loss": "os.path"}, "no attribute 'Loss'"),
    ({"head_options": {"mid_channels": "a"}}, "network with head 'product': TypeError: "),
    ({"seed": 2**70}, "mine.yaml: seed is 1180591620717411303424; "), ({"leave_out": "jpg"}, "jpg: one landmark id a line"),
    ({"leave_out": "most.txt"}, "train_clean.csv lists 1 landmarks but those of most.txt; two or more"),
])  # fmt: skip
def test_what_cannot_be_trained_is_told_in_one_line(pictures, tmp_path, monkeypatch, capsys, content, message):
    monkeypatch.chdir(tmp_path)
    Path("most.txt").write_text("7\n70\n")
    Path("jpg").write_bytes(b"\xff\xd8")
    if isinstance(content, dict):
        content = yaml.safe_dump(small_recipe(pictures, "run").model_dump() | content)
    Path("mine.yaml").write_text(content)
    assert main(["mine.yaml"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("train: ") and message in told and told.count("\n") == 1


@pytest.mark.parametrize(("train_backbone", "precision"), [(True, "float32"), (False, "bfloat16")])
def test_every_parameter_outside_the_frozen_part_moves(pictures, tmp_path, train_backbone, precision):
    options = {"mid_channels": 4, "window": 3, "learn_p": True}
    recipe = small_recipe(pictures, tmp_path, train_backbone=train_backbone, precision=precision, head_options=options)
    rows = train(recipe)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    net, fresh = load_checkpoint(tmp_path / "model"), Learner(recipe, 3).net
    before = fresh.state_dict()
    moved = {name: not torch.equal(value, before[name]) for name, value in net.named_parameters()}
    expected = {name: train_backbone or not name.startswith("backbone.mid.") for name in moved}
    assert moved["head.pooling.p"] and moved == expected
    for name, value in net.backbone.named_buffers():
        assert torch.equal(value, before[f"backbone.{name}"]), "batch norms keep their pretrained statistics"


def test_a_killed_training_continues_to_the_same_bits_and_a_finished_one_is_found(trained, tmp_path, monkeypatch):
    recipe, rows = trained
    broken = recipe.model_copy(update={"out": str(tmp_path)})
    counted = Mock(wraps=recipe_module.one_step, side_effect=[*5 * [DEFAULT], KeyboardInterrupt])
    monkeypatch.setattr(recipe_module, "one_step", counted)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    counted.reset_mock(side_effect=True)
    resumed = train(broken)
    assert counted.call_count == 8, "four steps of twelve were in the state"
    assert curve(resumed) == curve(rows)
    assert same_weights(load_checkpoint(tmp_path / "model"), load_checkpoint(f"{recipe.out}/model"))
    extra = read_record(tmp_path / "model")["extra"]
    assert extra["trained_on"] == "GLDv2-clean" and Preprocess(**extra["preprocess"]).scales == (0.7071, 1.0, 1.4142)
    assert not (tmp_path / "state.pt").exists() and train(broken) == resumed and counted.call_count == 8
    (tmp_path / "state.pt").touch()  # of a run that was killed at its very end
    assert train(broken) == resumed and not (tmp_path / "state.pt").exists()
    with pytest.raises(ValueError, match=r"rate is 0\.02 there, 0\.5 now"):
        train(broken.model_copy(update={"rate": 0.5}))
    with pytest.raises(FloatingPointError, match=r"far: loss .*, length of the gradient .*; lower `rate`"):
        train(broken.model_copy(update={"rate": 1e38, "out": str(tmp_path / "far")}))


def test_a_state_that_holds_more_than_numbers_is_named_and_not_run(pictures, tmp_path, capsys):
    torch.save({"made_by": Malicious()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is damaged \(Weights only load failed\); delete it"):
        train(small_recipe(pictures, tmp_path))
    assert capsys.readouterr().out == ""


def test_a_batch_in_parts_makes_the_same_step_and_a_row_is_the_mean_of_its_steps(pictures, tmp_path):
    each = train(small_recipe(pictures, tmp_path / "each", **PLAIN))
    means = train(small_recipe(pictures, tmp_path / "means", **PLAIN, accumulate=4, log_every=4, checkpoint_every=8))
    assert [row["step"] for row in means] == [4, 8, 12]
    for row in means:
        steps = [other["loss"] for other in each[row["step"] - 4 : row["step"]]]
        assert row["loss"] == pytest.approx(np.mean(steps), rel=1e-3)


# Two forked processes for each training, as of torchrun but without its start-up time; who kills them kills both at once.
PROCESSES = """
import multiprocessing, os, socket, sys, time
from pathlib import Path
import torch
import recipes.gldv2.train as module
from recipes.gldv2.recipe import Recipe

def process(rank, port, recipe, stops):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    steps = (6 if stops else 12) * [module.one_step] + [lambda *arguments: time.sleep(1000)]
    module.one_step = lambda *arguments: steps.pop(0)(*arguments)
    module.train(recipe)

recipe = Recipe.model_validate_json(sys.argv[1])
for name, dies in (("whole", False), ("killed", True), ("killed", False)):
    port, out = str(socket.create_server(("127.0.0.1", 0)).getsockname()[1]), Path(recipe.out) / name
    fork, given = multiprocessing.get_context("fork"), (port, recipe.model_copy(update={"out": str(out)}), dies)
    both = [fork.Process(target=process, args=(rank, *given), daemon=True) for rank in (0, 1)]
    [one.start() for one in both]
    while dies and all(one.is_alive() for one in both):
        time.sleep(0.05)
        if (out / "state.pt").is_file():
            [one.kill() for one in both]
    [one.join() for one in both]
    print(*(one.exitcode for one in both), (out / "state.pt").is_file())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks processes that hold torch, and uses gloo")
def test_two_killed_processes_continue_to_the_same_bits_and_see_what_one_sees(pictures, trained, tmp_path):
    command = [sys.executable, "-c", PROCESSES, small_recipe(pictures, tmp_path).model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[1])
    assert done.stdout.split("\n") == ["0 0 False", "-9 -9 True", "0 0 False", ""], done.stdout + done.stderr
    whole, killed = (json.loads((tmp_path / run / "training.json").read_text())["rows"] for run in ("whole", "killed"))
    assert curve(killed) == curve(whole)
    assert same_weights(*(load_checkpoint(tmp_path / run / "model") for run in ("whole", "killed")))
    # the head's batch norm takes its statistics over each process's half of the batch, at first the only difference
    assert trained[1][0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-4)
    assert trained[1][-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.3)


def test_a_truncated_picture_that_a_worker_meets_is_named_in_one_line(pictures, tmp_path, capsys):
    picture = tmp_path / "jpg" / "a" / "a" / "a" / "aaaa.jpg"
    write_atomic(picture, next((pictures / "jpg").rglob("*.jpg")).read_bytes()[:900])
    write_atomic(tmp_path / "train_clean.csv", "landmark_id,images\n1,aaaa\n2,aaaa\n")
    recipe = small_recipe(tmp_path, tmp_path / "run", workers=1, batch_size=2)
    write_atomic(tmp_path / "mine.yaml", yaml.safe_dump(recipe.model_dump()))
    assert main([str(tmp_path / "mine.yaml")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"train: {picture}: ")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 500), (400, 400)])
def test_crops_lie_in_the_picture_and_have_the_stated_areas_and_aspects(height, width):
    rng = np.random.default_rng(0)
    x0, y0, x1, y1 = np.array([random_box(height, width, rng) for _ in range(2000)]).T
    assert min(*x0, *y0) >= 0 and max(x1) <= width and max(y1) <= height and (x0 < x1).all() and (y0 < y1).all()
    if height == 400:
        share, aspect = (x1 - x0) * (y1 - y0) / 400**2, (x1 - x0) / (y1 - y0)
        assert 0.075 < share.min() < 0.1 and share.max() > 0.95
        assert 0.73 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.36
    assert random_box(10, 1000, rng) == (495, 0, 505, 10), "too narrow for any draw: the middle square"


def test_views_are_mirrored_half_of_the_time_and_prepared_as_the_backbone_was_trained(pictures, tmp_path):
    image = np.zeros((64, 64, 3), np.uint8) + np.arange(0, 256, 4, np.uint8)[:, None]  # brighter to the right
    preprocess = Preprocess(size_rule="none", size=None)
    views = [random_view(image, 16, preprocess, np.random.default_rng(i)) for i in range(300)]
    assert 0.4 < np.mean([bool(view[0, 0, 0] > view[0, 0, -1]) for view in views]) < 0.6
    for backbone, mean in {"resnet50": (0.485, 0.456, 0.406), "tf_efficientnet_lite0": (0.5, 0.5, 0.5)}.items():
        assert TrainingViews(small_recipe(pictures, tmp_path, backbone=backbone)).preprocess.mean == mean
