"""Losses against a few lines of NumPy, and what their gradients must do."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssr_lib.files import load_part
from ssr_lib.losses import arcface, cosface
from ssr_lib.losses.arcface import arcface_margin

KINDS = {"arcface": arcface.Loss, "cosface": cosface.Loss}


def test_arcface_falls_with_the_angle_even_where_angle_plus_margin_passes_pi():
    angles = torch.linspace(0.0, math.pi, 2001, dtype=torch.float64)
    assert (arcface_margin(torch.cos(angles), 0.5).diff() < 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_loss_and_accuracy_equal_three_lines_of_numpy(kind, margin):
    generator = torch.Generator().manual_seed(3)
    descriptors = F.normalize(torch.randn(9, 8, generator=generator))
    labels = torch.randint(5, (9,), generator=generator)
    module = KINDS[kind](8, 5, seed=1, margin=margin, scale=16.0)
    loss, accuracy = module(descriptors, labels)

    centres = module.centres.detach().double().numpy()
    cosines = descriptors.double().numpy() @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    rows, y = np.arange(9), labels.numpy()
    shifted = cosines.copy()
    true = cosines[rows, y]
    shifted[rows, y] = np.cos(np.arccos(true) + margin) if kind == "arcface" else true - margin
    probabilities = np.exp(16.0 * shifted) / np.exp(16.0 * shifted).sum(1, keepdims=True)
    assert loss.item() == pytest.approx(-np.log(probabilities[rows, y]).mean(), rel=1e-5)
    assert accuracy.item() == pytest.approx((cosines.argmax(1) == y).mean())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_stay_finite_where_the_sine_vanishes(sign):
    module = arcface.Loss(4, 3, seed=2)
    descriptors = (sign * F.normalize(module.centres.detach())).requires_grad_()
    module(descriptors, torch.arange(3))[0].backward()
    assert torch.isfinite(descriptors.grad).all() and torch.isfinite(module.centres.grad).all()


def test_centres_start_at_the_means_of_their_classes():
    module = arcface.Loss(2, 2)
    module.start(torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 4.0]]), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(module.centres.detach(), torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_centres_depend_on_the_seed_and_on_nothing_drawn_before():
    first = arcface.Loss(8, 5, seed=7).centres
    torch.randn(100)
    assert torch.equal(first, cosface.Loss(8, 5, seed=7).centres)
    assert not torch.equal(first, arcface.Loss(8, 5, seed=8).centres)


def by_loops(name, x, labels):
    """The losses between images of a batch, with their default parameters, from descriptors (B, D)."""
    s, n = x @ x.T, len(x)
    d = np.sqrt(np.maximum(2 - 2 * s, 0))
    others = [[j for j in range(n) if labels[j] == labels[i] and j != i] for i in range(n)]
    wrong = [[j for j in range(n) if labels[j] != labels[i]] for i in range(n)]
    triplets = [max(d[i, p] - d[i, j] + 0.1, 0) for i in range(n) for p in others[i] for j in wrong[i]]
    triplet = np.mean([value for value in triplets if value > 0])
    if name == "triplet":
        return triplet
    if name == "second_order":
        pairs = [(i, p) for i in range(n) for p in others[i] if i < p]
        return triplet + np.mean([np.sqrt(sum((d[i, j] ** 2 - d[p, j] ** 2) ** 2 for j in wrong[i])) for i, p in pairs])
    if name == "contrastive":
        apart = [max(0.7 - d[i, j], 0) for i in range(n) for j in wrong[i]]
        near = np.mean([d[i, p] for i in range(n) for p in others[i]])
        return near + np.mean([value for value in apart if value > 0])
    found = []
    for i in range(n):
        if name == "smooth_ap":
            ap = []
            for p in [i, *others[i]]:
                before = [1 / (1 + np.exp(-(s[i, j] - s[i, p]) / 0.01)) * (j != p) for j in range(n)]
                ap.append((1 + sum(before[j] for j in [i, *others[i]])) / (1 + sum(before)))
            found.append(np.mean(ap))
        else:
            share = np.maximum(1 - np.abs(s[i, :, None] - np.linspace(1, -1, 20)) / (2 / 19), 0)  # (B, bins)
            right, every = share[others[i]].sum(0), share[others[i] + wrong[i]].sum(0)
            precision = right.cumsum() / np.maximum(every.cumsum(), 1e-9)
            found.append((precision * right).sum() / len(others[i]))
    return 1 - np.mean(found)


@pytest.mark.parametrize("name", ["triplet", "contrastive", "smooth_ap", "listwise_ap", "second_order"])
def test_losses_between_images_as_loops_give_them(name):
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(16) % 8  # no other number of classes than of images in one, and no order
    x = F.normalize(torch.randn(16, 8, generator=generator) + F.one_hot(labels, 8)).requires_grad_()
    module = load_part(name, "losses").Loss(8, 9)
    loss, right = module(x, labels)
    loss.backward()
    values = x.detach().double().numpy()
    assert module.per_class == 4
    assert loss.item() == pytest.approx(by_loops(name, values, labels.numpy()), rel=1e-4)
    assert right.item() == np.mean(
        labels.numpy()[np.argmax(values @ values.T - 3 * np.eye(16), axis=1)] == labels.numpy()
    )
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
