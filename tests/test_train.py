"""Training a head on cached maps: it learns, it is repeatable, and a killed run continues to the same bits."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.losses import MarginLoss
from ssr_lib.maps import head_descriptors, pooled_features
from ssr_lib.network import RetrievalNet
from ssr_lib.train import (
    TrainConfig,
    batch_ids,
    describe_training,
    fit_start,
    learning_rate,
    make_optimizer,
    train_head,
)
from ssr_lib.weights import load_checkpoint
from ssr_lib.whitening import fit_lda

CONFIG = TrainConfig(steps=10, batch_size=8, lr_tail=1e-3, lr_new=1e-2, seed=5)


def make_net(variant="self-similarity"):
    return RetrievalNet("test_efficientnet", variant, mid_channels=4, window=3, descriptor_dim=16, pretrained="none")


def make_data(channels=48):
    """Forty maps of five classes, each a pattern of its own plus noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 8)
    patterns = rng.standard_normal((5, channels, 4, 4))
    maps = patterns[labels] + 0.5 * rng.standard_normal((40, channels, 4, 4))
    return maps.astype(np.float16), [f"landmark {label}" for label in labels]


def run(directory, net=None, config=CONFIG, **options):
    net = net or make_net()
    return net, train_head(net, *make_data(), config, directory=directory, progress=False, **options)


def curve(rows):
    return [(row["step"], row["loss"], row["accuracy"], row["lr"]) for row in rows]


