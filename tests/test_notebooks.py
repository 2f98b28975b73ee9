"""Every notebook runs at the smallest profile, in the order of the study; the lessons print what they say they print."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

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
AT_SMOKE = load_profile("smoke").notebooks  # 12 and 12b run in test_parts.py, 13 in test_scaling.py, 14 in test_real.py
LESSONS = ("00_quickstart", "01_protocol", "02_self_similarity", "02b_reranking")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The kernel `python3` is this Python, whatever the user has installed."""
    folder = tmp_path_factory.mktemp("kernel")
    kernel = KERNEL | {"argv": PYTHON, "env": ENVIRONMENT | {"IPYTHONDIR": str(folder / "ipython")}}
    write_atomic(folder / "kernels" / "python3" / "kernel.json", json.dumps(kernel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield


def nbval(*paths: Path) -> dict[str, list[str]]:
    """Run every cell, in one process; outputs marked # NBVAL_CHECK_OUTPUT must be as stored. What failed, by notebook."""
    report = paths[0].with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name=python3", "--nbval-cell-timeout=600"]
    command += ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(ROOT / "pyproject.toml")]
    run = subprocess.run([*command, f"--junitxml={report}", *map(str, paths)], capture_output=True, text=True)
    assert report.is_file(), f"{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
    failed, following = {}, iter(paths)
    for case in ElementTree.parse(report).iter("testcase"):  # which say nothing but "Cell 0", "Cell 1", …
        if case.get("name") == "Cell 0":
            failures = failed.setdefault(next(following).stem, [])
        failures += [f"{case.get('name')}: {part.text}"[:6000] for part in case if part.tag != "skipped"]
    return failed


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, kernel) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("study")  # of all: what one of them made the next ones find
    for name in AT_SMOKE:
        notebook = NOTEBOOKS[name]
        parameters = {"profile": "smoke", "workspace": str(folder)}
        asked = parameterize_notebook(deepcopy(notebook), parameters, kernel_name="python3", language="python")
        nbformat.write(asked, folder / f"{name}.ipynb")
    return nbval(*(folder / f"{name}.ipynb" for name in AT_SMOKE))


@pytest.mark.parametrize("name", AT_SMOKE)
def test_the_notebook_runs(name, outcomes):
    assert outcomes[name] == [], "\n".join(outcomes[name])


def test_every_notebook_of_a_profile_is_there_and_no_other():
    assert set().union(*(load_profile(name).notebooks for name in PROFILES)) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_begins_with_commented_parameters_is_short_and_ends_with_what_it_asserts(name):
    first, second = NOTEBOOKS[name].cells[:2]
    assert first.cell_type == "markdown" and second.metadata.get("tags") == ["parameters"]
    assert all("  # " in line for line in second.source.splitlines())
    values = {}
    exec(second.source, values)
    assert values["profile"] in PROFILES and values["workspace"] is values["changes"] is None
    code = [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]
    lines = [line for line in "\n".join(code).splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 120 and re.search(r"assert |print\(", code[-1])
    if name in LESSONS:
        checked = [cell for cell in NOTEBOOKS[name].cells if "# NBVAL_CHECK_OUTPUT" in cell.source]
        assert checked and all(cell.outputs for cell in checked), "a lesson keeps outputs that are compared"
