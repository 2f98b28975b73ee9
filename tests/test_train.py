"""Training on stored maps: it learns, it is repeatable, and a killed training begins again to the same bits."""

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from test_parts import HEAD, LOSS

from ssr_lib.extract import Maps, describe_maps, descriptors_of, pooled_features
from ssr_lib.files import FolderBusyError, code_of, digest, hash_file, load_part, locked
from ssr_lib.images import Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.train import TrainConfig, batch_ids, fit_start, learning_rate, make_loss, make_optimizer, train_head
from ssr_lib.whitening import fit_lda

CONFIG, TARGETS = TrainConfig(steps=8, batch_size=8, lr_tail=1e-3, lr_new=1e-2, seed=5), np.repeat(np.arange(5), 8)
LABELS = [f"landmark {target}" for target in TARGETS]


def make_net(head="product", *, protocol="end_to_end", dim=16, **options):
    options = options if head == "plain" else {"mid_channels": 4, "window": 3} | options
    return RetrievalNet("test_efficientnet", head, options, descriptor_dim=dim, protocol=protocol, pretrained="none")


def make_maps(protocol="end_to_end", digest="maps", factor=1.0):
    """Forty maps of five classes, each a pattern of its own plus noise."""
    rng, channels = np.random.default_rng(0), 48 if protocol == "end_to_end" else 64
    patterns = rng.standard_normal((5, 4, 4, channels))
    maps = factor * (patterns[TARGETS] + 0.5 * rng.standard_normal((40, 4, 4, channels))).astype(np.float16)
    return Maps(maps, None, digest, {}) if protocol == "end_to_end" else Maps(None, maps, digest, {})


def run(directory, net=None, config=CONFIG, maps=None, labels=LABELS):
    net = net or make_net()
    return net, train_head(net, maps or make_maps(), labels, config, directory=directory, progress=False)


def curve(rows):
    return [(row["step"], row["loss"], row["accuracy"], row["lr"]) for row in rows]


def same_weights(first, second):
    return all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "run"
    return directory, *run(directory)


@pytest.mark.parametrize("protocol,recipe", [
    ("end_to_end", {"optimizer": "sgd", "loss": "cosface", "lr_tail": 1e-2, "lr_new": 1e-1}),
    ("frozen", {"optimizer": "adamw", "loss": "arcface", "lr_tail": 1e-3, "lr_new": 2e-2}),
])  # fmt: skip
def test_the_head_learns_the_classes(tmp_path, protocol, recipe):
    _, rows = run(tmp_path, make_net(protocol=protocol), replace(CONFIG, steps=30, **recipe), make_maps(protocol))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"] and np.mean([row["accuracy"] for row in rows[-5:]]) > 0.9


def test_a_fitted_start_is_lda_and_class_means_and_learns_at_the_rate_of_the_tail():
    net, maps, config = make_net(), make_maps(), replace(CONFIG, start="fitted")
    loss = make_loss(net, 5, config)
    fit_start(net, loss, maps, TARGETS, config.shrinkage)
    x = pooled_features(net, maps).astype(np.float64)
    lda, descriptors = fit_lda(x, TARGETS, config.shrinkage), describe_maps(net, maps)
    assert net.training, "the mode is put back"
    assert np.abs(descriptors - lda.apply(x, net.descriptor_dim)).max() < 1e-4
    own = torch.from_numpy(descriptors[TARGETS == 2]).mean(0)
    assert torch.cosine_similarity(loss.centres[2].detach(), own, dim=0) == pytest.approx(1.0, abs=1e-5)
    for optimizer in ("sgd", "adamw"):
        groups = make_optimizer(net, loss, replace(config, optimizer=optimizer, weight_decay=0.25)).param_groups
        assert {group["weight_decay"] for group in groups} == {0.25}
    known, new = make_optimizer(net, loss, config).param_groups
    assert (known["lr"], new["lr"]) == (config.lr_tail, config.lr_new)
    assert {id(p) for p in new["params"]} == {id(p) for p in net.head.parameters()}
    fitted = [*net.backbone.tail.parameters(), *net.whitening.parameters(), loss.centres]
    assert {id(p) for p in known["params"]} == {id(p) for p in fitted}


