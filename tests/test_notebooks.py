"""Every notebook runs at the smallest profile, in the order of the study; the lessons print what they say they print."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from ssr_lib.files import write_atomic
from ssr_lib.study.profile import load_profile
from ssr_lib.study.run import ENVIRONMENT, KERNEL, PYTHON

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: load_notebook_node(str(path)) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
AT_SMOKE = load_profile("smoke").notebooks  # 12 runs in test_parts.py, 13 in test_scaling.py, 14 in test_real.py


def test_every_notebook_of_the_smallest_profile_runs(tmp_path, monkeypatch):
    """In the order of the study, in one workspace; outputs marked # NBVAL_CHECK_OUTPUT must be as stored."""
    kernel = KERNEL | {"argv": PYTHON, "env": ENVIRONMENT | {"IPYTHONDIR": str(tmp_path / "ipython")}}
    write_atomic(tmp_path / "kernels" / "python3" / "kernel.json", json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))  # `python3` is this Python, whatever the user has installed
    paths = [tmp_path / f"{name}.ipynb" for name in AT_SMOKE]
    parameters = {"profile": "smoke", "workspace": str(tmp_path)}
    for path in paths:
        notebook = deepcopy(NOTEBOOKS[path.stem])
        nbformat.write(parameterize_notebook(notebook, parameters, kernel_name="python3", language="python"), path)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name=python3", "--nbval-cell-timeout=600"]
    command += ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(ROOT / "pyproject.toml"), *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-4000:]


def test_every_notebook_of_a_profile_is_there_and_no_other():
    assert set().union(*(load_profile(name).notebooks for name in PROFILES)) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_commented_parameters_is_short_describes_its_figures_and_ends_with_what_it_asserts(name):
    first, second = NOTEBOOKS[name].cells[:2]
    assert first.cell_type == "markdown" and second.metadata.get("tags") == ["parameters"]
    assert all("  # " in line for line in second.source.splitlines())
    exec(second.source, values := {})
    assert values["profile"] in PROFILES and values["workspace"] is values["changes"] is None
    cells = [cell for cell in NOTEBOOKS[name].cells if "answer" not in cell.metadata.get("tags", [])]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    lines = [line for line in "\n".join(code).splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 120 and re.search(r"assert |print\(", code[-1])
    shown = [cell for cell in cells if cell.cell_type == "code" and re.search(r"\bImage\(|\n +sweep\(", cell.source)]
    assert all(len(cell.metadata.get("alt", "").split()) > 15 for cell in shown)
    if name in ("00_quickstart", "01_protocol", "02_self_similarity", "02b_reranking", "02c_statistics"):
        checked = [cell for cell in NOTEBOOKS[name].cells if cell.source.startswith("# NBVAL_CHECK_OUTPUT")]
        assert checked and all(cell.outputs for cell in checked), "a lesson keeps outputs that are compared"
