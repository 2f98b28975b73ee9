"""The runner: a small repository with two notebooks, run, resumed, broken; notebooks freed of the machine."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from kernels import execute_here
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ssr_lib.files import FolderBusyError, locked, write_atomic
from ssr_lib.study import provenance, run

BASE = provenance.repository_root() / "profiles" / "base.yaml"
TINY = "base: base\ntitle: A tiny study\nnotebooks: [00_first, 01_second]\nreads: {01_second: [data/*.csv]}\n"
LOG = "with open('{log}', 'a') as log:\n    log.write('{said} ')"
MISSING = {"networks.mine": {"checkpoint": "weights/plain_{seed}", "seeds": [4]}, "data.distractors": "revisitop1m"}
BROUGHT = r"`ssr fetch revisitop1m` brings it; weights/plain_4\.safetensors is not .*data/README\.md says"


class Repository:
    """A repository with a profile `tiny` of two notebooks that say their names to a log, and a workspace beside it."""

    def __init__(self, folder: Path):
        self.root, self.workspace, self.log = folder / "repository", folder / "workspace", folder / "log"
        self.results = self.workspace / "results" / "tiny"
        for name in ("profiles", "notebooks", "data"):
            (self.root / name).mkdir(parents=True)
        (self.root / "pyproject.toml").touch()
        (self.root / "profiles" / "base.yaml").write_bytes(BASE.read_bytes())
        (self.root / "profiles" / "tiny.yaml").write_text(TINY)
        for name in ("00_first", "01_second"):
            self.write(name, LOG.format(log=self.log, said=name))

    def write(self, name: str, *sources: str) -> None:
        cells = [new_markdown_cell(f"# {name}"), new_code_cell("profile = workspace = changes = None")]
        cells[1].metadata["tags"] = ["parameters"]
        cells += [new_code_cell(source) for source in sources]
        nbformat.write(new_notebook(cells=cells), self.root / "notebooks" / f"{name}.ipynb")

    def study(self) -> list[str]:
        self.log.write_text("")
        run.run("tiny", self.workspace, progress=False)
        return self.log.read_text().split()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    repository = Repository(tmp_path)
    monkeypatch.setattr(provenance, "__file__", str(repository.root / "ssr_lib" / "study" / "provenance.py"))
    return repository


@pytest.fixture
def here(repository, monkeypatch):
    monkeypatch.setattr(run, "_execute", execute_here)
    return repository


def test_a_second_run_executes_what_has_changed_and_all_that_follow_it(here):
    assert here.study() == ["00_first", "01_second"] and here.study() == []
    record = json.loads((here.results / "run.json").read_text())
    assert record["seconds"].keys() == {"00_first", "01_second"} and (here.results / "report.html").is_file()
    here.write("01_second", LOG.format(log=here.log, said="new"))
    assert here.study() == ["new"], "its source"
    (here.root / "data" / "published.csv").write_text("1")
    assert here.study() == ["new"], "a file that the profile says it reads"
    here.write("00_first", LOG.format(log=here.log, said="changed"))
    assert here.study() == ["changed", "new"], "the notebook before it"
    (here.root / "profiles" / "tiny.yaml").write_text(TINY + "training: {steps: 3}\n")
    assert here.study() == ["changed", "new"], "the profile"
    (here.results / "notebooks" / "00_first.ipynb").write_text("{}")
    assert here.study() == ["changed"], "what was made"
    write_atomic(here.results / "rows" / "00_first.csv", "edited")
    assert here.study() == ["changed"], "rows that it did not leave so"


def test_after_a_failure_the_next_run_resumes_there_and_one_beside_another_is_refused(here):
    here.write("01_second", "raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        here.study()
    assert here.log.read_text() == "00_first "
    here.write("01_second", LOG.format(log=here.log, said="mended"))
    with locked(here.workspace / "data" / "study"), pytest.raises(FolderBusyError, match="another run is writing here"):
        here.study()
    assert here.study() == ["mended"]


@pytest.mark.parametrize("asked,refusal", [
    ({"notebooks": ["07_x"]}, "no notebook 07_x in notebooks/"), ({"changes": MISSING}, BROUGHT),
    ({"changes": {"data.labels": {"mine": "mine.csv"}, "data.datasets": ["drawn", "mine"]}}, r"\(q\.png\) that .*mine\.csv lists"),
])  # fmt: skip
def test_what_is_not_there_is_named_before_the_first_notebook(asked, refusal, here, monkeypatch):
    monkeypatch.setenv("SSR_DATA", str(here.root))
    (here.root / "mine.csv").write_text("file,label,split\nq.png,a,query\n")
    with pytest.raises((ValueError, FileNotFoundError), match=refusal) as caught:
        run.run(**{"profile": "tiny", "workspace": here.workspace, "progress": False} | asked)
    assert "\n" not in str(caught.value) and not here.log.exists()


def test_a_kernel_leaves_no_trace_of_the_machine_and_a_failure_names_its_cell(repository, monkeypatch, tmp_path):
    other = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}  # that the user has under the same name
    write_atomic(tmp_path / "kernels" / "python3" / "kernel.json", json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    said = "print(f'{workspace}/a.png in {workspace}, {workspace}.old', sys.prefix, home, os.environ['TQDM_DISABLE'])"
    said = f"import os, sys, warnings\nhome = os.path.expanduser('~')\n{said}\nwarnings.warn('careful')\nobject()"
    repository.write("00_first", said)
    repository.write("01_second", "1", "raise ValueError('512 dimensions')")
    with pytest.raises(run.NotebookError, match=r"01_second\.ipynb failed in cell 4: ValueError: 512 dimensions; .*b$"):
        repository.study()
    text = (repository.results / "notebooks" / "00_first.ipynb").read_text()
    text = text.replace(f"{repository.workspace}.old", "another folder")
    for trace in (str(tmp_path), str(Path.home()), sys.prefix, "papermill", "iopub", " 0x7", "ipykernel_"):
        assert trace not in text, trace
    assert "a.png in ., another folder .venv ~ 1" in text and "cell:4: UserWarning: careful" in text
    assert "512 dimensions" in (repository.workspace / "build/running/tiny/01_second.ipynb").read_text()


def test_a_user_without_home_and_entry_can_run_a_study():
    program = "import os, pwd\nos.environ.pop('HOME', None)\npwd.getpwuid = lambda uid: {}[uid]\n"
    program += "import ssr_lib.study.run\nfrom pathlib import Path\nprint(Path.home())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
