"""The runner: a small repository with three notebooks, run, resumed, broken, compared and reported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from kernels import execute_here
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ssr_lib.study.run.run import artefacts, notebooks, report
from ssr_lib.study.run.run import profile as profiles
from ssr_lib.study.run.run import run as study

from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.study.rows import Results

TINY = """title: A tiny study
notebooks: [00_first, 01_second]
size: 1
data: {labels: {}, training_labels: null, distractors: null}
comparison: {seeds: [0], backbone_seeds: [0]}
model: {checkpoints: {}}
"""
PARAMETERS = "profile = 'tiny'\nworkspace = None\nchanges = {}"
MEASURE = """
from pathlib import Path
from ssr_lib.study.rows import Results
folder = Path(workspace or '.') / 'results' / ('custom' if changes else profile)
results = Results(folder)
results.add(experiment='ablation', dataset='synthetic', backbone='lite0', variant='plain', metric='mAP', value=0.5)
results.save()
with open(Path(workspace) / 'executed.txt', 'a') as log:
    log.write('{name}\\n')
import os
print(folder.resolve(), len(results.frame()), os.environ.get("MALLOC_TRIM_THRESHOLD_"))
"""


def write_notebook(path: Path, *sources: str) -> None:
    cells = [new_markdown_cell(f"# {path.stem}\n\nWith $x_i$.\n\n## A section"), new_code_cell(PARAMETERS)]
    cells[1].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in sources]), path)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a profile `tiny` of two notebooks that log their execution, and no kernels."""
    root = tmp_path / "repository"
    for name in ("00_first", "01_second"):
        write_notebook(root / "notebooks" / f"{name}.ipynb", MEASURE.replace("{name}", name))
    (root / "profiles").mkdir()
    (root / "profiles" / "tiny.yaml").write_text(TINY)
    for module in (artefacts, notebooks, profiles, report, study):
        if hasattr(module, "repository_root"):
            monkeypatch.setattr(module, "repository_root", lambda: root)
    monkeypatch.setattr(study, "execute", execute_here)
    return root


@pytest.fixture
def real_kernel(repository, monkeypatch):
    monkeypatch.setattr(study, "execute", notebooks.execute)


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def executed(workspace: Path) -> list[str]:
    log = workspace / "executed.txt"
    return log.read_text().split() if log.is_file() else []


def test_a_run_executes_each_notebook_once_and_a_second_run_none(repository, workspace, capsys):
    results = study.run("tiny", workspace=workspace, progress=False)
    assert results == workspace / "results" / "tiny"
    assert executed(workspace) == ["00_first", "01_second"]
    assert sorted(path.name for path in (results / "notebooks").iterdir()) == ["00_first.ipynb", "01_second.ipynb"]
    study.run("tiny", workspace=workspace)
    assert executed(workspace) == ["00_first", "01_second"]
    assert "01_second: as it was" in capsys.readouterr().out


def test_a_changed_notebook_is_run_again_with_all_that_follow_it(repository, workspace):
    study.run("tiny", workspace=workspace, progress=False)
    second = repository / "notebooks" / "01_second.ipynb"
    write_notebook(second, MEASURE.replace("{name}", "second-again"))
    study.run("tiny", workspace=workspace, progress=False)
    assert executed(workspace) == ["00_first", "01_second", "second-again"]
    write_notebook(repository / "notebooks" / "00_first.ipynb", MEASURE.replace("{name}", "first-again"))
    study.run("tiny", workspace=workspace, progress=False)
    assert executed(workspace)[3:] == ["first-again", "second-again"]


def test_an_executed_notebook_that_was_replaced_is_made_again(repository, workspace):
    results = study.run("tiny", workspace=workspace, progress=False)
    (results / "notebooks" / "01_second.ipynb").write_text("{}")
    study.run("tiny", workspace=workspace, progress=False)
    assert executed(workspace) == ["00_first", "01_second", "01_second"]


def test_a_run_that_starts_from_nothing_forgets_the_rows_of_other_code(repository, workspace):
    stale = Results(workspace / "results" / "tiny")
    stale.add(experiment="sweep", dataset="synthetic", backbone="lite0", variant="plain", metric="mAP", value=0.1)
    stale.save()
    study.run("tiny", workspace=workspace, progress=False)
    assert Results(workspace / "results" / "tiny").frame()["experiment"].tolist() == ["ablation"]


