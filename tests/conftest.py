"""What several test modules share."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores: one thread each, in kernels too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def extra_data() -> Path:
    """The folder of further data (gnd/, golden/, photos/) that SSR_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("SSR_TEST_DATA")
    if not folder:
        pytest.skip("SSR_TEST_DATA does not name a folder with gnd/, golden/ and photos/")
    if not Path(folder).is_dir():
        pytest.fail(f"SSR_TEST_DATA names {folder}, which is not a folder")
    return Path(folder)
