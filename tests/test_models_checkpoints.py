"""Checkpoints survive the disk and refuse what is not theirs; published weights give the published outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_weights import GOLDEN, backbone_state, head_state
from safetensors.torch import save_file

from ssr_lib.models.checkpoints import (
    SUPERGLOBAL,
    convert,
    load_checkpoint,
    load_official,
    official_head,
    read_record,
    save_checkpoint,
)
from ssr_lib.models.network import RetrievalNet
from ssr_lib.models.pooling import combine_scales


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
    plain = load_official(cvnet, "cvnet", relup=0.014, normalize_pooled=True)
    if relup == "norelup":  # the published program then leaves the threshold inside the first stage's blocks
        for trunk in (net.backbone.trunk, plain.backbone.trunk):
            for block in (*trunk.layer1, *trunk.layer2, *trunk.layer3):
                block.act3 = torch.nn.ReLU()
    pictures = [images["sg_resize_0.7071"], images["db_scale1"], images["sg_resize_1.4142"]]
    each = at_scales(net, pictures, normalize=False)
    assert difference(each[1], images[f"sg_{relup}_single"]) < 1e-6
    assert difference(combine_scales(each, "scale-gem"), images[f"sg_{relup}_ms3"]) < 1e-6
    assert difference(combine_scales(each, normalize=False), images[f"sg_{relup}_ms3_mean"]) < 1e-6
    single = at_scales(plain, pictures[1:2], normalize=False)
    assert difference(single[0], images[f"sg_{relup}_single_norgem_nogemp"]) < 1e-6
