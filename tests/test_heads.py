"""Heads: their arithmetic against a naive one, gradients, starts, controls and invariances."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssr_lib import self_similarity
from ssr_lib.files import load_part
from ssr_lib.heads import _shared
from ssr_lib.pooling import gem
from ssr_lib.self_similarity import self_similarity_map, structural_descriptor

CONTROLS = ("product", "neighbour", "conv")  # of one number of parameters
STARTS = ({"start": "identity"}, {"start": "random"})
HEADS = [*itertools.product(("attention", "attention_neighbour", "attention_only", "cbam"), STARTS)]
HEADS += [*itertools.product(CONTROLS, ({}, {"encoder": "shared"}, {"fusion": "concat"}))]
HEADS += [("attention", {"encoder": "full"}), ("attention_neighbour", {"encoder": "full"})]
PEERS = {"spoc": {}, "mac": {}, "rmac": {}, "crow": {}}
PEERS |= {"netvlad": {"clusters": 4, "dims": 8}, "lit": {"templates": 5, "dims": 8}}


def head_of(kind, channels=(5, 6, 6), **options):
    return load_part(kind, "heads").Head(channels, **options)


def make(kind, *, mid=4, window=5, **options):
    """A head away from its start where its batch norms can move it; projection keeps the number of channels."""
    torch.manual_seed(0)
    sizes = {"mid_channels": mid, "window": window}
    sizes = {"cbam": {}, "attention_only": {"mid_channels": mid}}.get(kind, sizes)
    head = head_of(kind, (4, 6, 6), **sizes, **options)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias, 0, 0.1)
    return head


def noise(*shape, **options):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), **options)


def naive_encoding(head, kind, x):
    """What relates places to their windows as it is written down, (u, v) images through the layers one by one."""
    (batch, channels, height, width), window = x.shape, head.window
    related = F.unfold(x, window, padding=window // 2).view(batch, channels, window, window, height, width)
    if kind in ("product", "attention"):
        related = related * (x if kind == "product" else head.score(x))[:, :, None, None]
    if kind in ("product", "neighbour"):
        related = related.clamp(min=0)
    z = related.permute(0, 4, 5, 1, 2, 3).reshape(-1, 1 if head.shared else channels, window, window)
    for convolution, norm, _ in head.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["product", "neighbour", "attention", "attention_neighbour"])
@pytest.mark.parametrize("encoder", ["full", "shared"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("window", "size"), [(3, (4, 4)), (5, (6, 5)), (7, (9, 7)), (7, (2, 3))])
def test_relations_gradients_and_statistics_are_the_naive_ones(kind, encoder, training, window, size, monkeypatch):
    for module in (self_similarity, _shared):
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)  # at inference one row, or one picture, at a time
    results = []
    for fast in (True, False):
        head = make(kind, window=window, encoder=encoder).double().train(training)
        x = noise(2, 4, *size, dtype=torch.float64).requires_grad_()
        encoded = getattr(head, "encode_channels", head.encode)(x) if fast else naive_encoding(head, kind, x)
        (encoded * torch.linspace(-1, 1, encoded.numel()).view(encoded.shape)).sum().backward()
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        results.append([encoded, x.grad, *gradients, *(b for b in head.buffers() if b.is_floating_point())])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("place", "fusion"), [("mid", "add"), ("mid", "concat"), ("last", "add")])
def test_places_and_fusions_are_what_they_are_written_down_to_be(place, fusion):
    head, x = make("product", place=place, fusion=fusion, product_scale=4).eval(), noise(3, 6, 6, 5)
    project = nn.Conv2d(6, 6, 1)
    with torch.inference_mode():
        inside = x if place == "mid" else project(x)
        s = head.expand(naive_encoding(head, "product", 2 * F.normalize(head.reduce(inside), dim=1)))
        joined = inside + s if fusion == "add" else head.join(torch.cat([inside, s], dim=1))
        expected = project(joined) if place == "mid" else head.feed_forward[2](head.feed_forward[0](joined).relu())
        torch.testing.assert_close(head(None, x, project), gem(expected), rtol=0, atol=1e-5)
        found, added = head.added(None, inside)
        assert torch.equal(found, inside)
        torch.testing.assert_close(added, joined - inside, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), [*HEADS, *PEERS.items(), ("late", {})])
def test_gradient_is_the_numerical_one_and_every_map_has_a_feature_of_its_own(kind, options):
    head = head_of(kind, (4, 6, 6), **options) if kind in PEERS else make(kind, mid=3, **options)
    head, x = head.double().eval(), (noise(3, 6, 2, 3, dtype=torch.float64).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(None, x, nn.Identity()), (x[:1],), atol=1e-6)
    alone = torch.cat([head(None, each[None], nn.Identity()) for each in x])
    torch.testing.assert_close(head(None, x, nn.Identity()), alone, rtol=0, atol=1e-12)
    if kind == "cbam":
        y = x * (head.channel(x.mean((2, 3), True)) + head.channel(x.amax((2, 3), True))).sigmoid() * head.scale
        gate = head.spatial(torch.stack([y.mean(1), y.amax(1)], dim=1)).sigmoid() * head.scale
        torch.testing.assert_close(head.fuse(x), gate * y)
    if getattr(head, "identity", False):
        torch.testing.assert_close(alone, gem(sum(head.added(None, x))))
    if kind in PEERS:  # steps of the others are below
        alone.square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in head.parameters() if p.requires_grad), "all that learns is used"
    for odd in (-x, 0 * x, x[:, :, :1, :1]):
        features = head(None, odd, nn.Identity())
        assert features.shape == (3, head.width) and features.isfinite().all()
        assert torch.autograd.grad(features.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_identity_start_is_plain_and_ten_steps_move_every_parameter(kind, options):
    torch.manual_seed(2)
    project, x = nn.Conv2d(6, 9, 1), noise(4, 6, 5, 4)
    random = options.get("start") == "random"  # there X' has the 9 channels behind project
    head = head_of(kind, (4, 6, 9), learn_p=True, **options)
    if not random:
        pooled = head_of("plain", (4, 6, 9))(x, x, project)
        torch.testing.assert_close(head.eval()(x, x, project), pooled, rtol=0, atol=1e-6)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    optimizer = torch.optim.Adam(head.train().parameters(), lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        (F.normalize(head(x, x, project), dim=1) * torch.linspace(-1, 1, head.width)).sum().backward()
        optimizer.step()
    assert [name for name, p in head.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("place", ["mid", "last"])
def test_controls_have_the_parameters_and_the_start_of_the_module(place):
    first, *others = [dict(head_of(kind, (4, 6, 9), seed=3, place=place).named_parameters()) for kind in CONTROLS]
    for other in others:
        assert first.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in first.items())


def test_self_similarity_is_that_by_hand_and_its_structure_is_its_formula_and_sees_layout_and_not_channels():
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two places: (3, 4) and (0, 2); cosine 0.8
    torch.testing.assert_close(self_similarity_map(x, 3)[0, 0, 0], torch.tensor([[0, 0, 0], [0, 1, 0.8], [0, 0, 0]]))
    x = F.avg_pool2d(noise(1, 16, 9, 8).double(), 3, 1, 1)  # with structure: neighbours alike
    x = torch.cat([x, x.flatten(2)[:, :, torch.randperm(72, generator=torch.Generator().manual_seed(2))].view_as(x)])
    head, descriptors = head_of("structural", (16, 0, 0)), structural_descriptor(x)
    assert descriptors.shape == (2, head.width) == (2, 48 * 49 // 2 + 48)
    assert torch.equal(head(x, None, nn.Identity()), descriptors)
    f = F.pad(F.normalize(x[0], dim=0), (3, 3, 3, 3), value=torch.nan)  # outside is no place
    offsets = [(h, w) for h, w in itertools.product(range(7), repeat=2) if (h, w) != (3, 3)]
    c = torch.stack([(f[:, 3:-3, 3:-3] * f[:, h : h + 9, w : w + 8]).sum(dim=0) for h, w in offsets])
    mean = c.nanmean(dim=(1, 2))
    centred = c - mean[:, None, None]
    second = torch.cat([(centred[i] * centred[i:]).nanmean(dim=(1, 2)) for i in range(48)])
    parts = F.normalize(second.sign() * second.abs().sqrt(), dim=0), F.normalize(mean - mean.mean(), dim=0)
    torch.testing.assert_close(descriptors[0], torch.cat(parts) / 2**0.5, rtol=0, atol=1e-9)
    assert descriptors[0] @ descriptors[1] < 0.9, "the same places in another order are another layout"


def test_under_autocast_what_needs_float32_is_computed_in_it():
    dtypes = []
    for head in (make("product"), make("attention_neighbour")):
        head.encoder[-1][-1].register_forward_hook(lambda layer, inputs, output: dtypes.append(output.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            head(None, noise(3, 6, 6, 5), nn.Identity())
    assert dtypes == [torch.float32] * 2
    assert head_of("crow")(None, torch.zeros(1, 6, 2, 2).half(), nn.Identity()).isfinite().all()
