"""ArcFace and CosFace against angles worked out by hand, and what their gradients must do."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssr_lib.losses import MarginLoss, arcface_margin, cosface_margin, margin_logits


@pytest.mark.parametrize("degrees", [1, 30, 60, 90, 120, 170])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.15])
def test_arcface_adds_the_margin_to_the_angle(degrees, margin):
    angle = math.radians(degrees)
    found = arcface_margin(torch.tensor([math.cos(angle)], dtype=torch.float64), margin)
    assert found.item() == pytest.approx(math.cos(angle + margin), abs=1e-9)


def test_arcface_falls_with_the_angle_even_where_angle_plus_margin_passes_pi():
    angles = torch.linspace(0.0, math.pi, 2001, dtype=torch.float64)
    values = arcface_margin(torch.cos(angles), 0.5)
    assert (values.diff() < 0).all()


def test_cosface_subtracts_the_margin_from_the_cosine():
    assert cosface_margin(torch.tensor([0.75]), 0.25).item() == 0.5


def test_only_the_true_class_gets_the_margin():
    cosines = torch.tensor([[0.6, 0.2, -0.1], [0.0, 0.5, 0.8]])
    labels = torch.tensor([0, 2])
    logits = margin_logits(cosines, labels, "cosface", margin=0.3, scale=10.0)
    torch.testing.assert_close(logits, torch.tensor([[3.0, 2.0, -1.0], [0.0, 5.0, 5.0]]))


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_loss_and_accuracy_equal_three_lines_of_numpy(kind):
    generator = torch.Generator().manual_seed(3)
    descriptors = F.normalize(torch.randn(9, 8, generator=generator))
    labels = torch.randint(5, (9,), generator=generator)
    loss_module = MarginLoss(8, 5, kind, margin=0.2, scale=16.0, seed=1)
    loss, accuracy = loss_module(descriptors, labels)

    centres = loss_module.centres.detach().double().numpy()
    cosines = descriptors.double().numpy() @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    rows, y = np.arange(9), labels.numpy()
    shifted = cosines.copy()
    shifted[rows, y] = np.cos(np.arccos(cosines[rows, y]) + 0.2) if kind == "arcface" else cosines[rows, y] - 0.2
    probabilities = np.exp(16.0 * shifted) / np.exp(16.0 * shifted).sum(1, keepdims=True)
    assert loss.item() == pytest.approx(-np.log(probabilities[rows, y]).mean(), rel=1e-5)
    assert accuracy.item() == pytest.approx((cosines.argmax(1) == y).mean())


def test_without_margin_both_are_the_normalised_softmax():
    descriptors = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    labels = torch.tensor([0, 1, 2, 0])
    arcface, cosface = (MarginLoss(6, 3, kind, margin=0.0) for kind in ("arcface", "cosface"))
    expected = F.cross_entropy(30.0 * descriptors @ F.normalize(arcface.centres).T, labels)
    assert arcface(descriptors, labels)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert cosface(descriptors, labels)[0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_stay_finite_where_the_sine_vanishes(sign):
    loss_module = MarginLoss(4, 3, seed=2)
    descriptors = (sign * F.normalize(loss_module.centres.detach())).requires_grad_()
    loss_module(descriptors, torch.arange(3))[0].backward()
    assert torch.isfinite(descriptors.grad).all() and torch.isfinite(loss_module.centres.grad).all()


def test_a_margin_leaves_a_pull_where_the_plain_softmax_is_content():
    descriptors = F.normalize(torch.tensor([[1.0, 0.4]]))
    pulls = []
    for margin in (0.0, 0.3):
        loss_module = MarginLoss(2, 2, margin=margin)
        with torch.no_grad():
            loss_module.centres.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        descriptor = descriptors.clone().requires_grad_()
        loss_module(descriptor, torch.tensor([0]))[0].backward()
        pulls.append(descriptor.grad.norm().item())
    assert pulls[1] > 10 * pulls[0]


def test_centres_depend_on_the_seed_and_on_nothing_drawn_before():
    first = MarginLoss(8, 5, seed=7).centres
    torch.randn(100)
    assert torch.equal(first, MarginLoss(8, 5, seed=7).centres)
    assert not torch.equal(first, MarginLoss(8, 5, seed=8).centres)


def test_half_precision_descriptors_are_scored_in_float32():
    loss_module = MarginLoss(8, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = loss_module(F.normalize(torch.randn(3, 8)).bfloat16(), torch.tensor([0, 1, 2]))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"kind": "sphereface"}, {"margin": -0.1}, {"margin": 2.0}, {"scale": 0.0}])
def test_impossible_parameters_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        MarginLoss(8, 5, **wrong)
