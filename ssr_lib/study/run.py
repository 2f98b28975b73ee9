"""The study as one command: notebooks executed in order, freed of what belongs to one machine, reported in one file."""

import base64
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
import papermill
from nbconvert import HTMLExporter

from ssr_lib.files import digest, hash_file, locked, read_json, write_atomic
from ssr_lib.study import describe, provenance
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile

KERNEL = {"display_name": "Python 3", "language": "python"}
PYTHON = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
# Training asks for the same large buffers every step; kept by the process, they are not faulted in again each time.
ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(4 << 30), "MALLOC_MMAP_THRESHOLD_": str(4 << 30), "PYTHONHASHSEED": "0"}
ENVIRONMENT |= {"TQDM_DISABLE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


class NotebookError(RuntimeError):
    """A notebook that stopped in a cell; the message names both and says what went wrong."""


def run(profile="demo", workspace=None, changes=None, *, notebooks: Sequence[str] | None = None, progress=True) -> Path:
    """Execute the notebooks of `profile`, or only `notebooks`, in order; returns the folder of their results.

    One that nothing has changed since it was executed (source, notebooks before it, profile, code, label files, but
    pictures are not compared) is not run again. Raises `NotebookError`, `FolderBusyError`, `FileNotFoundError`."""
    root = provenance.repository_root()
    profile = str(Path(profile).resolve()) if profile.endswith(".yaml") else profile
    study = Study(profile, Path(workspace or root).resolve(), changes, progress=progress)
    say = print if progress else str
    needed, further = describe.files_named(study.profile)
    for told in provenance.missing(further):
        say(f"{told}; what needs it is left out")
    provenance.check_data(needed)
    wanted = list(dict.fromkeys(Path(name).stem for name in notebooks or study.profile.notebooks))
    for dataset, labels in study.profile.data.labels.items():  # read before minutes are spent; 11b names what is gone
        if dataset in study.profile.data.datasets and wanted != ["11b_queries"] and not provenance.missing([labels]):
            study.benchmark(dataset)
    if study.profile.data.training_labels:
        study.training_views("photographs")
    if unknown := [name for name in wanted if not (root / "notebooks" / f"{name}.ipynb").is_file()]:
        raise ValueError(f"no notebook {', '.join(unknown)} in notebooks/")
    state_file, results = study.workspace / "data" / "study" / f"{study.name}.json", study.results_dir
    parameters = {"profile": profile, "workspace": workspace and str(study.workspace), "changes": changes or None}
    with locked(state_file.parent):
        digests = _digests(study, list(dict.fromkeys([*study.profile.notebooks, *wanted])))
        begun = {"profile": profile, "title": study.profile.title, "parameters": study.profile.model_dump()}
        provenance.update(results / "run.json", **begun, **provenance.describe_run())
        for name in wanted:
            output, made = results / "notebooks" / f"{name}.ipynb", (read_json(state_file) or {}).get(name)
            if output.is_file() and made == {"digest": digests[name], "output": _written(results, name)}:
                say(f"{name}: as it was, nothing that makes it has changed")
                continue
            say(f"{name}: running")
            began = time.monotonic()
            write_atomic(output, _execute(study, name, **parameters))
            seconds = round(time.monotonic() - began)
            provenance.update(state_file, **{name: {"digest": digests[name], "output": _written(results, name)}})
            provenance.update(results / "run.json", seconds={name: seconds})
            say(f"{name}: {seconds} s")
        say(f"report: {report(study.name, workspace=study.workspace)}")
    return results


def _digests(study: Study, names: Sequence[str]) -> dict[str, str]:
    """For each notebook a digest of all that makes it: profile, code, its source and what it reads, those before it."""
    root, profile = provenance.repository_root(), study.profile
    parts = [profile.training.loss, *(line.module for line in profile.rerankers.values())]
    files = [*sorted(Path(__file__).parents[1].rglob("*.py")), *sorted((root / "drawn_landmarks").rglob("*.py"))]
    for line in profile.networks.values():
        parts += [line.head, *map(str, line.options.values())]  # such as the head that `late` has inside
    files += [Path(part) for part in parts if part.endswith(".py")]
    chosen = f"results/{profile.data.choices_from}/choices.json"
    named = map(provenance.data_folder().joinpath, itertools.chain(*describe.files_named(profile)))
    files += [file for file in (study.workspace / chosen, root / chosen, *named) if file.is_file()]
    made_by, digests = [profile.model_dump(exclude={"title", "notebooks"}), [hash_file(file) for file in files]], {}
    for name in names:
        made_by = [digest(made_by), provenance.source_of(name)]
        for pattern in profile.reads.get(name, []):
            made_by += [hash_file(file) for file in sorted(root.glob(pattern))]
        digests[name] = digest(made_by)
    return digests


def _written(results: Path, name: str) -> str:
    """A digest of all that a notebook has left in the results: itself, its rows, its tables and figures."""
    said = (read_json(results / "run.json") or {}).get("rows", {}).get(name, {}).get("files", [])
    stems = [f"notebooks/{name}", f"rows/{name}", f"per_query/{name}", *said]
    return digest([(file.name, hash_file(file)) for stem in stems for file in sorted(results.glob(f"{stem}.*"))])


def _execute(study: Study, name: str, **parameters: Any) -> str:
    """The text of an executed notebook; until it is done, and after a failure, it stands in build/running."""
    root, folder = provenance.repository_root(), study.workspace / "build" / "running" / study.name
    kernel = KERNEL | {"argv": PYTHON, "env": ENVIRONMENT | {"IPYTHONDIR": str(folder / "ipython")}}
    write_atomic(folder / "kernels" / "python3" / "kernel.json", json.dumps(kernel))
    os.environ["JUPYTER_PATH"] = str(folder)  # this Python, whatever kernels the user has installed
    source, running = root / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"
    how = {"kernel_name": "python3", "language": "python", "cwd": Path.cwd(), "progress_bar": study.progress}
    try:
        notebook = papermill.execute_notebook(source, running, parameters, **how)
    except papermill.PapermillExecutionError as error:
        said = " ".join(f"{error.ename}: {error.evalue}".split())
        said = f"{name}.ipynb failed in cell {error.cell_index}: {said}"  # counts from 1: a cell was put before
        raise NotebookError(f"{said}; the notebook as far as it ran, with the traceback: {running}") from None
    except RuntimeError as error:  # DeadKernelError of nbclient
        raise NotebookError(f"{name}.ipynb: {error}; a kernel dies most often because memory ran out") from error
    running.unlink()
    folders = {os.path.expanduser("~"): "~/", sys.prefix: ".venv/", str(root): "", str(study.workspace): ""}
    return nbformat.writes(scrub(notebook, folders)) + "\n"


def scrub(notebook: dict, folders: Mapping[str, str]) -> dict:
    """The notebook without paths, times and addresses of one machine; `folders`: of each folder what stands for it."""
    notebook["metadata"] = {"kernelspec": KERNEL | {"name": "python3"}, "language_info": {"name": "python"}}
    for i, cell in enumerate(notebook["cells"]):
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if v and k in ("tags", "jupyter", "alt")}
        cell["id"] = f"cell-{i}"  # papermill draws random ones
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = _without(folders, cell["source"])
        for output in cell.get("outputs", ()):
            shown = output.get("data", output)  # a stream has its text in itself
            for kind in {"text", "text/plain", "text/html", "text/markdown"} & shown.keys():
                shown[kind] = _without(folders, shown[kind])
    return notebook


