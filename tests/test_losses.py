"""ArcFace and CosFace against a few lines of NumPy, and what their gradients must do."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

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


def test_impossible_parameters_are_refused_by_name():
    with pytest.raises(ValueError, match=r"margin 2\.0"):
        arcface.Loss(8, 5, margin=2.0)
