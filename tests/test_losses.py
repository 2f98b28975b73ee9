"""Losses against a few lines of NumPy, and what their gradients must do."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssr_lib.files import load_part
from ssr_lib.losses import arcface
from ssr_lib.losses.arcface import arcface_margin


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_loss_and_accuracy_equal_three_lines_of_numpy(kind, margin):
    generator = torch.Generator().manual_seed(3)
    descriptors = F.normalize(torch.randn(9, 8, generator=generator))
    labels = torch.randint(5, (9,), generator=generator)
    module = load_part(kind, "losses").Loss(8, 5, seed=1, margin=margin, scale=16.0)
    loss, accuracy = module(descriptors, labels)
    centres = module.centres.detach().double().numpy()
    cosines = descriptors.double().numpy() @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    rows, y = np.arange(9), labels.numpy()
    shifted, true = cosines.copy(), cosines[rows, y]
    shifted[rows, y] = np.cos(np.arccos(true) + margin) if kind == "arcface" else true - margin
    probabilities = np.exp(16.0 * shifted) / np.exp(16.0 * shifted).sum(1, keepdims=True)
    assert loss.item() == pytest.approx(-np.log(probabilities[rows, y]).mean(), rel=1e-5)
    assert accuracy.item() == pytest.approx((cosines.argmax(1) == y).mean())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_arcface_falls_with_the_angle_even_where_angle_plus_margin_passes_pi_and_gradients_stay_finite(sign):
    assert (arcface_margin(torch.linspace(0.0, math.pi, 2001, dtype=torch.float64).cos(), 0.5).diff() < 0).all()
    module = arcface.Loss(4, 3, seed=2)  # the sine vanishes at its centres
    descriptors = (sign * F.normalize(module.centres.detach())).requires_grad_()
    module(descriptors, torch.arange(3))[0].backward()
    assert torch.isfinite(descriptors.grad).all() and torch.isfinite(module.centres.grad).all()


def by_definition(name, x, labels, margin=None, weight=1.0, bins=19, temperature=0.01):
    """The losses between images of a batch, from descriptors (B, D)."""
    s, same = x @ x.T, labels[:, None] == labels
    d = np.sqrt(np.maximum(2 - 2 * s, 0))
    right, wrong = same & ~np.eye(len(x), dtype=bool), ~same
    if name == "contrastive":
        apart = np.maximum((margin or 0.7) - d[wrong], 0)
        return d[right].mean() + apart[apart > 0].mean()
    triples = right[:, :, None] & wrong[:, None]  # image, right one, wrong one
    margins = (d[:, :, None] - d[:, None] + (margin or 0.1))[triples]
    triplet = margins[margins > 0].mean()
    if name == "triplet":
        return triplet
    if name == "second_order":
        pairs = np.argwhere(np.triu(right))
        return triplet + weight * np.mean([np.linalg.norm((d[i] ** 2 - d[p] ** 2)[wrong[i]]) for i, p in pairs])
    found = []
    for i in range(len(x)):
        if name == "smooth_ap":
            before = 1 / (1 + np.exp((s[i, :, None] - s[i]) / temperature)) * (1 - np.eye(len(x)))  # [p, j]: j before p
            found.append(((1 + before[:, same[i]].sum(1)) / (1 + before.sum(1)))[same[i]].mean())
        else:
            share = np.maximum(1 - np.abs(s[i, :, None] - np.linspace(1, -1, bins + 1)) / (2 / bins), 0)  # (B, bins)
            hits, every = share[right[i]].sum(0), share[right[i] | wrong[i]].sum(0)
            found.append((hits.cumsum() / np.maximum(every.cumsum(), 1e-9) * hits).sum() / right[i].sum())
    return 1 - np.mean(found)


@pytest.mark.parametrize("classes", [8, 4])
@pytest.mark.parametrize("name,options", [
    *((name, {}) for name in ("triplet", "contrastive", "smooth_ap", "listwise_ap", "second_order")),
    ("triplet", {"margin": 0.5}), ("contrastive", {"margin": 1.2}), ("smooth_ap", {"temperature": 0.1}),
    ("listwise_ap", {"bins": 9}), ("second_order", {"margin": 0.5, "weight": 3.0}),
])  # fmt: skip
def test_losses_between_images_are_their_definition(name, options, classes):
    generator, labels = torch.Generator().manual_seed(4), torch.arange(16) % classes
    x = F.normalize(torch.randn(16, classes, generator=generator) + F.one_hot(labels, classes)).requires_grad_()
    module = load_part(name, "losses").Loss(classes, 9, **options)
    loss, right = module(x, labels)
    loss.backward()
    values = x.detach().double().numpy()
    wanted = by_definition(name, values, labels.numpy(), **options)
    assert module.per_class == 4 and loss.item() == pytest.approx(wanted, rel=1e-4)
    assert right.item() == np.mean(np.argmax(values @ values.T - 3 * np.eye(16), axis=1) % classes == labels.numpy())
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