def _without(folders: Mapping[str, str], text: str) -> str:
    text = re.sub(r"[^\s\"'<>]*ipykernel_\d+/\d+\.py", "cell", re.sub(r"\bat 0x[0-9a-f]{6,}", "at 0x…", text))
    for folder in sorted((f for f in folders if f not in ("/", "", ".")), key=len, reverse=True):
        text = re.sub(re.escape(folder) + r"/(?=[\w.])", folders[folder], text)  # /home/a is no part of /home/ab
        text = re.sub(re.escape(folder) + r"/?(?![\w.-])", folders[folder].rstrip("/") or ".", text)
    return text


def report(name: str = "demo", *, workspace: Path | str | None = None) -> Path:
    """Assemble `results/<name>/report.html` of executed notebooks; what is missing or damaged is named there."""
    folder, faults = Path(workspace or provenance.repository_root()) / "results" / name, []
    files, record = sorted((folder / "notebooks").glob("*.ipynb")), read_json(folder / "run.json") or {}
    if not files:
        raise FileNotFoundError(f"{folder / 'notebooks'} has no executed notebook; run `ssr study {name}` first")
    if "parameters" not in record:
        known = name if (provenance.repository_root() / "profiles" / f"{name}.yaml").is_file() else "base"
        faults.append(f"run.json is not there or damaged; this page follows the profile {known} as it is now")
        record |= {"title": name, "parameters": load_profile(known).model_dump()}
    said, sections, tables, figures = [], {}, [], []
    exporter = HTMLExporter(template_file="cells.html.j2", extra_template_paths=[str(Path(__file__).parent)])
    for file in files:
        try:
            notebook = nbformat.read(file, as_version=4)
            body = re.sub(r"(?is)<(script|style)\b.*?</\1>", "", exporter.from_notebook_node(notebook)[0])
        except Exception as error:  # nbformat and nbconvert raise all kinds
            faults.append(f"notebooks/{file.name} is damaged: {error!s:.200}")
            continue
        sections[file.stem] = re.sub(r'(<h\d id=")', rf"\g<1>{file.stem}-", body)
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1:]  # says what held
        printed = "".join(out.text for cell in last for out in cell.outputs if out.get("name") == "stdout")
        said += [(file.stem, *found) for found in re.findall(r"(?m)^(.+): (True|False)$", printed)]
    whole = "".join(sections.values())
    contents = re.findall(r'(?s)<h([12]) id="([^"]*)">(.*?)(?:<a class="anchor|</h)', whole)
    texts = {data: text for text, data in re.findall(r'<img alt="([^"]*)"[^>]*base64,([^"]*)', whole)}
    shown, datasets = record["parameters"]["report"], record["parameters"]["data"]["datasets"]
    for title, dataset in itertools.product(dict.fromkeys([shown["table"], *shown["figures"]]), datasets):
        stem = title if dataset == "drawn" else f"{title}_{dataset}"
        for file in folder.glob(f"tables/{stem}.csv"):
            try:
                tables.append((title, dataset, pd.read_csv(file)))
            except ValueError as error:
                faults.append(f"tables/{file.name} is damaged: {error}")
        for file in folder.glob(f"figures/{stem}.[jp]*g"):  # .png, .jpg
            data = base64.b64encode(file.read_bytes()).decode()
            figures.append((title, dataset, data, texts.get(data)))
    page = {"contents": contents, "said": said, "sections": sections, "tables": tables, "figures": figures}
    template = jinja2.Template(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    write_atomic(folder / "report.html", template.render(page, name=name, run=record, faults=faults) + "\n")
    return folder / "report.html"
