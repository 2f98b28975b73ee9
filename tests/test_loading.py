"""Pictures arrive in order, not too far ahead, in batches of one size, and bad ones do not stop the others."""

import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from PIL import Image

from ssr_lib import images
from ssr_lib.images import Preprocess, batches_of_one_size, load_ahead

PLAIN = Preprocess(size_rule="none", size=None)


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures, number i all of grey level 10 i, of two shapes in turn."""
    found = {i: (tmp_path / f"{i:02d}.png", None) for i in range(12)}
    for i, (path, _) in found.items():
        Image.fromarray(np.full((20, 30 if i % 2 else 40, 3), 10 * i, np.uint8)).save(path)
    return found


def test_batches_hold_one_size_and_everything_comes_once_a_bad_picture_as_its_error(pictures):
    pictures[3][0].write_bytes(b"no picture")
    batches = list(batches_of_one_size(load_ahead(pictures, PLAIN, workers=3), 4, unusable := {}))
    assert [list(batch) for batch in batches] == [[0, 2, 4, 6], [1, 5, 7, 9], [8, 10], [11]]
    for batch in batches:
        assert [round((tensor.mean().item() + 1) * 127.5) for (tensor,) in batch.values()] == [10 * i for i in batch]
    assert list(unusable) == [3] and "03.png" in str(unusable[3])


def test_two_a_thread_are_decoded_ahead_and_none_after_the_caller_stops(pictures, monkeypatch):
    started = []
    monkeypatch.setattr(images, "load_tensors", lambda *picture: started.append(picture))
    loaded = load_ahead({i: pictures[i % 12] for i in range(120)}, PLAIN, workers=2)
    for used in range(1, 8):
        next(loaded)
        assert len(started) <= used + 2 * 2 + 1
    loaded.close()
    at_close = len(started)
    time.sleep(0.05)
    assert len(started) == at_close


def test_pictures_of_many_sizes_leave_before_too_many_numbers_wait(monkeypatch):
    monkeypatch.setattr(images, "WAITING", 10_000)
    seen, waiting = 0, [0]

    def watched():  # no two alike: none would ever fill a batch
        for i in range(200):
            waiting.append(waiting[-1] + 3 * (8 + i) * 8)
            future = Future()
            future.set_result([torch.zeros(3, 8 + i, 8)])
            yield i, future

    for batch in batches_of_one_size(watched(), 8, {}):
        seen += len(batch)
        waiting[-1] -= sum(tensor.numel() for (tensor,) in batch.values())
    assert seen == 200 and max(waiting) <= images.WAITING + 3 * 208 * 8
