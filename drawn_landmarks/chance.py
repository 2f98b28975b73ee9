"""Choices by a random generator; much faster than `Generator.choice`, and from the same numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np


def pick(rng: np.random.Generator, options: Sequence):
    """One of the options, each as likely as another."""
    return options[rng.integers(len(options))]


def weighted(rng: np.random.Generator, odds: Mapping):
    """A key, each as often as its value says; they sum to 1."""
    steps = list(accumulate(odds.values()))
    return list(odds)[bisect_right([step / steps[-1] for step in steps], rng.random())]
