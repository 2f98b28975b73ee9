"""Checkpoints survive the disk and refuse what is not theirs; published weights give the published outputs."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.official import convert, load_official, official_head
from ssr_lib.pooling import combine_scales
from ssr_lib.weights import load_checkpoint, read_record, save_checkpoint, stored_preprocess

GOLDEN = Path(__file__).parent / "golden"
IMAGE = np.load(GOLDEN / "image.npz")
STORED = {name: torch.from_numpy(value) for name, value in IMAGE.items() if value.dtype == np.float32}
REFUSED, DAMAGED = r"which is not read; .*state_dict\(\)", r"w\.pth \(cvnet\) is damaged or no file of weights"


@pytest.fixture(scope="module")
def head():
    """SENet's self-similarity module and head: random numbers in the order behind the golden outputs."""
    rng, state = np.random.default_rng(0), {}

    def linear(name, shape, spread, shift=0.1):
        state[f"{name}.weight"] = rng.standard_normal(shape) * spread
        state[f"{name}.bias"] = rng.standard_normal(shape[0]) * shift

    def norm(name, size, scale=1.0):
        state[f"{name}.weight"] = 1 + 0.1 * rng.standard_normal(size)
        state[f"{name}.bias"] = 0.1 * rng.standard_normal(size)
        state[f"{name}.running_mean"] = rng.standard_normal(size) * (0.1 if scale == 1 else 0.001)
        state[f"{name}.running_var"] = rng.uniform(0.5 * scale, 1.5 * scale, size)

    state["SSM.ch_reduction_encoder.weight"] = rng.standard_normal((256, 2048, 1, 1)) * 0.02
    for i in range(3):
        linear(f"SSM.SSE.conv_in.{i}.0", (256, 256, 1, 3, 3), 0.02, 0.1 if i else 0.001)
        norm(f"SSM.SSE.conv_in.{i}.1", 256, 1.0 if i else 1e-5)
    linear("SSM.SSE.conv1x1_out.0", (2048, 256, 1, 1), 0.05)
    norm("SSM.SSE.conv1x1_out.1", 2048)
    for i in (0, 2):
        linear(f"SSM.FFN.{i}", (2048, 2048, 1, 1), 0.02)
    linear("head.fc", (2048, 2048), 0.02, 0.01)
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


@pytest.fixture(scope="module")
def cvnet(head):
    """CVNet as in its file, with the linear layer of `head`: random numbers in the order behind the golden outputs."""
    rng, state = np.random.default_rng(5), {"head.pool.p": torch.tensor([3.0])}
    for name, text in zip(IMAGE["backbone_param_names"], IMAGE["backbone_param_shapes"], strict=True):
        shape = [int(number) for number in re.findall(r"\d+", str(text))]
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("c_bn.weight"):
            value = rng.standard_normal(shape) * 0.05 + 0.2
        else:
            value = rng.standard_normal(shape) * 0.1 + name.endswith("weight")
        state[str(name)] = torch.from_numpy(value.astype(np.float32))
    return state | {name: value for name, value in head.items() if name.startswith("head.fc")}


def difference(a, b):
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


@torch.inference_mode()
def at_scales(net, pictures, **options):
    return torch.stack([net(picture.reshape(1, *picture.shape[-3:]), **options) for picture in pictures])


def test_senet_head_equals_the_reference(head):
    rng = np.random.default_rng(1)
    base = rng.standard_normal((1, 2048, 1, 1)) * 0.7
    x = np.maximum(rng.standard_normal((1, 2048, 9, 7)) + base, 0).astype(np.float32)
    module = official_head(head, family="senet")
    with np.load(GOLDEN / "ssm.npz") as golden, torch.inference_mode():
        assert difference(module.head.embed(torch.from_numpy(x))[:, ::8], golden["sse_out"]) < 2e-5
        assert difference(module(torch.from_numpy(x)), golden["desc"]) < 1e-6


