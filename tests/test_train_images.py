"""Training on pictures: two processes killed and resumed, parts of a batch, and who sees which view."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.gldv2.train import ImageTrainConfig, Place, Positions, TrainingViews, train_images
from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.images import Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.weights import load_checkpoint, read_record

PREPROCESS = Preprocess(size_rule="none", size=None)
CONFIG = ImageTrainConfig(epochs=4, batch_size=8, image_size=32, lr=0.02)  # 12 steps over 24 pictures
CPU = torch.device("cpu")


def draw_pictures(root):
    """Twenty-four noisy pictures of three colours in `root`: their names and landmark ids."""
    rng = np.random.default_rng(0)
    files, labels = [f"{i}.png" for i in range(24)], np.repeat([7, 70, 700], 8)
    colours = {7: (200, 40, 40), 70: (40, 200, 40), 700: (40, 40, 200)}
    for file, label in zip(files, labels, strict=True):
        noise = rng.integers(-40, 40, (40, 48, 3))
        Image.fromarray((noise + colours[label]).clip(0, 255).astype(np.uint8)).save(root / file)
    return files, labels


def run(root, directory, variant="self-similarity", config=CONFIG, **options):
    """A tiny net trained on the pictures in `root`: the net and its curve."""
    net = RetrievalNet("test_efficientnet", variant, mid_channels=4, window=3, descriptor_dim=8, pretrained="none")
    files, labels = [f"{i}.png" for i in range(24)], np.repeat([7, 70, 700], 8)
    options = {"workers": 0, "checkpoint_every": 4, "log_every": 1, "progress": False, **options}
    return net, train_images(net, root, files, labels, PREPROCESS, config, directory, **options)


def curve(rows):
    return [(row["step"], row["loss"], row["accuracy"], row["lr"]) for row in rows]


def same_weights(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    draw_pictures(root)
    return root


# One import of torch, then two forked processes for each of three runs: as torchrun, without its start-up time.
PROCESSES = """
import multiprocessing, os, signal, socket, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
import test_train_images as t
import recipes.gldv2.train as train_images
from ssr_lib.files import folder_lock
root, out = Path({root!r}), Path({out!r})

def process(rank, port, directory, dies):
    os.environ |= {{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port)}}
    torch.set_num_threads(1)
    if dies:
        step, calls = train_images.Run._step, []
        def dying_step(self, parts, rate):
            calls.append(1)
            if len(calls) == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, parts, rate)
        train_images.Run._step = dying_step
    t.run(root, directory)

def start(directory, dies=False):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=process, args=(rank, port, directory, dies)) for rank in (0, 1)]
    [one.start() for one in both]
    [one.join(100) for one in both]
    return [one.exitcode for one in both]

print(start(out / "whole"), start(out / "killed", dies=True), (out / "killed" / "state.safetensors").is_file(),
      start(out / "killed"))
with folder_lock(out / "busy"):
    print(start(out / "busy"))
