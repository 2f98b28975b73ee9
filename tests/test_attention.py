"""Reading B of the self-similarity embedding, its controls and CBAM: stored outputs, loops, gradients, starts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssr_lib.heads import _shared, attention, attention_neighbour, attention_only, cbam, conv, neighbour, plain, product
from ssr_lib.official import official_head

GOLDEN = Path(__file__).with_name("golden")
FULL = [(kind, {"encoder": "full"}) for kind in (attention, attention_neighbour)]
SHARED = [(kind, {"encoder": "shared"}) for kind in (attention, attention_neighbour, product, neighbour)]
KINDS = (attention, attention_neighbour, attention_only, cbam)
STARTS = [(kind, {"start": "identity"}) for kind in KINDS] + [(kind, {"start": "random"}) for kind in KINDS]
HEADS = [*STARTS, *FULL, *SHARED[2:], (conv, {"encoder": "shared"})]


def make(kind, *, mid=4, window=5, **options):
    """A head, away from its start where its batch norms can move it."""
    torch.manual_seed(0)
    if kind is not cbam:
        options["mid_channels"] = mid
    if kind not in (cbam, attention_only):
        options["window"] = window
    head = kind.Head((4, 6, 6), **options)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias, 0, 0.1)
    return head


@pytest.mark.parametrize("name", ["attention", "attention_same_width"])
def test_published_weights_give_the_stored_outputs(name):
    stored = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{name}.npz").items()}
    module = official_head({k[6:]: v for k, v in stored.items() if k.startswith("param/")}, family="attention")
    head, x = module.head, stored["x"]
    with torch.inference_mode():
        projected = head.reduce(x)
        shortcut, s = head.added(None, x)
        embedded = head.feed_forward(shortcut + s)
        found = {"projected": projected, "attention": head.score(projected), "S": s, "embedded": embedded}
        for key, value in (found | {"descriptor": module(x)}).items():
            torch.testing.assert_close(value, stored[f"out/{key}"], rtol=0, atol=1e-6)
    assert head.window == stored["window"]


def test_published_weights_that_do_not_fit_are_refused_by_name():
    stored = np.load(GOLDEN / "attention.npz")
    state = {k[6:]: torch.from_numpy(v) for k, v in stored.items() if k.startswith("param/")}
    with pytest.raises(ValueError, match=r"gem, attention\)\. Missing: gem_p\. Unexpected: p$"):
        official_head({**{k: v for k, v in state.items() if k != "gem_p"}, "p": torch.ones(1)}, "attention")


def by_loops(head, kind, x):
    """The encoded relations of X' or F (B, c, H, W), every window of every channel written out."""
    batch, c, height, width = x.shape
    half = head.window // 2
    a = head.score(x) if kind is attention else x
    t = torch.zeros(batch, height, width, c, head.window, head.window, dtype=x.dtype)
    for channel, h, w, u, v in np.ndindex(c, height, width, head.window, head.window):
        row, column = h + u - half, w + v - half
        if 0 <= row < height and 0 <= column < width:
            there = x[:, channel, row, column]
            t[:, h, w, channel, u, v] = there * a[:, channel, h, w] if kind in (attention, product) else there
    z = t.relu() if kind in (product, neighbour) else t
    z = z.reshape(-1, 1 if head.shared else c, head.window, head.window)
    for convolution, norm, _ in head.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, c).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("kind", "options"), FULL + SHARED)
@pytest.mark.parametrize("training", [True, False])
def test_relation_and_encoder_equal_the_loops_in_values_gradients_and_statistics(kind, options, training, monkeypatch):
    monkeypatch.setattr(_shared, "CHUNK_ELEMENTS", 1)  # one picture at a time at inference
    results = []
    for fast in (True, False):
        head = make(kind, **options).double().train(training)
        x = torch.randn(2, 4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        encode = getattr(head, "encode_channels", head.encode)
        encoded = encode(x) if fast else by_loops(head, kind, x)
        (encoded * torch.linspace(-1, 1, encoded.numel()).view(encoded.shape)).sum().backward()
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        results.append([encoded, x.grad, *gradients, *(b for b in head.buffers() if b.is_floating_point())])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_gradient_is_the_numerical_one_and_the_batch_does_not_matter(kind, options):
    head = make(kind, mid=3, **options).double().eval()
    x = torch.rand(3, 6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    assert torch.autograd.gradcheck(lambda x: head(None, x, nn.Identity()), (x[:1].requires_grad_(),), atol=1e-6)
    alone = torch.cat([head(None, each[None], nn.Identity()) for each in x])
    torch.testing.assert_close(head(None, x, nn.Identity()), alone, rtol=0, atol=1e-12)
    smallest = head(None, x[:, :, :1, :1], nn.Identity())  # a map of one place
    assert smallest.shape == (3, head.width) and smallest.isfinite().all()


@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_identity_start_is_plain_and_ten_steps_move_every_parameter(kind, options):
    project, x = nn.Conv2d(6, 9, 1), torch.randn(4, 6, 5, 4, generator=torch.Generator().manual_seed(3))
    random = options.get("start") == "random"  # there X' has the 9 channels behind project
    head = kind.Head((4, 6, 9), learn_p=True, **options)
    if not random:
        torch.testing.assert_close(head.eval()(x, x, project), plain.Head((4, 6, 9))(x, x, project), rtol=0, atol=1e-6)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    optimizer = torch.optim.Adam(head.train().parameters(), lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        (F.normalize(head(x, x, project), dim=1) * torch.linspace(-1, 1, head.width)).sum().backward()
        optimizer.step()
    assert [name for name, p in head.named_parameters() if torch.equal(p, before[name])] == []
