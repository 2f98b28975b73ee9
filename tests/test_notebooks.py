"""Every notebook runs at the smallest profile, in the order of the study; the lessons print what they say they print."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from ssr_lib.study.run.run import notebooks

from ssr_lib.study.provenance import repository_root

FOLDER = repository_root() / "notebooks"
REQUIRED = (
    *("00_quickstart", "01_protocol", "02_self_similarity", "02b_reranking", "03_train", "04_backbones"),
    *("05_ablation", "06_rerank", "07_sweeps", "08_cost", "09_own_photos", "10_comparison", "11_claims"),
)
LESSONS = ("00_quickstart", "01_protocol", "02_self_similarity", "02b_reranking")
FOUND = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """One workspace for all notebooks, so that what one of them made the next ones find."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="session")
def kernel():
    with notebooks.kernel_of_this_python():
        yield


def nbval(*notebooks: Path) -> dict[str, list[str]]:
    """Run every cell; outputs of cells marked # NBVAL_CHECK_OUTPUT must be the stored ones. What failed, by notebook.

    All in one process, in their order: starting one for each would take a third of the time.
    """
    report = notebooks[0].with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name=python3", "--nbval-cell-timeout=600"]
    command += ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(repository_root() / "pyproject.toml")]
    command += [f"--junitxml={report}", *map(str, notebooks)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=notebooks[0].parent)
    assert report.is_file(), f"{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
    failed, following = {}, iter(notebooks)
    for case in ElementTree.parse(report).iter("testcase"):  # which say nothing but "Cell 0", "Cell 1", …
        if case.get("name") == "Cell 0":
            failures = failed.setdefault(next(following).stem, [])
        failures += [f"{case.get('name')}: {part.text}"[:6000] for part in case if part.tag != "skipped"]
    return failed


@pytest.fixture(scope="session")
def outcomes(workspace, kernel) -> dict[str, list[str]]:
    copies = [workspace / "notebooks" / f"{name}.ipynb" for name in FOUND]
    for copy in copies:
        notebooks.parameterize(FOLDER / copy.name, copy, {"profile": "smoke", "workspace": str(workspace)})
    return nbval(*copies)


@pytest.mark.parametrize("name", FOUND)
def test_the_notebook_runs(name, outcomes):
    assert outcomes[name] == [], "\n".join(outcomes[name])


def test_a_stored_output_that_is_no_longer_true_is_found(tmp_path, kernel):
    stored = [new_output("stream", name="stdout", text="41\n")]
    cell = new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(6 * 7)", outputs=stored, execution_count=1)
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "wrong.ipynb")
    (failure,) = nbval(tmp_path / "wrong.ipynb")["wrong"]
    assert "41" in failure and "42" in failure


def test_every_notebook_of_the_study_is_there():
    assert not set(REQUIRED) - set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_the_second_cell_holds_the_parameters_that_the_runner_sets(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    assert cells[0].cell_type == "markdown" and "parameters" in cells[1].metadata.get("tags", [])
    values = {}
    exec(cells[1].source, values)
    assert {"profile", "workspace"} <= set(values) and values["workspace"] is None


@pytest.mark.parametrize("name", [name for name in FOUND if name in LESSONS])
def test_a_lesson_keeps_outputs_that_are_compared(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    checked = [cell for cell in cells if cell.cell_type == "code" and "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked, f"{name} has no cell marked # NBVAL_CHECK_OUTPUT"
    assert all(cell.outputs for cell in checked)