def test_one_notebook_of_a_changed_profile_does_not_add_to_the_rows_of_the_old_one(repository, workspace):
    results = study.run("tiny", workspace=workspace, progress=False)
    study.run("tiny", workspace=workspace, notebooks=["01_second"], progress=False)
    assert (results / "notebooks" / "00_first.ipynb").is_file(), "nothing has changed"
    (repository / "profiles" / "tiny.yaml").write_text(TINY + "more: 2\n")
    study.run("tiny", workspace=workspace, notebooks=["01_second"], progress=False)
    assert (results / "notebooks" / "00_first.ipynb").is_file(), "a parameter that the rows knew nothing of"
    (repository / "profiles" / "tiny.yaml").write_text(TINY.replace("size: 1", "size: 3"))
    study.run("tiny", workspace=workspace, notebooks=["01_second"], progress=False)
    assert [path.name for path in (results / "notebooks").iterdir()] == ["01_second.ipynb"]
    assert json.loads((results / "run.json").read_text())["parameters"]["size"] == 3
    fixed = TINY.replace("size: 1", "size: 3\nrerank: {fixed: {ours: {k: 5}}}")
    (repository / "profiles" / "tiny.yaml").write_text(fixed.replace("ours: {k: 5}", ""))
    study.run("tiny", workspace=workspace, notebooks=["01_second"], progress=False)
    (repository / "profiles" / "tiny.yaml").write_text(fixed)
    study.run("tiny", workspace=workspace, notebooks=["00_first"], progress=False)
    assert [path.name for path in (results / "notebooks").iterdir()] == ["00_first.ipynb"], "a choice was fixed"
    before = workspace / "build" / "before"
    assert (before / "tiny-1" / "notebooks" / "00_first.ipynb").is_file(), "nothing is lost, however often"
    assert (before / "tiny-2" / "results.csv").is_file() and not (before / "tiny-3").exists()


@pytest.mark.parametrize("profile", ["demo", "full", "photos"])
def test_committed_results_are_of_the_profiles_that_are_here(profile):
    path = Path(__file__).parents[1] / "results" / profile / "run.json"
    stored = json.loads(path.read_text())["parameters"]
    assert not study._changed(stored, study._as_stored(profiles.load_profile(profile)))


def test_a_notebook_that_is_run_alone_leaves_what_the_study_recorded(repository, workspace):
    results = study.run("tiny", workspace=workspace, progress=False)
    alone = Results(results)
    alone.add(experiment="sweep", dataset="synthetic", backbone="lite0", variant="plain", metric="mAP", value=0.1)
    alone.save()
    record = json.loads((results / "run.json").read_text())
    assert record["parameters"]["size"] == 1 and record["title"] == "A tiny study" and "00_first" in record["seconds"]


def test_a_failure_names_notebook_cell_and_error(tmp_path):
    write_notebook(tmp_path / "01_broken.ipynb", "1", "raise ValueError('database has 512 dimensions')")
    running = tmp_path / "running" / "01_broken.ipynb"
    with pytest.raises(
        notebooks.NotebookError, match=r"01_broken.ipynb failed in cell 5: ValueError: database has 512"
    ):
        notebooks.execute(tmp_path / "01_broken.ipynb", running, {"profile": "tiny"}, progress=False)
    assert "database has 512 dimensions" in running.read_text()


def test_after_a_failure_the_next_run_resumes_there(repository, workspace):
    broken = repository / "notebooks" / "01_second.ipynb"
    write_notebook(broken, "raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        study.run("tiny", workspace=workspace, progress=False)
    assert (workspace / "build" / "running" / "tiny" / "01_second.ipynb").is_file()
    assert not (workspace / "results" / "tiny" / "notebooks" / "01_second.ipynb").exists()
    write_notebook(broken, MEASURE.replace("{name}", "mended"))
    study.run("tiny", workspace=workspace, progress=False)
    assert executed(workspace) == ["00_first", "mended"]


def test_an_executed_notebook_has_no_trace_of_the_machine(repository, real_kernel, workspace):
    study.run("tiny", workspace=workspace, notebooks=["00_first"], progress=False)
    text = (workspace / "results" / "tiny" / "notebooks" / "00_first.ipynb").read_text()
    for trace in (str(workspace), str(repository), str(Path.home()), sys.prefix, "papermill", "2026-", "iopub"):
        assert trace not in text, trace
    assert "results/tiny 1" in text and notebooks.KERNEL_ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"] in text


def test_overrides_go_to_a_folder_of_their_own(repository, workspace):
    first = study.run("tiny", workspace=workspace, notebooks=["00_first"], progress=False, size=2)
    assert first.name.startswith("custom-") and not (workspace / "results" / "tiny").exists()
    with pytest.raises(ValueError, match="no parameter 'sizes'"):
        study.run("tiny", workspace=workspace, progress=False, sizes=2)


def test_names_that_do_not_exist_are_refused_with_those_that_do(repository, workspace):
    with pytest.raises(ValueError, match="no notebook '07_x' in notebooks/; there are 00_first, 01_second"):
        study.run("tiny", workspace=workspace, notebooks=["07_x"])
    with pytest.raises(ValueError, match="no profile 'huge'; there are tiny"):
        study.run("huge", workspace=workspace)


def test_a_second_run_in_the_same_workspace_is_refused(repository, workspace):
    with folder_lock(workspace / "data" / "study"), pytest.raises(FolderBusyError, match=f"process {os.getpid()}"):
        study.run("tiny", workspace=workspace, progress=False)


def test_verify_compares_with_what_was_committed(repository, capsys):
    study.run("tiny", workspace=repository, progress=False)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "results"], ["commit", "-qm", "rows"]):
        subprocess.run([*git, *command], check=True)
    rows = repository / "results" / "tiny" / "results.csv"
    rows.write_text(rows.read_text().replace("0.500000", "0.900000"))
    assert study.verify("tiny", progress=False) == 0, capsys.readouterr().out