def test_a_killed_training_begins_again_to_the_same_bits_and_touches_no_global_random_state(tmp_path, whole):
    killed = Mock(side_effect=[*(learning_rate(step, 8, 0.1) for step in range(4)), KeyboardInterrupt])
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("ssr_lib.train.learning_rate", killed)
        run(tmp_path)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):  # at its end, before it is stored
        patched.setattr("ssr_lib.train.save_checkpoint", Mock(side_effect=KeyboardInterrupt))
        run(tmp_path)
    state = torch.get_rng_state()
    net, rows = run(tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and curve(rows) == curve(whole[2]) and same_weights(net, whole[1])


def test_a_finished_directory_is_loaded_without_a_step_and_a_damaged_one_trained_again(whole, monkeypatch):
    directory, trained, rows = whole
    with monkeypatch.context() as patched:
        patched.setattr(Maps, "batch", None)
        net, found = run(directory)
    assert found == rows and same_weights(net, trained) and not net.training
    (directory / "training.json").write_text('{"made_by": {')
    net, found = run(directory)
    assert same_weights(net, trained) and curve(found) == curve(rows)
    with pytest.raises(ValueError, match="this network was trained before; make a new one"):  # as of a cell run twice
        run(directory / "other", net)


@pytest.mark.parametrize("changes,message", [
    ({"config": replace(CONFIG, lr_tail=0.5)}, r"config\.lr_tail is 0\.001 there, 0\.5 now"),
    ({"net": make_net("plain")}, r'net\.head is "product" there, "plain" now'),
    ({"maps": make_maps(digest="other")}, 'maps is "maps" there, "other" now'),
    ({"labels": LABELS[::-1][1:] + LABELS[:1]}, "labels is"),
])  # fmt: skip
def test_a_directory_of_another_training_is_refused_by_name(whole, changes, message):
    with pytest.raises(ValueError, match=message):
        run(whole[0], **changes)


def test_parts_from_files_are_fitted_trained_and_known_by_their_code(tmp_path):
    head, loss = tmp_path / "my_head.py", tmp_path / "my_loss.py"
    head.write_text(HEAD)
    loss.write_text(LOSS)
    net = RetrievalNet("test_efficientnet", str(head), descriptor_dim=16, protocol="frozen", pretrained="none")
    seen = []
    net.head.fit = seen.extend
    config = replace(CONFIG, loss=str(loss), loss_options={"temperature": 0.1}, start="random")
    net, rows = run(tmp_path / "run", net, config, make_maps("frozen"))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert sum(len(last) for mid, last, project in seen) == 40, "a head that has a fit gets every map before a step"
    loss.write_text(LOSS + "# another code\n")
    with pytest.raises(ValueError, match="something else: loss code is"):
        run(tmp_path / "run", net, config, make_maps("frozen"))
    code = descriptors_of(net, Preprocess())[1]["head code"]
    head.write_text(HEAD + "# another code\n")
    assert descriptors_of(net, Preprocess())[1]["head code"] != code, "an index does not take it for the same"
    late = load_part("late", "heads")  # made of another head, which it loads by its name
    files = late.__file__, *sorted(Path(late.__file__).parent.glob("*.py"))
    assert code_of(late.Head) == digest([*map(hash_file, files)])


@pytest.mark.parametrize("what,message", [
    ({"labels": LABELS[1:]}, "39 labels of 5 classes for 40 maps"),
    ({"labels": LABELS[:1] * 40}, "40 labels of 1 classes"),
    ({"net": make_net(dim=4000), "config": replace(CONFIG, start="fitted")}, "a descriptor_dim of [0-9]+ or less"),
    ({"maps": make_maps(factor=np.nan)}, "at step 1; lower lr_tail"),
])  # fmt: skip
def test_what_cannot_be_trained_and_a_busy_folder_are_refused(tmp_path, what, message):
    with pytest.raises((ValueError, FloatingPointError), match=message):
        run(tmp_path, **what)
    with locked(tmp_path), pytest.raises(FolderBusyError, match="another run is writing here"):
        run(tmp_path)


def test_every_epoch_shows_every_image_once_in_its_own_order_and_batches_by_class_hold_so_many_views_of_each():
    ids = np.concatenate([batch_ids(step, np.zeros(10, int), batch_size=4, seed=0) for step in range(10)])
    orders = ids.reshape(4, 10).tolist()
    assert all(sorted(order) == list(range(10)) for order in orders) and len(set(map(tuple, orders))) == 4
    assert orders[0] != batch_ids(0, np.zeros(10, int), batch_size=10, seed=1).tolist()
    targets = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    ids = batch_ids(0, targets, batch_size=9, seed=0, per_class=3)
    assert sorted(targets[ids]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert sorted(ids[targets[ids] == 1]) == [1, 2, 3], "no view twice where there are enough"


def test_the_schedule_warms_up_and_falls_along_half_a_cosine_and_a_gradient_is_clipped_to_a_length(tmp_path):
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90))) and (np.diff(rates[10:]) < 0).all()
    net, _ = run(tmp_path, config=replace(CONFIG, steps=1, optimizer="sgd", weight_decay=0.0, clip=1e-12))
    for after, before in zip(net.parameters(), make_net().parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-10)