@pytest.mark.parametrize("name", ["attention", "attention_same_width"])
def test_head_of_reading_b_equals_the_reference(name):
    stored = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{name}.npz").items()}
    module = official_head({k[6:]: v for k, v in stored.items() if k.startswith("param/")}, family="attention")
    with torch.inference_mode():
        assert difference(module.head.added(None, stored["x"])[1], stored["out/S"]) < 1e-6
        assert difference(module(stored["x"]), stored["out/descriptor"]) < 1e-6
    assert module.head.window == stored["window"]


@pytest.mark.parametrize("family", ["senet", "cvnet"])
def test_a_checkpoint_gives_the_published_descriptors(head, cvnet, family):
    whole = {f"encoder_q.{name}": value for name, value in cvnet.items()} | {"conv2ds.0.weight": torch.zeros(1)}
    if family == "senet":
        backbone = {name: value for name, value in cvnet.items() if not name.startswith("head.")}
        whole = {**backbone, **head, "stem.bn.num_batches_tracked": torch.tensor(7)}
    each = at_scales(load_official({"model_state": whole}, family), [STORED[f"db_scale{i}"] for i in range(3)])
    assert difference(each[:, 0], STORED[f"{family}_scale_descs"]) < 1e-6
    assert difference(combine_scales(each), STORED[f"{family}_desc"]) < 1e-6


def test_a_conversion_for_superglobal_gives_the_published_descriptors(cvnet, tmp_path):
    torch.save(cvnet, tmp_path / "cvnet.pyth")
    written = convert(tmp_path / "cvnet.pyth", "cvnet", tmp_path / "superglobal", superglobal=True)
    assert stored_preprocess(written) == PRESETS["superglobal"]
    pictures = [STORED["sg_resize_0.7071"], STORED["db_scale1"], STORED["sg_resize_1.4142"]]
    each = at_scales(load_checkpoint(written), pictures, normalize=False)
    assert difference(each[1], STORED["sg_relup_single"]) < 1e-6
    assert difference(combine_scales(each, "scale-gem"), STORED["sg_relup_ms3"]) < 1e-6
    assert difference(combine_scales(each, normalize=False), STORED["sg_relup_ms3_mean"]) < 1e-6
    with pytest.raises(ValueError, match="goes with the weights of family 'cvnet', not 'senet'"):
        convert(tmp_path / "cvnet.pyth", "senet", tmp_path / "x", superglobal=True)


def small():
    options = {"mid_channels": 8, "window": 3, "initial_gain": 1, "learn_p": True}
    return RetrievalNet("test_efficientnet", "product", options, descriptor_dim=16, pretrained="none", seed=3).eval()


def test_checkpoint_gives_the_same_descriptors_back(tmp_path):
    net, image = small(), torch.rand(1, 3, 64, 64)
    written = save_checkpoint(tmp_path / "run.2", net, {"step": 7})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.2.json", "run.2.safetensors"]
    for path in (tmp_path / "run.2", written, written.with_suffix(".json")):
        loaded = load_checkpoint(path)
        assert loaded.config == net.config and not loaded.training
        assert loaded.config["options"]["fusion"] == "add", "options that were left out are named too"
        assert torch.equal(loaded(image), net(image))
    assert read_record(written)["extra"] == {"step": 7} and stored_preprocess(written) is None
    with pytest.raises(ValueError, match='head is "product" there, "neighbour" now'):
        load_checkpoint(written, RetrievalNet(**net.config | {"head": "neighbour"}))