def test_verify_agrees_with_itself_and_finds_a_figure_that_moved(repository, capsys):
    study.run("tiny", workspace=repository, progress=False)
    assert study.verify("tiny", progress=False) == 0
    assert "1 figures of tiny: 1 agree" in capsys.readouterr().out
    committed = repository / "results" / "tiny" / "results.csv"
    committed.write_text(committed.read_text().replace("0.500000", "0.502000"))
    assert study.verify("tiny", progress=False) == 1
    printed = capsys.readouterr().out
    assert "0.5020" in printed and "1 do not; largest difference 0.002000" in printed
    assert executed(repository / "build" / "verify") == ["00_first", "01_second"] * 2  # nothing was re-used
    with pytest.raises(FileNotFoundError, match=r"results/huge/results.csv is not there"):
        study.verify("huge")


def test_the_report_is_one_file_with_everything_in_it(repository, workspace):
    results = study.run("tiny", workspace=workspace, progress=False)
    text = (results / "report.html").read_text()
    assert "<title>A tiny study</title>" in text
    assert '<a href="#01_second">01_second</a>' in text and "A section" in text
    assert 'src="data:image/svg+xml' in text  # the formula
    assert "<script" not in text and not [word for word in text.split('"') if word.startswith(("http:", "https:"))]
    before = text
    report.report("tiny", workspace=workspace)
    assert (results / "report.html").read_text() == before
    assert json.loads((results / "run.json").read_text())["seconds"].keys() == {"00_first", "01_second"}


def test_the_report_needs_executed_notebooks(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no executed notebook; run `make study PROFILE=demo` first"):
        report.report("demo", workspace=tmp_path)


def test_formulas_that_cannot_be_drawn_are_shown_as_code():
    assert report.formula(r"\begin{cases}<") == r"<code>\begin{cases}&lt;</code>"
    assert 'alt="\\alpha"' in report.formula(r"\alpha")


# ---- notebooks without a machine


def scrubbed(*outputs, source="1") -> str:
    cell = new_code_cell(source, outputs=list(outputs))
    folders = {"/home/ann/study": "", "/home/ann": "~/"}
    return nbformat.writes(notebooks.scrub(new_notebook(cells=[cell]), folders))


@pytest.mark.parametrize(
    "text, left",
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
    notebook = nbformat.reads(scrubbed(new_output("stream", name="stdout", text=text)), as_version=4)
    assert notebook.cells[0].outputs[0].text == left


def test_progress_bars_and_widgets_leave_nothing_behind():
    bar = new_output("stream", name="stderr", text="\r  0%|          | 0/9\r100%|██████████| 9/9 [00:01<00:00]\n")
    widget = new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "x"}
    )
    kept = new_output("stream", name="stdout", text="mAP 0.5\n")
    notebook = nbformat.reads(scrubbed(bar, widget, kept), as_version=4)
    assert [output.get("text") for output in notebook.cells[0].outputs] == ["mAP 0.5\n"]


def test_equal_runs_give_equal_notebooks():
    def once() -> str:
        table = pd.DataFrame({"mAP": [50.0]}).style.format(precision=1)  # pandas names it at random
        return scrubbed(new_output("display_data", {"text/html": table.to_html()}))

    assert once() == once()
    assert "T_0-0_row0_col0" in once()


def test_the_kernel_is_this_python_even_where_the_user_has_another_named_python3(tmp_path, monkeypatch):
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with notebooks.kernel_of_this_python():
        listed = subprocess.run(
            [sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
    spec = json.loads(listed.stdout)["kernelspecs"]["python3"]["spec"]
    assert spec["argv"][0] == sys.executable and spec["env"]["TQDM_DISABLE"] == "1"
    assert os.environ["JUPYTER_PATH"] == str(tmp_path)


def test_a_copy_with_parameters_keeps_the_stored_outputs(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1")
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    notebook.cells[2].outputs = [new_output("stream", name="stdout", text="kept")]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    notebooks.parameterize(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {"profile": "smoke"})
    copy = nbformat.read(tmp_path / "b.ipynb", as_version=4)
    assert 'profile = "smoke"' in copy.cells[2].source and copy.cells[3].outputs[0].text == "kept"
