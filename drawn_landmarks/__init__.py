"""Drawn landmarks: buildings made of random numbers, photographed by code, with their ground truth.

A specification goes in; a `Benchmark`, or labelled pictures to train on, come out. See README.md beside this file.
"""

from .dataset import draw_benchmark, draw_training
from .spec import VERSION, SyntheticSpec

__all__ = ["VERSION", "SyntheticSpec", "draw_benchmark", "draw_training"]
