"""Checkpoints survive the disk and refuse what is not theirs; published weights give the published outputs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_weights import GOLDEN, backbone_state, head_state

from ssr_lib import weights as checkpoints
from ssr_lib.files import write_atomic
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.pooling import Pooling, combine_scales
from ssr_lib.weights import (
    SUPERGLOBAL,
    check_tensors,
    convert,
    load_checkpoint,
    load_official,
    official_head,
    read_record,
    save_checkpoint,
    stored_preprocess,
)


def difference(a, b):
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


@pytest.fixture(scope="module")
def head():
    return head_state()


@pytest.fixture(scope="module")
def backbone():
    return backbone_state()


@pytest.fixture(scope="module")
def cvnet(head, backbone):
    linear = {name: value for name, value in head.items() if name.startswith("head.fc")}
    return {**backbone, **linear, "head.pool.p": torch.tensor([3.0])}


@pytest.fixture(scope="module")
def images():
    with np.load(GOLDEN / "image.npz") as golden:
        return {name: torch.from_numpy(golden[name]) for name in golden.files if golden[name].dtype == np.float32}


def at_scales(net, pictures, **options):
    with torch.inference_mode():
        return torch.stack([net(picture if picture.ndim == 4 else picture[None], **options) for picture in pictures])


def scales_of(images):
    return [images[f"db_scale{i}"] for i in range(3)]


def test_senet_head_equals_the_reference_step_by_step(head):
    module = official_head(head, "senet")
    rng = np.random.default_rng(1)
    base = rng.standard_normal((1, 2048, 1, 1)) * 0.7
    x = torch.from_numpy(np.maximum(rng.standard_normal((1, 2048, 9, 7)) + base, 0).astype(np.float32))
    with np.load(GOLDEN / "ssm.npz") as golden, torch.inference_mode():
        embedding = module.embedding
        np.testing.assert_allclose([x.double().sum(), x.double().square().sum()], golden["input_checksum"], rtol=1e-9)
        reduced = embedding.reduce(x)
        rows, columns = golden["positions"].T
        assert difference(reduced[0, :, rows, columns].T, golden["reduced_slice"]) < 2e-5
        f = F.normalize(reduced, dim=1)
        assert difference(embedding.encode(f), golden["enc_mean"]) < 2e-5
        assert difference(embedding.embed(x)[:, ::8], golden["sse_out"]) < 2e-5
        out = embedding(x)
        assert difference(out, golden["out_map"]) < 2e-5
        assert difference(module.pooling(out), golden["pooled"]) < 2e-5
        assert difference(module.whitening(module.pooling(out)), golden["fc_out"]) < 2e-4
        assert difference(module(x), golden["desc"]) < 1e-6


def test_senet_checkpoint_gives_the_published_descriptors(head, backbone, images):
    net = load_official({**backbone, **head, "stem.bn.num_batches_tracked": torch.tensor(7)}, "senet")
    each = at_scales(net, scales_of(images))
    assert difference(each[:, 0], images["senet_scale_descs"]) < 1e-6
    assert difference(combine_scales(each), images["senet_desc"]) < 1e-6


def test_cvnet_checkpoint_gives_the_published_descriptors(cvnet, images):
    with_reranker = {f"encoder_q.{name}": value for name, value in cvnet.items()} | {"conv2ds.0.weight": torch.zeros(1)}
    net = load_official({"model_state": with_reranker}, "cvnet")
    each = at_scales(net, scales_of(images))
    assert difference(each[:, 0], images["cvnet_scale_descs"]) < 1e-6
    assert difference(combine_scales(each), images["cvnet_desc"]) < 1e-6
    with torch.inference_mode():
        last = net.features(net.trunk(images["db_scale1"][None]))
        assert difference(official_head(cvnet, "cvnet")(last), images["cvnet_scale_descs"][1]) < 1e-6


@pytest.mark.parametrize("relup", ["relup", "norelup"])
def test_superglobal_options_give_the_published_descriptors(cvnet, images, relup):
    net = load_official(cvnet, "cvnet", **SUPERGLOBAL)
    trunk = net.backbone.trunk
    if relup == "norelup":  # the published program then leaves the threshold inside the first stage's blocks
        for block in (*trunk.layer1, *trunk.layer2, *trunk.layer3):
            block.act3 = torch.nn.ReLU()
    pictures = [images["sg_resize_0.7071"], images["db_scale1"], images["sg_resize_1.4142"]]
    each = at_scales(net, pictures, normalize=False)
    assert difference(each[1], images[f"sg_{relup}_single"]) < 1e-6
    assert difference(combine_scales(each, "scale-gem"), images[f"sg_{relup}_ms3"]) < 1e-6
    assert difference(combine_scales(each, normalize=False), images[f"sg_{relup}_ms3_mean"]) < 1e-6
    net.pooling = Pooling("gem", 3.0)
    single = at_scales(net, pictures[1:2], normalize=False)
    assert difference(single[0], images[f"sg_{relup}_single_norgem_nogemp"]) < 1e-6


def small(**options):
    return RetrievalNet(
        "mobilenetv3_small_050", mid_channels=8, window=3, descriptor_dim=16, pretrained="none", **options
    ).eval()


def test_checkpoint_gives_the_same_descriptors_back(tmp_path):
    net, image = small(seed=3, initial_gain=1), torch.rand(1, 3, 64, 64)
    written = save_checkpoint(tmp_path / "run.2", net, {"step": 7})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.2.json", "run.2.safetensors"]
    for path in (tmp_path / "run.2", written, written.with_suffix(".json")):
        loaded = load_checkpoint(path)
        assert loaded.config == net.config and not loaded.training
        assert torch.equal(loaded(image), net(image))
    assert read_record(written)["extra"] == {"step": 7}


def test_damaged_or_mixed_checkpoints_are_refused_by_name(tmp_path):
    save_checkpoint(tmp_path / "a", small(), {"step": 1})
    save_checkpoint(tmp_path / "b", small(), {"step": 2})
    weights, record = tmp_path / "a.safetensors", tmp_path / "a.json"
    whole, text = weights.read_bytes(), record.read_text()
    for damage in (whole[:-100], whole[:50], b""):
        weights.write_bytes(damage)
        with pytest.raises(ValueError, match=r"a\.safetensors is damaged or cut short"):
            load_checkpoint(tmp_path / "a")
    weights.write_bytes(whole)
    for changed in ((tmp_path / "b.json").read_text(), text.replace('"window": 3', '"window": 5')):
        record.write_text(changed)
        with pytest.raises(ValueError, match=r"a\.json does not match the record inside a\.safetensors"):
            load_checkpoint(tmp_path / "a")
    for foreign, message in (("{", r"a\.json is no JSON"), ("[]", "'format' should be")):
        record.write_text(foreign)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / "a")
    record.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.json does not exist"):
        load_checkpoint(tmp_path / "a")


def torchvision_names(state):
    """The pycls state under the names that cirtorch gives a ResNet."""
    letters = {"a": "1", "b": "2", "c": "3"}
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "stem":
            renamed[f"features.{'0' if parts[1] == 'conv' else '1'}.{parts[2]}"] = value
            continue
        layer = {"proj": "downsample.0", "bn": "downsample.1"}.get(parts[2])
        if layer is None:
            layer = ("bn" if parts[3].endswith("_bn") else "conv") + letters[parts[3][0]]
        renamed[f"features.{int(parts[0][1]) + 3}.{int(parts[1][1:]) - 1}.{layer}.{parts[-1]}"] = value
    return renamed


def test_cirtorch_file_is_read_with_l2_on_both_sides_of_its_whitening(backbone, images, head, tmp_path):
    state = torchvision_names(backbone) | {"pool.p": torch.tensor([2.5])}
    whiten = {f"whiten.{name}": head[f"head.fc.{name}"][:64] for name in ("weight", "bias")}
    meta = {"mean": [0.5], "Lw": {"set": {"ss": {"P": np.eye(3), "m": np.zeros((3, 1))}}}}  # as published files have it
    torch.save({"meta": meta, "state_dict": state | whiten}, tmp_path / "gem.pth")
    written = convert(tmp_path / "gem.pth", "gem", tmp_path / "gem")
    assert convert(tmp_path / "gem.pth", "gem", tmp_path / "gem") == written  # over what it made itself
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(ValueError, match=r"mine\.json is there and is no converted checkpoint"):
        convert(tmp_path / "gem.pth", "gem", tmp_path / "mine")
    assert (tmp_path / "mine.json").read_text() == "{}"
    net, bare = load_checkpoint(written), load_official(state, "gem")
    with torch.inference_mode():
        image = images["db_scale0"][None]
        last = bare.features(bare.trunk(image))
        pooled = F.normalize(last.clamp(min=1e-6).pow(2.5).mean(dim=(2, 3)).pow(0.4), dim=1)
        assert difference(bare(image), pooled) < 1e-6
        expected = F.normalize(F.linear(pooled, whiten["whiten.weight"], whiten["whiten.bias"]), dim=1)
        assert difference(net(image), expected) < 1e-6
        assert difference(official_head(state | whiten, "gem")(last), expected) < 1e-6
    assert read_record(written)["extra"]["source"] == "gem.pth"


def test_missing_and_unexpected_names_are_listed_never_skipped(head, cvnet):
    without = {name: value for name, value in head.items() if name != "SSM.FFN.2.bias"}
    with pytest.raises(ValueError, match=r"Missing: SSM\.FFN\.2\.bias\. Unexpected: extra\.weight"):
        official_head(without | {"extra.weight": torch.zeros(1)}, "senet")
    for name, load in (
        ("s3.b2.f.b_bn.running_var", load_official),
        ("head.pool.p", official_head),
        ("head.fc.bias", official_head),
    ):
        with pytest.raises(ValueError, match=f"Missing: {name}. Unexpected: nothing"):
            load({key: value for key, value in cvnet.items() if key != name}, "cvnet")
    with pytest.raises(ValueError, match=r"family 'gem' .*Missing: pool\.p\. Unexpected: head\.fc\.bias"):
        official_head(cvnet, "gem")
    with pytest.raises(ValueError, match=r"family 'senet' .*Missing: SSM.*Unexpected: head\.pool\.p"):
        official_head(cvnet, "senet")
    with pytest.raises(ValueError, match="does not have the shapes"):
        official_head(head | {"head.fc.weight": torch.zeros(8, 8)}, "senet")
    with pytest.raises(ValueError, match="family is 'delg'; one of senet, cvnet, gem"):
        official_head(head, "delg")


class Malicious:
    def __reduce__(self):
        return (print, ("this runs when unpickled without care",))


def test_weights_are_dense_floats(tmp_path):
    for wrong, kind in ((torch.zeros(2, dtype=torch.int8), "int8"), (torch.zeros(2).to_sparse(), "sparse_coo")):
        with pytest.raises(ValueError, match=rf"some file: w is .*{kind}.*dense floating-point weights are wanted"):
            check_tensors({"w": wrong}, "some file")
    check_tensors({"w": torch.zeros(2, dtype=torch.float16), "bn.num_batches_tracked": torch.tensor(3)}, "some file")
    for name, content in (("empty.pth", b""), ("text.pth", b"not a checkpoint")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{name} \(gem\) is damaged, no checkpoint, or holds more than tensors \(.+\)"
        ):
            load_official(tmp_path / name, "gem")


def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys):
    torch.save({"model_state": {"x": Malicious()}}, tmp_path / "bad.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "bad.pth").read_bytes()[:60])
    for name in ("bad.pth", "cut.pth"):
        with pytest.raises(
            ValueError, match=rf"{name} \(cvnet\) is damaged, no checkpoint, or holds more than tensors"
        ):
            load_official(tmp_path / name, "cvnet")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda s: {**s, "head.fc.weight": "text"}, r"entry 'head\.fc\.weight' is a str"),
        (lambda s: {"state_dict": [1]}, "holds a list; tensors by name are wanted"),
        (lambda s: {**s, "head.fc.bias": s["head.fc.bias"] * np.nan}, r"head\.fc\.bias holds NaN"),
        (lambda s: {**s, "head.fc.bias": s["head.fc.bias"][:-1]}, r"shapes of family 'senet': head\.fc\.bias is \("),
    ],
)
def test_a_state_that_cannot_be_used_is_refused_in_one_line(head, damage, message):
    with pytest.raises(ValueError, match=message) as refused:
        official_head(damage(head), "senet")
    assert "\n" not in str(refused.value)


def test_a_conversion_never_replaces_what_it_reads(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"published")
    with pytest.raises(ValueError, match=r"would replace .*weights\.safetensors"):
        convert(file, "cvnet", tmp_path / "weights")
    assert file.read_bytes() == b"published"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file that is read as a small net: what is in it does not matter here."""
    monkeypatch.setattr(checkpoints, "load_official", lambda *args: small())
    (tmp_path / "cvnet.pyth").write_bytes(b"published")
    return tmp_path / "cvnet.pyth"