"""


@pytest.fixture(scope="module")
def two_processes(pictures, tmp_path_factory):
    """Three runs by two processes each: one in one go, one killed at its seventh step and run again, one refused."""
    out = tmp_path_factory.mktemp("runs")
    script = PROCESSES.format(tests=os.path.dirname(__file__), root=str(pictures), out=str(out))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280)
    assert done.stdout.split("\n")[:2] == ["[0, 0] [-9, -9] True [0, 0]", "[1, 1]"], done.stdout + done.stderr
    assert done.stderr.count("FolderBusyError: ") == 2, "neither waits for the other"
    return out


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="forks processes that hold torch, and uses gloo")


@needs_fork
def test_two_killed_processes_continue_to_the_same_bits(two_processes):
    whole, killed = (json.loads((two_processes / run / "training.json").read_text()) for run in ("whole", "killed"))
    assert [row["step"] for row in whole["rows"]] == list(range(1, 13))
    assert curve(killed["rows"]) == curve(whole["rows"])
    nets = [load_checkpoint(two_processes / run / "model") for run in ("whole", "killed")]
    assert same_weights(*nets)
    assert whole["rows"][-1]["loss"] < 0.8 * whole["rows"][0]["loss"], "and it learns"


@needs_fork
def test_two_processes_see_what_one_process_sees(pictures, two_processes, tmp_path):
    _, alone = run(pictures, tmp_path)
    both = json.loads((two_processes / "whole" / "training.json").read_text())["rows"]
    # the module's batch norm takes its statistics over each process's half of the batch, at first the only difference
    assert alone[0]["loss"] == pytest.approx(both[0]["loss"], rel=1e-4)
    assert alone[-1]["loss"] == pytest.approx(both[-1]["loss"], rel=0.3)


def test_a_batch_in_parts_makes_the_same_step(pictures, tmp_path):
    whole, rows = run(pictures, tmp_path / "whole", "plain", replace(CONFIG, epochs=1))
    parts, rows_in_parts = run(pictures, tmp_path / "parts", "plain", replace(CONFIG, epochs=1, accumulate=4))
    assert [row["loss"] for row in rows_in_parts] == pytest.approx([row["loss"] for row in rows], rel=1e-3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("train_trunk", [True, False])
def test_the_trunk_learns_if_it_should(pictures, tmp_path, train_trunk):
    config = replace(CONFIG, epochs=0.3, train_trunk=train_trunk)
    trained, _ = run(pictures, tmp_path, "plain", config)
    fresh = RetrievalNet("test_efficientnet", "plain", descriptor_dim=8, pretrained="none")
    assert same_weights(trained.backbone.trunk, fresh.backbone.trunk) != train_trunk
    assert not same_weights(trained.backbone.tail, fresh.backbone.tail)
    before, after = (dict(net.backbone.named_buffers()) for net in (fresh, trained))
    assert all(torch.equal(before[key], after[key]) for key in before), "batch norms keep their pretrained statistics"


def test_mixed_precision_learns_too(pictures, tmp_path):
    _, rows = run(pictures, tmp_path, "plain", replace(CONFIG, precision="bfloat16"))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


def test_an_interrupted_run_continues_and_a_finished_one_is_loaded(pictures, tmp_path, monkeypatch):
    from recipes.gldv2 import train as module

    whole, rows = run(pictures, tmp_path / "whole")
    step, calls = module.Run._step, []

    def interrupted(self, parts, rate):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, parts, rate)

    monkeypatch.setattr(module.Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "broken")
    calls.clear()
    monkeypatch.setattr(module.Run, "_step", lambda *args: calls.append(1) or step(*args))
    net, resumed = run(pictures, tmp_path / "broken")
    assert len(calls) == 8, "four steps of twelve were in the state"
    assert curve(resumed) == curve(rows) and same_weights(net, whole)
    calls.clear()
    net, loaded = run(pictures, tmp_path / "broken")
    assert not calls and loaded == resumed and same_weights(net, whole)
    with pytest.raises(ValueError, match=r"config\.lr is 0\.02 there, 0\.5 here"):
        run(pictures, tmp_path / "broken", config=replace(CONFIG, lr=0.5))


def test_rows_are_means_and_the_model_says_how_to_prepare_pictures(pictures, tmp_path):
    _, each = run(pictures, tmp_path / "each", "plain")
    _, means = run(pictures, tmp_path / "means", "plain", log_every=4, checkpoint_every=8)
    assert [row["step"] for row in means] == [4, 8, 12]
    assert means[1]["loss"] == pytest.approx(np.mean([row["loss"] for row in each[4:8]]), rel=1e-5)
    stored = read_record(tmp_path / "each" / "model")["extra"]["preprocess"]
    assert Preprocess.from_dict(stored) == PREPROCESS


def test_the_random_state_outside_is_left_alone(pictures, tmp_path):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    run(pictures, tmp_path, "plain", replace(CONFIG, epochs=0.3))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_processes_and_parts_divide_the_batch_and_nothing_else(world, accumulate):
    config = replace(CONFIG, accumulate=accumulate)
    streams = [list(Positions(Place(rank, world, CPU), config, 2, 5)) for rank in range(world)]
    for step in range(3):
        parts = [stream[step * accumulate + part] for stream in streams for part in range(accumulate)]
        positions = sorted(position for part in parts for position in part)
        assert positions == list(range((2 + step) * 8, (3 + step) * 8))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        Positions(Place(0, 3, CPU), CONFIG, 0, 1)


def test_a_view_is_a_function_of_its_position(pictures):
    files, labels = [f"{i}.png" for i in range(24)], np.repeat([0, 1, 2], 8)
    first, second = (TrainingViews(pictures, files, labels, PREPROCESS, 32, seed=3) for _ in range(2))
    assert torch.equal(first[5][0], second[5][0]) and first[5][1] == second[5][1]
    epoch = [first[position][1] for position in range(24)]
    assert sorted(epoch) == labels.tolist(), "an epoch has every picture once"
    assert not torch.equal(first[5][0], first[29][0]), "another view in another epoch"


@pytest.mark.parametrize("wrong", [{"precision": "int8"}, {"epochs": 0.0}, {"accumulate": 0}])
def test_impossible_recipes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageTrainConfig(**wrong)


def test_useless_arguments_are_refused(pictures, tmp_path):
    net = RetrievalNet("test_efficientnet", "plain", descriptor_dim=8, pretrained="none")
    with pytest.raises(ValueError, match="1 labels for 2 files"):
        train_images(net, pictures, ["0.png", "1.png"], np.array([1]), PREPROCESS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="not a multiple of log_every"):
        run(pictures, tmp_path, checkpoint_every=10, log_every=4)
    with pytest.raises(ValueError, match=r"^one class \(7\) teaches nothing; two or more classes are wanted$"):
        train_images(net, pictures, ["0.png", "1.png"], np.array([7, 7]), PREPROCESS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match=r"^no picture teaches nothing; two or more classes are wanted$"):
        train_images(net, pictures, [], np.zeros(0, np.int64), PREPROCESS, CONFIG, tmp_path)


def test_a_folder_in_which_another_run_is_training_is_left_alone(pictures, tmp_path):
    with folder_lock(tmp_path / "run"), pytest.raises(FolderBusyError, match="another run is writing here"):
        run(pictures, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_disk_that_keeps_no_locks_is_trained_on_with_a_warning(pictures, tmp_path, monkeypatch):
    from recipes.gldv2 import train as module

    def no_locks(directory):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module, "folder_lock", no_locks)
    with pytest.warns(UserWarning, match="this disk keeps no locks"):
        run(pictures, tmp_path, "plain", replace(CONFIG, epochs=0.3))
    assert (tmp_path / "training.json").is_file()


def test_the_folder_is_held_while_the_run_trains(pictures, tmp_path, monkeypatch):
    from recipes.gldv2 import train as module

    def second_start(self, parts, rate):
        with folder_lock(tmp_path):
            pass

    monkeypatch.setattr(module.Run, "_step", second_start)
    with pytest.raises(FolderBusyError, match=f"process {os.getpid()}"):
        run(pictures, tmp_path)


def test_what_another_run_has_finished_meanwhile_is_loaded(pictures, tmp_path, monkeypatch):
    from recipes.gldv2 import train as module

    net, rows = run(pictures, tmp_path, "plain", replace(CONFIG, epochs=0.3))
    looked, finished_rows = [], module.finished_rows
    monkeypatch.setattr(
        module, "finished_rows", lambda *args: finished_rows(*args) if looked else looked.append("not yet")
    )
    monkeypatch.setattr(module.Run, "_step", lambda *args: pytest.fail("trained again"))
    again, loaded = run(pictures, tmp_path, "plain", replace(CONFIG, epochs=0.3))
    assert loaded == rows and same_weights(again, net)


def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_step(pictures, tmp_path, monkeypatch):
    from recipes.gldv2 import train as module

    monkeypatch.setattr(module.Run, "_step", lambda *args: pytest.fail("trained in vain"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop the superuser
    with pytest.raises(PermissionError, match=f"Permission denied: '{tmp_path}'"):
        run(pictures, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_picture_is_named(pictures, tmp_path, workers):
    data = (Path(pictures) / "0.png").read_bytes()
    (Path(pictures) / "cut.png").write_bytes(data[: len(data) // 2])
    net = RetrievalNet("test_efficientnet", "plain", descriptor_dim=8, pretrained="none")
    with pytest.raises(ValueError, match=r"cut\.png") as caught:
        train_images(
            net, pictures, ["0.png", "cut.png"], np.array([1, 2]), PREPROCESS, replace(CONFIG, batch_size=2),
            Path(tmp_path), workers=workers,
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_an_unreadable_picture_is_named(pictures, tmp_path):
    net = RetrievalNet("test_efficientnet", "plain", descriptor_dim=8, pretrained="none")
    config = replace(CONFIG, batch_size=2)
    with pytest.raises(ValueError, match=r"absent\.png"):
        train_images(
            net, pictures, ["0.png", "absent.png"], np.array([1, 2]), PREPROCESS, config, Path(tmp_path), workers=0
        )
