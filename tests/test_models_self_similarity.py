"""The self-similarity embedding: its arithmetic against a naive one, its controls, its gradients, its invariances."""

import pytest
import torch
import torch.nn.functional as F

from ssr_lib import self_similarity as module
from ssr_lib.self_similarity import SelfSimilarity, self_similarity_map, structural_descriptor


def net_and_map(relation="product", *, channels=12, mid=8, window=5, size=(6, 5), seed=0, **options):
    torch.manual_seed(seed)
    net = SelfSimilarity(channels, mid, window, relation=relation, **options)
    for layer in net.modules():  # batch norms away from their identity start
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(layer.weight, 1, 0.1)
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    return net, torch.randn(3, channels, *size)


def naive_encoding(net, f):
    """Steps 2 and 3 as they are written down: every product in memory, (u, v) images through the layers one by one."""
    (batch, channels, height, width), window = f.shape, net.window
    neighbours = F.unfold(f, window, padding=window // 2).view(batch, channels, window, window, height, width)
    related = neighbours * f[:, :, None, None] if net.relation == "product" else neighbours
    z = related.clamp(min=0).permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, window, window)
    for convolution, norm, _ in net.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("relation", ["product", "neighbour"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("window", "size"), [(3, (4, 4)), (5, (6, 5)), (7, (9, 7)), (7, (2, 3))])
def test_encoder_equals_the_naive_one_in_values_gradients_and_statistics(relation, training, window, size):
    net, x = net_and_map(relation, window=window, size=size)
    other, _ = net_and_map(relation, window=window, size=size)
    net.double().train(training), other.double().train(training)
    results = []
    for each, encode in ((net, net.encode), (other, lambda f: naive_encoding(other, f))):
        f = F.normalize(each.reduce(x.double()), dim=1).detach().requires_grad_()
        encoded = encode(f)
        (encoded * torch.linspace(-1, 1, encoded.numel()).view_as(encoded)).sum().backward()
        statistics = [b.clone() for b in each.encoder.buffers()]
        results.append([encoded, f.grad, *(p.grad for p in each.encoder.parameters()), *statistics])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("relation", ["product", "neighbour"])
def test_blocks_of_rows_at_inference_give_the_same_numbers(relation, monkeypatch):
    net, x = net_and_map(relation, size=(11, 7))
    net.eval()
    with torch.inference_mode():
        whole = net(x)
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)  # one row of places at a time
        torch.testing.assert_close(net(x), whole, rtol=0, atol=1e-5)


