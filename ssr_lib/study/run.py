"""The study as one command: the notebooks of a profile executed in order, compared with committed results, reported."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import nbformat

from ssr_lib.files import folder_lock, read_json, write_atomic
from ssr_lib.study.artefacts import Study
from ssr_lib.study.notebooks import execute, scrub
from ssr_lib.study.profile import data_folder, missing_inputs
from ssr_lib.study.provenance import committed, describe_run, repository_root
from ssr_lib.study.report import report
from ssr_lib.study.rows import Results
from ssr_lib.study.tables import to_markdown
from ssr_lib.study.verify import Tolerances, compare, same_study

__all__ = ["report", "repository_root", "run", "verify"]

# Parameters with keys that are the user's own.
OPEN = ("fixed", "candidates", "labels", "checkpoints", "learning_rates")


def run(
    profile: str = "demo",
    *,
    workspace: Path | str | None = None,
    notebooks: Sequence[str] | None = None,
    progress: bool = True,
    **overrides,
) -> Path:
    """Execute the notebooks of `profile`, in order, into `<workspace>/results/<profile>`; returns that folder.

    A notebook whose source, profile, parameters and code have not changed since it was executed is not run again, so a
    killed run resumes; a run of which nothing is still valid, or whose profile has other values than the one before,
    starts without the rows of earlier ones (they lie in build/before). `workspace`: a folder that gets `results/` and
    `data/`, None for the repository. `notebooks`: only these, by name. `overrides`: dotted names of profile parameters;
    they go to `results/custom-<digest>`. Raises `NotebookError` naming the cell
    that failed, `FolderBusyError` where another run uses the workspace, `ValueError` for names that do not exist,
    `FileNotFoundError` with all data files and checkpoints that the profile names and that are not there.
    """
    workspace = None if workspace is None else Path(workspace).resolve()
    study = Study(profile, workspace, changes=overrides, progress=progress)
    if missing := missing_inputs(study.parameters):
        raise FileNotFoundError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {data_folder()}, and profile {profile} "
            "wants them; data/README.md says how to get them. Where they lie in another folder, set SSR_DATA to that"
        )
    folder = repository_root() / "notebooks"
    wanted = _known(notebooks or study["notebooks"], folder)
    parameters = {"profile": profile, "workspace": workspace and str(workspace)}
    if overrides:
        parameters["changes"] = overrides
    state_file = study.workspace / "data" / "study" / f"{study.name}.json"
    with folder_lock(state_file.parent):
        digests = _digests(list(dict.fromkeys([*study["notebooks"], *wanted])), folder, study.parameters)
        state = read_json(state_file) or {}  # a damaged one: every notebook is executed again
        done = {name for name in wanted if _is_done(study.results_dir, name, state, digests[name])}
        record = read_json(study.results_dir / "run.json") or {}
        if (notebooks is None and not done) or _changed(record.get("parameters", {}), _as_stored(study.parameters)):
            _set_aside(study, progress)
            state, done, record = {}, set(), {}
        record |= {"profile": profile, "title": study["title"], **describe_run(), "parameters": study.parameters}
        write_atomic(study.results_dir / "run.json", json.dumps(record, indent=1) + "\n")
        for name in wanted:
            if name in done:
                _say(progress, f"{name}: as it was, nothing that makes it has changed")
                continue
            _say(progress, f"{name}: running")
            state[name] = {"digest": digests[name], **_execute(study, folder / f"{name}.ipynb", parameters, progress)}
            write_atomic(state_file, json.dumps(state, indent=1) + "\n")
            _say(progress, f"{name}: {state[name]['seconds']} s")
        record["seconds"] = {name: state[name]["seconds"] for name in digests if name in state}
        write_atomic(study.results_dir / "run.json", json.dumps(record, indent=1) + "\n")
        _say(progress, f"report: {report(study.name, workspace=study.workspace)}")
    return study.results_dir


def verify(profile: str = "demo", *, workspace: Path | str | None = None, progress: bool = True) -> int:
    """Run `profile` again in `<repository>/build/verify` and print every figure that left its tolerance.

    Compared with is `results/<profile>/results.csv` as it was last committed, whatever `run` made of it since; outside
    git the file as it lies there. Returns 0 where both are one study (`agreement.same_study`) and 1 where not: the exit
    status of `ssr verify`. A verify that was killed goes on where it stopped; one that finished starts from nothing.
    `workspace`: elsewhere than build/.
    Raises `FileNotFoundError` where the profile has no results to compare with.
    """
    path = repository_root() / "results" / profile / "results.csv"
    rows = committed(path) or (path.read_bytes() if path.is_file() else None)
    if rows is None:
        raise FileNotFoundError(f"results/{profile}/results.csv is not there; run `make study PROFILE={profile}` first")
    workspace = Path(workspace or repository_root() / "build" / "verify")
    finished = workspace / "data" / "study" / f"{profile}.finished"
    if finished.is_file():
        for folder in (workspace / "data" / "cache", workspace / "data" / "study", workspace / "results" / profile):
            shutil.rmtree(folder, ignore_errors=True)
    again = run(profile, workspace=workspace, progress=progress)
    with tempfile.TemporaryDirectory() as before:
        write_atomic(Path(before, "results.csv"), rows)
        table = compare(Results(before), Results(again))
    write_atomic(finished, "")
    wrong = table[~table["agrees"]]
    if len(wrong):
        columns = ["experiment", "dataset", "subset", "backbone", "variant", "rerank", "k", "alpha", "params", "metric"]
        wrong = wrong[[*columns, "difficulty", "first", "second", "tolerance", "note"]]
        print(to_markdown(wrong.rename(columns={"first": "committed", "second": "again"}), digits=4))
    print(
        f"{len(table)} figures of {profile}: {len(table) - len(wrong)} agree with the committed ones within their "
        f"tolerance, {len(wrong)} do not; largest difference {table['difference'].abs().max():.6f}"
    )
    same = same_study(table)
    if len(wrong):
        allowed = f"up to {Tolerances.share:.0%} of {table['trained'].sum()} trained figures may be outside by chance"
        print(f"{allowed}, none without training: the study {'is' if same else 'is NOT'} reproduced")
    return int(not same)


def _known(names: Sequence[str], folder: Path) -> list[str]:
    """The names of notebooks, each once, without extension. Raises `ValueError` for one that is not in the folder."""
    names = list(dict.fromkeys(Path(name).stem for name in names))
    there = sorted(path.stem for path in folder.glob("*.ipynb"))
    for name in names:
        if name not in there:
            raise ValueError(f"no notebook {name!r} in {folder.name}/; there are {', '.join(there) or 'none'}")
    return names


def _digests(names: Sequence[str], folder: Path, parameters: Mapping) -> dict[str, str]:
    """For each notebook a digest of all that makes it: its source, the notebooks before it, parameters and code."""
    root = repository_root()
    code = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    chosen_by = root / "results" / str(parameters.get("data", {}).get("choices_from")) / "choices.json"
    sources = [*(root / "ssr_lib").rglob("*.py"), *(root / "drawn_landmarks").rglob("*.py")]
    for path in [*sorted(sources), root / "data" / "published.csv", chosen_by]:
        code.update(path.read_bytes() if path.is_file() else b"")
    shown = sorted((root / "results" / "photos" / "tables").glob("*.csv"))
    chain, digests = code.hexdigest(), {}
    for name in names:
        path = folder / f"{name}.ipynb"
        cells = nbformat.read(path, as_version=4).cells if path.is_file() else []
        source = json.dumps([[cell.cell_type, cell.source] for cell in cells])
        if name == "09_own_photos" and parameters.get("source") != "photos":  # it shows what that profile measured
            source += "".join(path.read_text(encoding="utf-8") for path in shown)
        chain = hashlib.sha256((chain + source).encode()).hexdigest()
        digests[name] = chain
    return digests


def _execute(study: Study, source: Path, parameters: Mapping, progress: bool) -> dict:
    """Execute one notebook into the results; returns its `seconds` and the digest of the `output` file."""
    started = time.monotonic()
    running = study.workspace / "build" / "running" / study.name / source.name
    notebook = scrub(execute(source, running, parameters, progress=progress), _folders(study))
    text = nbformat.writes(notebook) + "\n"
    write_atomic(study.results_dir / "notebooks" / source.name, text)
    running.unlink()
    return {"seconds": round(time.monotonic() - started), "output": hashlib.sha256(text.encode()).hexdigest()}


def _is_done(results_dir: Path, name: str, state: Mapping, digest: str) -> bool:
    """Whether the executed notebook that is there was made from what `digest` stands for, and not put there since."""
    made, path = state.get(name, {}), results_dir / "notebooks" / f"{name}.ipynb"
    if made.get("digest") != digest or not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == made.get("output")


def _as_stored(parameters: Mapping) -> dict:
    return json.loads(json.dumps(parameters))


def _changed(old: object, new: object, exact: bool = False) -> bool:
    """Whether a parameter is not as it was; one that only newer code knows changes no row that is there, unless `exact`."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old != new
    more = exact and old.keys() != new.keys()
    return more or any(_changed(old[key], new[key], exact or key in OPEN) for key in old.keys() & new.keys())


def _set_aside(study: Study, progress: bool) -> None:
    """Move what earlier runs measured to build/before, so that every row of a results folder comes from one version of the code."""
    if study.results_dir.exists():
        folder = study.workspace / "build" / "before"
        folder.mkdir(parents=True, exist_ok=True)
        before = next(free for i in count(1) if not (free := folder / f"{study.name}-{i}").exists())
        shutil.move(study.results_dir, before)
        _say(progress, f"results of other code or parameters are now in {before}")


def _folders(study: Study) -> dict[str, str]:
    """The folders of this machine and what stands for them in a committed notebook."""
    folders = {str(Path.home()): "~/", sys.prefix: ".venv/", str(repository_root()): ""}
    folders[str(study.workspace)] = ""
    return {folder: name for folder, name in folders.items() if folder not in ("/", "", ".")}


def _say(progress: bool, text: str) -> None:
    if progress:
        print(text, flush=True)
