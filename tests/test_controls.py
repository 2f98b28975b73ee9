"""The positive control: maps in which only arrangement tells landmarks apart, and heads that see it or do not."""

import numpy as np
import pytest
import torch

from ssr_lib import metrics
from ssr_lib.extract import Maps, describe_maps
from ssr_lib.heads import late
from ssr_lib.heads._arrangement import LANDMARKS, arrangement_views
from ssr_lib.network import RetrievalNet
from ssr_lib.search import rank
from ssr_lib.self_similarity import structural_descriptor
from ssr_lib.train import TrainConfig, train_head


def mean_ap(descriptors, labels):
    same = [np.flatnonzero(labels == label) for label in labels]
    truth = [{"easy": ids[ids != i], "hard": [], "junk": [i]} for i, ids in enumerate(same)]
    return metrics.evaluate(rank(descriptors, descriptors), truth).map["easy"]


def training_free(x):
    return structural_descriptor(torch.from_numpy(x).float().permute(0, 3, 1, 2), 5).numpy()  # of (N, C, H, W)


def test_arrangement_is_there_and_shuffling_the_places_takes_it_away():
    chosen = np.random.default_rng(0).permutation(len(LANDMARKS))[:60]
    x, labels = arrangement_views(chosen, 4, seed=1)
    assert x.shape == (240, 8, 8, 64) and x.dtype == np.float16
    shuffled, same = arrangement_views(chosen, 4, seed=1, shuffled=True)
    np.testing.assert_array_equal(*(np.sort(maps.reshape(240, 64, 64), axis=1) for maps in (x, shuffled)))
    assert mean_ap(training_free(x), labels) > 0.5 > 5 * mean_ap(training_free(shuffled), same)
    assert mean_ap(np.float32(x.mean(axis=(1, 2))), labels) < 0.1, "what a place looks like says nothing"
    x, labels = arrangement_views(range(30), 4, seed=1, share=0.3)
    assert mean_ap(np.float32(x.mean(axis=(1, 2))), labels) > 0.1, "a share of appearance does"


@pytest.mark.parametrize(("head", "learns"), [("product", True), ("neighbour", False)])
def test_the_module_control_passes_with_the_relation_and_fails_without_it(head, learns, tmp_path):
    order = np.random.default_rng(0).permutation(len(LANDMARKS))
    x, labels = arrangement_views(order[:390], 16, seed=0)
    options = {"of": head, "mid_channels": 16, "window": 5}
    net = RetrievalNet(head="alone", options=options, protocol="frozen", descriptor_dim=128)
    recipe = TrainConfig(steps=120, lr_new=1e-2, lr_tail=1e-2, loss_options={"margin": 0.2, "scale": 24.0})
    train_head(net, Maps(None, list(x), head, {}), labels, recipe, directory=tmp_path, progress=False)
    test, test_labels = arrangement_views(order[390:440], 6, seed=1)
    found = mean_ap(describe_maps(net.eval(), Maps(None, list(test), "test", {})), test_labels)
    assert found > 0.2 if learns else found < 0.08


def test_late_sets_s_beside_the_frozen_feature_and_starts_with_known_statistics():
    head, project = late.Head((0, 12, 20), of="neighbour", mid_channels=4, window=3), torch.nn.Conv2d(12, 20, 1)
    last = torch.randn(32, 12, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.fit([(None, last, project)])
        feature = head(None, last, project)  # (32, 20 + 12)
        again = head(None, last + 7, project)
    assert feature.shape == (32, head.width)
    torch.testing.assert_close(feature.mean(dim=0), torch.zeros(32), atol=0.02, rtol=0)
    torch.testing.assert_close(feature.std(dim=0), torch.ones(32), atol=0.06, rtol=0)
    torch.testing.assert_close(again[:, 20:], feature[:, 20:], atol=1e-3, rtol=0)  # the mean of X is no matter of S
