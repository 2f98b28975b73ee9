"""The runner: a small repository with two notebooks, run, resumed, broken; notebooks freed of the machine."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ssr_lib.files import FolderBusyError, locked
from ssr_lib.study import provenance, run

BASE = provenance.repository_root() / "profiles" / "base.yaml"
TINY = "base: base\ntitle: A tiny study\nnotebooks: [00_first, 01_second]\nreads: {01_second: [data/*.csv]}\n"
LOG = "with open('{log}', 'a') as log:\n    log.write('{name} ')"


def execute_here(study, name: str, **parameters) -> str:
    """Stands in for `run._execute`, whose kernel takes seconds to start: the cells run in this process."""
    source, names = provenance.repository_root() / "notebooks" / f"{name}.ipynb", {}
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with redirect_stdout(io.StringIO()) as printed:
                exec(cell.source, names)
            cell.outputs = [new_output("stream", name="stdout", text=printed.getvalue())]
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters
    return nbformat.writes(notebook)


def write_notebook(path: Path, *sources: str) -> None:
    cells = [new_markdown_cell(f"# {path.stem}"), new_code_cell("profile = workspace = changes = None")]
    cells[1].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in sources]), path)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a profile `tiny` of two notebooks that log their execution, and no kernels."""
    root = tmp_path / "repository"
    for name in ("00_first", "01_second"):
        write_notebook(root / "notebooks" / f"{name}.ipynb", LOG.format(log=tmp_path / "log", name=name))
    (root / "profiles").mkdir()
    (root / "profiles" / "base.yaml").write_bytes(BASE.read_bytes())
    (root / "profiles" / "tiny.yaml").write_text(TINY)
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(provenance, "__file__", str(root / "ssr_lib" / "study" / "provenance.py"))
    monkeypatch.setattr(run, "_execute", execute_here)
    return root


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "workspace"


def executed(workspace: Path) -> list[str]:
    """What the notebooks have logged since the last question."""
    log = workspace.parent / "log"
    names = log.read_text().split() if log.is_file() else []
    log.unlink(missing_ok=True)
    return names


def study(workspace: Path, *names: str, progress: bool = False, **changes) -> Path:
    return run.run("tiny", workspace=workspace, notebooks=names or None, progress=progress, **changes)


def test_a_run_executes_each_notebook_once_and_a_second_run_none(repository, workspace, capsys):
    results = study(workspace)
    assert results == workspace / "results" / "tiny" and executed(workspace) == ["00_first", "01_second"]
    record = json.loads((results / "run.json").read_text())
    assert record["title"] == "A tiny study" and record["seconds"].keys() == {"00_first", "01_second"}
    study(workspace, progress=True)
    assert executed(workspace) == [] and "01_second: as it was" in capsys.readouterr().out
    assert (results / "report.html").is_file()


def test_what_has_changed_is_run_again_with_all_that_follow_it(repository, workspace):
    study(workspace)
    executed(workspace)
    write_notebook(repository / "notebooks" / "01_second.ipynb", LOG.format(log=workspace.parent / "log", name="new"))
    study(workspace)
    assert executed(workspace) == ["new"], "its source"
    (repository / "data").mkdir()
    (repository / "data" / "published.csv").write_text("1")
    study(workspace)
    assert executed(workspace) == ["new"], "a file that the profile says it reads"
    first = repository / "notebooks" / "00_first.ipynb"
    write_notebook(first, LOG.format(log=workspace.parent / "log", name="changed"))
    study(workspace)
    assert executed(workspace) == ["changed", "new"], "the notebook before it"
    (repository / "profiles" / "tiny.yaml").write_text(TINY + "statistics: {seed: 3}\n")
    study(workspace)
    assert executed(workspace) == ["changed", "new"], "the profile"
    (workspace / "results" / "tiny" / "notebooks" / "00_first.ipynb").write_text("{}")
    study(workspace)
    assert executed(workspace) == ["changed"], "what was made"