def test_a_conversion_killed_between_its_two_files_is_finished_by_the_same_command(published, tmp_path, monkeypatch):
    def killed(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_atomic(path, data)

    for trained_on in ("GLDv2-clean", "GLDv1"):  # at first, and over an earlier conversion
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(checkpoints, "write_atomic", killed)
            convert(published, "cvnet", tmp_path / "out", trained_on=trained_on)
        written = convert(published, "cvnet", tmp_path / "out", trained_on=trained_on)
        assert read_record(written)["extra"]["trained_on"] == trained_on


@pytest.mark.parametrize("foreign", ["out.safetensors", "out.json"])
def test_a_conversion_replaces_no_file_that_is_not_its_own(published, tmp_path, foreign):
    convert(published, "cvnet", tmp_path / "out")
    save_checkpoint(tmp_path / "trained", small(), {"training": {}})
    mine = (tmp_path / "trained").with_suffix((tmp_path / foreign).suffix).read_bytes()
    for others in ("there", "gone"):
        (tmp_path / foreign).write_bytes(mine)
        with pytest.raises(ValueError, match=rf"{foreign} is there and is no converted checkpoint"):
            convert(published, "cvnet", tmp_path / "out")
        assert (tmp_path / foreign).read_bytes() == mine, others
        for other in tmp_path.glob("out.*"):
            other.unlink()


def test_a_conversion_notes_the_training_set_and_can_be_superglobals(cvnet, tmp_path):
    torch.save(cvnet, tmp_path / "cvnet.pyth")
    plain = convert(tmp_path / "cvnet.pyth", "cvnet", tmp_path / "plain", trained_on="GLDv2-clean")
    assert read_record(plain)["extra"]["trained_on"] == "GLDv2-clean" and stored_preprocess(plain) == PRESETS["cvnet"]
    superglobal = convert(tmp_path / "cvnet.pyth", "cvnet", tmp_path / "superglobal", superglobal=True)
    assert load_checkpoint(superglobal).config["pooling"] == "gem+"
    assert stored_preprocess(superglobal) == PRESETS["superglobal"]
    with pytest.raises(ValueError, match="goes with the weights of family 'cvnet', not 'senet'"):
        convert(tmp_path / "cvnet.pyth", "senet", tmp_path / "x", superglobal=True)
