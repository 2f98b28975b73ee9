"""Heads: the embedding's arithmetic against a naive one, its controls, gradients, starts and invariances."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssr_lib import self_similarity
from ssr_lib.heads import conv, neighbour, plain, product, structural
from ssr_lib.pooling import gem
from ssr_lib.self_similarity import self_similarity_map, structural_descriptor

CONTROLS = {"product": product.Head, "neighbour": neighbour.Head, "conv": conv.Head}


def head_and_map(name="product", *, channels=12, mid=8, window=5, size=(6, 5), seed=0, **options):
    """A head away from its identity start, and a map for it; at "mid" with channels after projection as before."""
    torch.manual_seed(seed)
    head = CONTROLS[name]((4, channels, channels), seed=seed, mid_channels=mid, window=window, **options)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias, 0, 0.1)
    return head, torch.randn(3, channels, *size)


def naive_encoding(head, f):
    """Steps 2 and 3 as they are written down: every product in memory, (u, v) images through the layers one by one."""
    (batch, channels, height, width), window = f.shape, head.window
    neighbours = F.unfold(f, window, padding=window // 2).view(batch, channels, window, window, height, width)
    related = neighbours * f[:, :, None, None] if isinstance(head, product.Head) else neighbours
    z = related.clamp(min=0).permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, window, window)
    for convolution, norm, _ in head.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["product", "neighbour"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("window", "size"), [(3, (4, 4)), (5, (6, 5)), (7, (9, 7)), (7, (2, 3))])
def test_encoder_equals_the_naive_one_in_values_gradients_and_statistics(name, training, window, size):
    head, x = head_and_map(name, window=window, size=size)
    other, _ = head_and_map(name, window=window, size=size)
    head.double().train(training), other.double().train(training)
    results = []
    for each, encode in ((head, head.encode), (other, lambda f: naive_encoding(other, f))):
        f = F.normalize(each.reduce(x.double()), dim=1).detach().requires_grad_()
        encoded = encode(f)
        (encoded * torch.linspace(-1, 1, encoded.numel()).view_as(encoded)).sum().backward()
        statistics = [b.clone() for b in each.encoder.buffers()]
        results.append([encoded, f.grad, *(p.grad for p in each.encoder.parameters()), *statistics])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_blocks_of_rows_at_inference_give_the_same_numbers(monkeypatch):
    head, x = head_and_map(size=(11, 7))
    head.eval()
    with torch.inference_mode():
        whole = head.embed(x)
        monkeypatch.setattr(self_similarity, "CHUNK_ELEMENTS", 1)  # one row of places at a time
        torch.testing.assert_close(head.embed(x), whole, rtol=0, atol=1e-5)


def test_places_and_fusions_are_what_they_are_written_down_to_be():
    project = nn.Conv2d(12, 12, 1)
    for place, fusion in (("mid", "add"), ("mid", "concat"), ("last", "add")):
        head, x = head_and_map(place=place, fusion=fusion, product_scale=4)
        head.eval()
        with torch.inference_mode():
            inside = x if place == "mid" else project(x)
            s = head.expand(naive_encoding(head, 2 * F.normalize(head.reduce(inside), dim=1)))
            joined = inside + s if fusion == "add" else head.join(torch.cat([inside, s], dim=1))
            if place == "mid":
                expected = project(joined)
            else:
                first, _, second = head.feed_forward
                expected = second(first(joined).relu())
            torch.testing.assert_close(head(None, x, project), gem(expected), rtol=0, atol=1e-5)
            found, added = head.added(None, inside)
            assert torch.equal(found, inside)
            torch.testing.assert_close(added, joined - inside, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_at_mid_a_head_starts_as_plain(name, fusion):
    x, project = torch.randn(2, 6, 5, 4), nn.Conv2d(6, 9, 1)
    found = CONTROLS[name]((4, 6, 9), mid_channels=4, window=3, fusion=fusion).eval()(x, x, project)
    torch.testing.assert_close(found, plain.Head((4, 6, 9))(x, x, project), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONTROLS)
def test_gradient_of_a_whole_head_is_the_numerical_one(name):
    head, x = head_and_map(name, channels=3, mid=2, window=3, size=(2, 3), fusion="concat", learn_p=True)
    head, x = head.double().eval(), x[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(None, x, nn.Identity()), (x,), atol=1e-6)
    head(None, x, nn.Identity()).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("place", ["mid", "last"])
def test_controls_have_the_parameters_and_the_start_of_the_module(place):
    states = [dict(kind((4, 6, 9), seed=3, place=place).named_parameters()) for kind in CONTROLS.values()]
    for other in states[1:]:
        assert states[0].keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in states[0].items())
    another = product.Head((4, 6, 9), seed=4, place=place)
    assert not torch.equal(another.reduce.weight, states[0]["reduce.weight"])


def test_self_similarity_map_by_hand():
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two places: (3, 4) and (0, 2); cosine 0.8
    cosines = self_similarity_map(x, 3)
    assert cosines.shape == (1, 1, 2, 3, 3)
    torch.testing.assert_close(cosines[0, 0, 0], torch.tensor([[0, 0, 0], [0, 1, 0.8], [0, 0, 0]]))
    torch.testing.assert_close(cosines[0, 0, 1], torch.tensor([[0, 0, 0], [0.8, 1, 0], [0, 0, 0]]))


def test_structural_descriptor_sees_layout_and_not_channels():
    x = torch.randn(3, 16, 9, 8, generator=torch.Generator().manual_seed(0))
    x[1] = x[0].flatten(1)[:, torch.randperm(72, generator=torch.Generator().manual_seed(2))].view(16, 9, 8)
    for i in (0, 2):  # maps with structure: neighbours alike
        x[i] = F.avg_pool2d(x[i : i + 1], 3, 1, 1)[0]
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))
    descriptors, rotated = structural_descriptor(x), structural_descriptor(torch.einsum("dc,bchw->bdhw", rotation, x))
    assert descriptors.shape == (3, structural.Head((16, 0, 0)).width) == (3, 48 * 49 // 2 + 48)
    assert torch.equal(structural.Head((16, 0, 0))(x, None, nn.Identity()), descriptors)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(rotated, descriptors, rtol=0, atol=2e-3)
    assert descriptors[0] @ descriptors[1] < 0.9, "the same places in another order are another layout"


@pytest.mark.parametrize("name", CONTROLS)
def test_under_autocast_the_relations_are_computed_in_float32(name):
    head, x = head_and_map(name, mid=4, window=3)
    head.eval()
    with torch.inference_mode():
        expected = head(None, x, nn.Identity())
        with torch.autocast("cpu", torch.bfloat16):
            found = head(None, x, nn.Identity())
    assert F.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"place": "first"}, "place is 'first'; one of mid, last"),
        ({"fusion": "gate"}, "fusion is 'gate'; one of add, concat"),
        ({"window": 4}, "window is 4; an odd whole number of at least 3"),
        ({"window": 7.0}, r"window is 7\.0; an odd whole number"),
        ({"feed_forward": True}, "use 'last'"),
        ({"p": 7, "learn_p": True}, "starts at 7"),
    ],
)
def test_errors_say_what_is_legal(options, message):
    with pytest.raises(ValueError, match=message):
        product.Head((4, 6, 9), **options)