def test_after_a_failure_the_next_run_resumes_there(repository, workspace):
    broken = repository / "notebooks" / "01_second.ipynb"
    write_notebook(broken, "raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        study(workspace)
    assert executed(workspace) == ["00_first"]
    write_notebook(broken, LOG.format(log=workspace.parent / "log", name="mended"))
    study(workspace)
    assert executed(workspace) == ["mended"]


def test_data_that_is_missing_is_named_before_the_first_notebook(repository, workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    changes = {"data.labels": {"a": "a/labels.csv"}, "data.distractors": "revisitop1m"}
    changes["networks.mine"] = {"checkpoint": "weights/plain_{seed}", "seeds": [4]}
    with pytest.raises(FileNotFoundError, match=r"a/labels\.csv, revisitop1m, weights/plain_4\.safetensors; ") as e:
        study(workspace, **changes)
    assert "\n" not in str(e.value) and executed(workspace) == []


def test_a_second_run_in_the_same_workspace_is_refused(repository, workspace):
    with locked(workspace / "data" / "study"), pytest.raises(FolderBusyError, match="another run is writing here"):
        study(workspace)


def test_a_kernel_leaves_no_trace_of_the_machine_and_a_failure_names_its_cell(
    repository, workspace, monkeypatch, tmp_path
):
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "__file__", str(repository / "ssr_lib" / "study" / "provenance.py"))
    other = tmp_path / "kernels" / "python3"  # one that the user has installed under the same name
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    said = "import os, sys\nprint(workspace, sys.prefix, os.path.expanduser('~'), os.environ['TQDM_DISABLE'])\nobject()"
    write_notebook(repository / "notebooks" / "00_first.ipynb", said)
    write_notebook(repository / "notebooks" / "01_second.ipynb", "1", "raise ValueError('512 dimensions')")
    with pytest.raises(run.NotebookError, match=r"01_second\.ipynb failed in cell 4: .*: 512 dimensions") as caught:
        study(workspace)
    assert "\n" not in str(caught.value)
    text = (workspace / "results" / "tiny" / "notebooks" / "00_first.ipynb").read_text()
    for trace in (str(workspace), str(repository), str(Path.home()), sys.prefix, "papermill", "iopub", " 0x7"):
        assert trace not in text, trace
    assert ". .venv ~ 1" in text
    assert "512 dimensions" in (workspace / "build" / "running" / "tiny" / "01_second.ipynb").read_text()


def test_a_user_without_home_and_entry_can_run_a_study():
    program = "import os, pwd\nos.environ.pop('HOME', None)\npwd.getpwuid = lambda uid: {}[uid]\n"
    program += "import ssr_lib.study.run\nfrom pathlib import Path\nprint(Path.home())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout


def scrubbed(*outputs) -> list:
    notebook = run.scrub(
        new_notebook(cells=[new_code_cell("1", outputs=list(outputs))]), {"/home/ann/study": "", "/home/ann": "~/"}
    )
    return notebook["cells"][0]["outputs"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("saved /home/ann/study/results/a.png", "saved results/a.png"),
        ("in /home/ann/study", "in ."),
        ("in '/home/ann/study/'", "in '.'"),
        ("from /home/ann/data/x and /home/anna/x", "from ~/data/x and /home/anna/x"),
        ("<Net object at 0x7f00aa11bb22>", "<Net object at 0x…>"),
        ("/var/x/ipykernel_12/345.py:1: UserWarning", "cell:1: UserWarning"),
    ],
)
def test_paths_and_addresses_of_the_machine_are_taken_out(text, left):
    assert scrubbed(new_output("stream", name="stdout", text=text))[0]["text"] == left


def test_progress_bars_and_widgets_leave_nothing_behind_and_equal_runs_are_equal():
    bar = new_output("stream", name="stderr", text="\r  0%|          | 0/9\r100%|██████████| 9/9 [00:01<00:00]\n")
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "x"}
    kept = new_output("stream", name="stdout", text="mAP 0.5\n")
    assert [o["text"] for o in scrubbed(bar, new_output("display_data", widget), kept)] == ["mAP 0.5\n"]
    tables = [pd.DataFrame({"mAP": [50.0]}).style.to_html() for _ in range(2)]  # pandas names each at random
    first, second = (scrubbed(new_output("display_data", {"text/html": table})) for table in tables)
    assert tables[0] != tables[1] and first == second