@pytest.mark.parametrize("damage,message", [
    (lambda file, other: file.write_bytes(file.read_bytes()[:-100]), r"a\.safetensors holds no network .*incomplete"),
    (lambda file, other: other.replace(file), r"a\.json is missing or is not the record inside a\.safetensors"),
    (lambda file, other: save_file({"x": torch.zeros(1)}, file), "holds no network of ssr-checkpoint-2"),
    (lambda file, other: save_file({}, file, {"record": '{"format": "ssr-checkpoint-2"}'}), "no network .*'config'"),
    (lambda file, other: file.unlink(), r"No such file.*a\.safetensors"),
    (lambda file, other: file.write_bytes(file.read_bytes()[:-1] + b"?"), r"damaged: its weights are not those that were"),
])  # fmt: skip
def test_damaged_mixed_or_foreign_checkpoints_are_refused_by_name(tmp_path, damage, message):
    damage(*(save_checkpoint(tmp_path / name, small(), {"run": name}) for name in "ab"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_checkpoint(tmp_path / "a")


@torch.no_grad()
def test_cirtorch_file_is_read_with_l2_on_both_sides_of_its_whitening(cvnet, head, tmp_path):
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}  # in torchvision's ResNet
    state = {"pool.p": torch.tensor([2.5])}
    for name, value in load_official(cvnet, "cvnet").backbone.state_dict().items():
        _, first, rest = name.split(".", 2)
        state[f"features.{places[first]}.{rest}"] = value
    whiten = {f"whiten.{name}": head[f"head.fc.{name}"][:64] for name in ("weight", "bias")}
    meta = {"mean": [0.5], "Lw": {"set": {"ss": {"P": np.eye(3), "m": np.zeros((3, 1))}}}}  # as published files have it
    torch.save({"meta": meta, "state_dict": state | whiten}, tmp_path / "gem.pth")
    written = convert(tmp_path / "gem.pth", "gem", tmp_path / "gem", trained_on="SfM120k")
    written.with_suffix(".json").unlink()  # as a killed conversion leaves it
    assert convert(tmp_path / "gem.pth", "gem", tmp_path / "gem", trained_on="SfM120k") == written
    bare, image = load_official(state, "gem"), STORED["db_scale0"][None]
    _, last = bare.backbone(image)
    pooled = F.normalize(last.clamp(min=1e-6).pow(2.5).mean(dim=(2, 3)).pow(0.4), dim=1)
    expected = F.normalize(F.linear(pooled, whiten["whiten.weight"], whiten["whiten.bias"]), dim=1)
    assert difference(bare(image), pooled) < 1e-6 and difference(load_checkpoint(written)(image), expected) < 1e-6
    assert difference(official_head(state | whiten, "gem")(last), expected) < 1e-6
    assert read_record(written)["extra"]["trained_on"] == "SfM120k"
    assert stored_preprocess(written) == PRESETS["cirtorch"]


def test_what_training_programs_put_around_weights_is_taken_off(head, cvnet, tmp_path):
    wrapped = {"args": argparse.Namespace(lr=[1]), "best": np.float64(0.5)}
    for around, prefix in (({}, "module.module._orig_mod."), (wrapped, "_orig_mod.")):
        only_head = {prefix + key: value for key, value in cvnet.items() if key.startswith("head.")}
        torch.save(around | {"model": only_head} if around else only_head, tmp_path / "w.pth")
        found = official_head(tmp_path / "w.pth", "cvnet").state_dict()
        assert torch.equal(found["whitening.weight"], head["head.fc.weight"])


class Malicious:
    def __reduce__(self):
        return print, ("this runs when unpickled without care",)


@pytest.mark.parametrize("family,damage,message", [
    ("delg", lambda s: s, "family is 'delg'; one of senet, cvnet, gem, attention"),
    ("cvnet", lambda s: s | {"w": Malicious()}, f"holds a print, {REFUSED}"),
    ("cvnet", lambda s: b"<!DOCTYPE html>", DAMAGED),
    ("cvnet", lambda s: {k: v for k, v in s.items() if "pool" not in k}, r"'cvnet': KeyError: 'head\.pool\.p'$"),
    ("gem", lambda s: s | {"pool.p": torch.tensor(3.0)}, r"Unexpected.*head\.fc\.bias"),
    ("cvnet", lambda s: s | {"w": torch.full((2,), np.nan)}, "w is no tensor of finite floating"),
    ("cvnet", lambda s: s | {"head.fc.bias": torch.zeros(7)}, r"size mismatch for whitening\.bias.*\[7\]"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line_and_runs_nothing(cvnet, tmp_path, capsys, family, damage, message):
    content = damage({name: value for name, value in cvnet.items() if name.startswith("head.")})
    torch.save(content, tmp_path / "w.pth")
    if isinstance(content, bytes):
        (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        official_head(tmp_path / "w.pth", family)
    assert "\n" not in str(refused.value) and capsys.readouterr().out == ""