def same_weights(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These nets are too small to share between threads, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "run"
    return directory, *run(directory, checkpoint_every=3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_the_head_learns_the_classes(tmp_path, optimizer, loss):
    rates = {"lr_tail": 1e-3, "lr_new": 2e-2} if optimizer == "adamw" else {"lr_tail": 1e-2, "lr_new": 1e-1}
    _, rows = run(tmp_path, config=replace(CONFIG, steps=30, optimizer=optimizer, loss=loss, **rates))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert np.mean([row["accuracy"] for row in rows[-5:]]) > 0.9


def test_the_trunk_and_frozen_statistics_do_not_move(uninterrupted):
    _, net, _ = uninterrupted
    before, after = make_net().state_dict(), net.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not any(key.startswith("backbone.trunk") for key in moved)
    assert not any(key.startswith("backbone.tail") and "running" in key for key in moved)
    assert "embedding.reduce.weight" in moved and "whitening.weight" in moved
    assert any(key.startswith("backbone.tail") for key in moved)


def test_a_fitted_start_knows_the_classes_before_the_first_step(tmp_path):
    config = replace(CONFIG, steps=1, lr_tail=0.0, lr_new=0.0)
    first = {start: run(tmp_path / start, config=replace(config, start=start))[1][0] for start in ("random", "fitted")}
    assert first["fitted"]["loss"] < 0.5 * first["random"]["loss"] and first["fitted"]["accuracy"] == 1.0
    fitted, plain = replace(config, start="fitted"), make_net("plain")
    run(tmp_path / "plain", plain, fitted)
    nets = {variant: make_net(variant) for variant in ("self-similarity", "neighbour", "conv")}
    nets["concat"] = RetrievalNet(**{**make_net().config, "fusion": "concat"})
    for name, net in nets.items():  # a module that is the identity changes no start
        run(tmp_path / name, net, fitted)
        assert (net.whitening.weight - plain.whitening.weight).abs().max() < 1e-5, name
    rows = plain.whitening.weight.detach().norm(dim=1)
    assert rows.square().mean().sqrt() == pytest.approx(1.0, abs=1e-5)


def test_a_fitted_start_is_lda_and_class_means_and_learns_at_the_rate_of_the_tail():
    net, config = make_net(), replace(CONFIG, start="fitted")
    maps, labels = make_data()
    targets = np.unique(labels, return_inverse=True)[1]
    loss = MarginLoss(net.descriptor_dim, 5)
    fit_start(net, loss, maps, targets, config.shrinkage)
    untaught = make_net()
    fit_start(untaught, None, maps, targets, config.shrinkage)
    assert same_weights(untaught, net), "without a loss there are no centres to place, and nothing else changes"
    x = pooled_features(net, maps).astype(np.float64)
    lda = fit_lda(x, targets, config.shrinkage)
    assert np.abs(head_descriptors(net, maps) - lda.apply(x, net.descriptor_dim)).max() < 1e-4
    own = torch.from_numpy(head_descriptors(net, maps)[targets == 2]).mean(0)
    assert torch.cosine_similarity(loss.centres[2].detach(), own, dim=0) == pytest.approx(1.0, abs=1e-5)
    known, new = make_optimizer(net, loss, config).param_groups
    assert (known["lr"], new["lr"]) == (config.lr_tail, config.lr_new)
    assert {id(p) for p in new["params"]} == {id(p) for p in net.embedding.parameters()}
    assert any(p is loss.centres for p in known["params"]) and any(p is net.whitening.bias for p in known["params"])
    assert len(make_optimizer(make_net("plain"), loss, config).param_groups) == 1, "plain has nothing random left"


@pytest.mark.parametrize("dim", [None, 4000])
def test_a_fitted_start_wants_a_whitening_that_narrows(tmp_path, dim):
    net = RetrievalNet("test_efficientnet", "plain", pretrained="none", descriptor_dim=dim)
    with pytest.raises(ValueError, match=rf"whitening to fit.*descriptor_dim is {dim}"):
        run(tmp_path, net, replace(CONFIG, start="fitted"))


def test_the_record_tells_fits_apart_and_knows_random_starts_from_before_there_was_a_choice():
    net, targets = make_net(), np.repeat(np.arange(5), 8)
    record = lambda **changes: describe_training(net, make_data()[0], targets, replace(CONFIG, **changes))["config"]
    assert not {"start", "shrinkage"} & set(record())
    assert record(shrinkage=1.0) == record(), "a random start has no shrinkage"
    assert record(start="fitted") != record(start="fitted", shrinkage=1.0)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_train as t
net, calls, head = t.make_net(), [], None
head = net.head
def dying_head(maps):
    calls.append(1)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return head(maps)
net.head = dying_head
t.torch.set_num_threads(1)
t.run({directory!r}, net, checkpoint_every=3)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_continues_to_the_same_bits(tmp_path, uninterrupted):
    directory = tmp_path / "run"
    script = KILLED.format(tests=os.path.dirname(__file__), directory=str(directory))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (directory / "state.safetensors").is_file() and not (directory / "training.json").exists()

    steps = []
    net = make_net()
    head = net.head
    net.head = lambda maps: steps.append(1) or head(maps)
    net, rows = run(directory, net, checkpoint_every=3)
    _, whole_net, whole_rows = uninterrupted
    assert len(steps) == CONFIG.steps - 6, "steps 1 to 6 were in the state of the killed run"
    assert curve(rows) == curve(whole_rows)
    assert same_weights(net, whole_net)
    assert rows[-1]["seconds"] > rows[5]["seconds"] >= rows[0]["seconds"]


@pytest.mark.parametrize(
    ("optimizer", "start", "every"),
    [("adamw", "random", 2), ("sgd", "random", 2), ("adamw", "fitted", 2), ("adamw", "fitted", 50)],
    ids=["adamw", "sgd", "fitted", "fitted, before its first checkpoint"],
)
def test_an_interrupted_run_continues_to_the_same_bits(tmp_path, optimizer, start, every):
    config = replace(CONFIG, steps=5, optimizer=optimizer, start=start)
    whole_net, whole_rows = run(tmp_path / "whole", config=config)
    net = make_net()
    head, calls = net.head, []

    def interrupted(maps):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return head(maps)

    net.head = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", net, config, checkpoint_every=every)
    assert (tmp_path / "broken" / "state.safetensors").is_file() == (every == 2)
    net, rows = run(tmp_path / "broken", config=config, checkpoint_every=every)
    assert curve(rows) == curve(whole_rows) and same_weights(net, whole_net)


def test_training_does_not_depend_on_nor_touch_the_global_random_state(tmp_path, uninterrupted):
    torch.manual_seed(123)
    state = torch.get_rng_state()
    _, rows = run(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert curve(rows) == curve(uninterrupted[2])


def test_a_finished_directory_is_loaded_without_a_step(uninterrupted):
    directory, trained, rows = uninterrupted
    net = make_net()
    head = net.head
    net.head = None
    _, loaded_rows = run(directory, net)
    net.head = head
    assert loaded_rows == rows and same_weights(net, trained)
    assert same_weights(load_checkpoint(directory / "model"), trained)
    assert not (directory / "state.safetensors").exists()


@pytest.mark.parametrize(
    "change", [{"lr_tail": 0.5}, {"seed": 6}, {"steps": 11}, {"margin": 0.3}], ids=lambda change: next(iter(change))
)
def test_a_directory_of_another_recipe_is_refused_by_name(uninterrupted, change):
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"config.{name} is .* there, {value} here"):
        run(uninterrupted[0], config=replace(CONFIG, **change))


def test_a_directory_of_another_net_data_or_weights_is_refused_by_name(uninterrupted, tmp_path):
    directory = uninterrupted[0]
    maps, labels = make_data()
    with pytest.raises(ValueError, match=r"net\.variant is 'self-similarity' there, 'plain' here"):
        run(directory, make_net("plain"))
    with pytest.raises(ValueError, match="maps is"):
        train_head(make_net(), maps + np.float16(1), labels, CONFIG, directory=directory)
    with pytest.raises(ValueError, match="labels is"):
        train_head(make_net(), maps, labels[::-1][1:] + labels[:1], CONFIG, directory=directory)
    trained, _ = run(tmp_path / "another")
    with pytest.raises(ValueError, match="backbone_weights is"):
        run(directory, trained)


def test_an_unfinished_directory_of_another_recipe_or_damaged_is_refused(tmp_path):
    net = make_net()
    head, calls = net.head, []
    net.head = lambda maps: head(maps) if not calls.append(1) and len(calls) < 3 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, net, checkpoint_every=2)
    with pytest.raises(ValueError, match=r"config\.seed is 5 there, 6 here"):
        run(tmp_path, config=replace(CONFIG, seed=6))
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"state\.safetensors is damaged"):
        run(tmp_path)


