"""What the engine's tests share: a town, a landmark, a small benchmark."""

from pathlib import Path

import numpy as np
import pytest

from drawn_landmarks import SyntheticSpec, draw_benchmark
from drawn_landmarks.building import build
from drawn_landmarks.structures import draw_structure
from drawn_landmarks.styles import draw_style
from drawn_landmarks.surroundings import Neighbourhood


@pytest.fixture(scope="session")
def town():
    return Neighbourhood.draw((1,))


@pytest.fixture(scope="session")
def landmark():
    """A structure and the building's blocks."""
    rng = np.random.default_rng(4)
    structure, style = draw_structure(rng), draw_style(rng)
    return structure, build(structure, style, rng)


@pytest.fixture(scope="session")
def small():
    return SyntheticSpec("unit", 5, landmarks=2, size=96, views=(2, 4), same_style=1, same_building=1, distractors=5)


@pytest.fixture(scope="session")
def drawn(small, tmp_path_factory):
    """The forms of a small benchmark."""
    return draw_benchmark(small, tmp_path_factory.mktemp("drawn"), processes=1, progress=False)


@pytest.fixture(scope="session")
def golden():
    """Thumbnails (24, 24, 3) of four views of `landmark` in `town`, and the version that drew them."""
    return np.load(Path(__file__).with_name("views.npz"))