def test_whole_block_is_reduce_relate_encode_expand_fuse_feed_forward():
    net, x = net_and_map(feed_forward=True, fusion="add")
    net.eval()
    with torch.inference_mode():
        f = F.normalize(net.reduce(x), dim=1)
        y = x + net.expand(naive_encoding(net, f))
        first, _, second = net.feed_forward
        torch.testing.assert_close(net(x), second(first(y).relu()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [("add", lambda x, s: x + s), ("gate", lambda x, s: x * s.sigmoid()), ("only", lambda x, s: s)],
)
def test_fusions(fusion, expected):
    net, x = net_and_map(fusion=fusion, feed_forward=False)
    net.eval()
    with torch.inference_mode():
        assert torch.equal(net(x), expected(x, net.embed(x)))


@pytest.mark.parametrize("relation", ["product", "neighbour", "conv"])
def test_gradient_of_the_whole_block_is_the_numerical_one(relation):
    net, x = net_and_map(relation, channels=3, mid=2, window=3, size=(2, 3), fusion="concat")
    net, x = net.double().eval(), x[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(net, (x,), atol=1e-6)


def test_controls_have_the_parameters_of_the_module():
    sizes = {r: [p.shape for p in net_and_map(r)[0].parameters()] for r in module.RELATIONS}
    assert sizes["product"] == sizes["neighbour"] == sizes["conv"]


def test_product_scale_multiplies_the_products_of_the_encoder():
    net, x = net_and_map()
    scaled, _ = net_and_map(product_scale=9.0)
    with torch.inference_mode():
        scaled.encoder[0][0].weight /= 9
        scaled.eval(), net.eval()
        torch.testing.assert_close(scaled(x), net(x), rtol=0, atol=1e-5)


def test_without_scale_many_channels_leave_the_first_batch_norm_to_its_eps():
    """At c = 256 a product is about 1/256 and the first convolution's variance below eps: half the signal is lost."""
    spreads = {}
    for scale in (1.0, 256.0):
        torch.manual_seed(0)
        net = SelfSimilarity(64, 256, 3, product_scale=scale).train()
        outputs = []
        net.encoder[0][1].register_forward_hook(lambda _, __, output, kept=outputs: kept.append(output))
        with torch.inference_mode():
            net(torch.randn(2, 64, 8, 8))
        spreads[scale] = float(outputs[0].std())  # rectified in place since: a unit normal would leave 0.58
    assert spreads[256.0] == pytest.approx(0.58, abs=0.03)
    assert spreads[1.0] < 0.35


def test_bfloat16_encoder_is_close_and_learns():
    net, x = net_and_map(mid=16, encoder_dtype="bfloat16", product_scale=16.0)
    exact, _ = net_and_map(mid=16, product_scale=16.0)
    y = net.train()(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, exact.train()(x), rtol=0, atol=0.15)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_self_similarity_map_by_hand():
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two places: (3, 4) and (0, 2); cosine 0.8
    cosines = self_similarity_map(x, 3)
    assert cosines.shape == (1, 1, 2, 3, 3)
    torch.testing.assert_close(cosines[0, 0, 0], torch.tensor([[0, 0, 0], [0, 1, 0.8], [0, 0, 0]]))
    torch.testing.assert_close(cosines[0, 0, 1], torch.tensor([[0, 0, 0], [0.8, 1, 0], [0, 0, 0]]))


def test_products_summed_over_channels_are_the_cosines():
    x = torch.randn(2, 6, 5, 4).abs()  # no negative product to clamp
    f = F.pad(F.normalize(x, dim=1), (2, 2, 2, 2)).permute(0, 2, 3, 1).contiguous()
    torch.testing.assert_close(module.Products.apply(f, 5).sum(dim=-1), self_similarity_map(x, 5))


def rotated_channels(x):
    rotation, _ = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(1)))
    return torch.einsum("dc,bchw->bdhw", rotation, x)


def test_structural_descriptor_sees_layout_and_not_channels():
    x = torch.randn(3, 16, 9, 8, generator=torch.Generator().manual_seed(0))
    x[1] = x[0].flatten(1)[:, torch.randperm(72, generator=torch.Generator().manual_seed(2))].view(16, 9, 8)
    for i in (0, 2):  # maps with structure: neighbours alike
        x[i] = F.avg_pool2d(x[i : i + 1], 3, 1, 1)[0]
    plain, rotated = structural_descriptor(x), structural_descriptor(rotated_channels(x))
    assert plain.shape == (3, 48 * 49 // 2 + 48)
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(rotated, plain, rtol=0, atol=2e-3)
    assert plain[0] @ plain[1] < 0.9, "the same places in another order are another layout"


def test_errors_name_what_is_legal():
    with pytest.raises(ValueError, match="relation is 'sum'; one of product, neighbour, conv"):
        SelfSimilarity(4, 2, relation="sum")
    with pytest.raises(ValueError, match="encoder_dtype is 'float16'"):
        SelfSimilarity(4, 2, encoder_dtype="float16")
    for window in (1, 6, 7.0):
        with pytest.raises(ValueError, match="an odd whole number of at least 3"):
            self_similarity_map(torch.zeros(1, 1, 4, 4), window)


@pytest.mark.parametrize("relation", ["product", "neighbour", "conv"])
@pytest.mark.parametrize("window", [3, 5])
def test_under_autocast_the_relations_are_computed_in_float32(relation, window):
    torch.manual_seed(0)
    module = SelfSimilarity(8, 4, window, relation=relation).eval()
    x = torch.randn(2, 8, 6, 7)
    with torch.inference_mode():
        expected = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(x)
    assert torch.nn.functional.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.999