def test_the_curve_has_a_row_for_each_step_and_is_stored(uninterrupted):
    directory, _, rows = uninterrupted
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert set(rows[0]) == {"step", "loss", "accuracy", "lr", "seconds"}
    stored = json.loads((directory / "training.json").read_text())
    assert stored["rows"] == rows and stored["classes"] == 5 and stored["versions"]["torch"] == torch.__version__


def test_an_infinite_loss_stops_the_run(tmp_path):
    maps, labels = make_data()
    maps[:] = np.nan
    with pytest.raises(FloatingPointError, match="at step 1; lower lr_tail"):
        train_head(make_net(), maps, labels, CONFIG, directory=tmp_path, progress=False)


def test_useless_labels_are_refused(tmp_path):
    maps, labels = make_data()
    with pytest.raises(ValueError, match="39 labels for 40 maps"):
        train_head(make_net(), maps, labels[:-1], CONFIG, directory=tmp_path)
    with pytest.raises(ValueError, match="one class"):
        train_head(make_net(), maps, labels[:1] * 40, CONFIG, directory=tmp_path)


def test_every_epoch_shows_every_image_once():
    ids = np.concatenate([batch_ids(step, count=10, batch_size=4, seed=0) for step in range(10)])
    assert len(ids) == 40
    orders = [ids[i : i + 10].tolist() for i in range(0, 40, 10)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4, "each epoch has an order of its own"


def test_a_batch_may_be_longer_than_the_data():
    ids = batch_ids(1, count=3, batch_size=7, seed=0)
    assert len(ids) == 7 and sorted(batch_ids(0, count=3, batch_size=3, seed=0)) == [0, 1, 2]


def test_the_order_is_that_of_the_seed():
    assert batch_ids(3, 100, 16, seed=1).tolist() == batch_ids(3, 100, 16, seed=1).tolist()
    assert batch_ids(3, 100, 16, seed=1).tolist() != batch_ids(3, 100, 16, seed=2).tolist()


def test_the_schedule_warms_up_and_falls_along_half_a_cosine():
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert (np.diff(rates[10:]) < 0).all()
    assert learning_rate(0, 1, 0.0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lamb"},
        {"start": "warm"},
        {"shrinkage": -1.0},
        {"loss": "triplet"},
        {"steps": 0},
        {"warmup": 1.0},
        {"clip": 0.0},
        {"lr_new": -1.0},
    ],
)
def test_impossible_recipes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        TrainConfig(**wrong)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with folder_lock(tmp_path / "run"), pytest.raises(FolderBusyError, match="another run is writing here"):
        run(tmp_path / "run")


def test_a_damaged_record_is_no_finished_training(tmp_path, uninterrupted):
    _, net, rows = uninterrupted
    run(tmp_path / "run")
    (tmp_path / "run" / "training.json").write_text('{"made_by": {')
    with pytest.warns(UserWarning, match=r"training\.json is damaged; the network is trained again"):
        again, rows_again = run(tmp_path / "run")
    assert same_weights(again, net) and curve(rows_again) == curve(rows)
