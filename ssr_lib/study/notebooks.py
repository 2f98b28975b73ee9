"""Notebooks as programs: executed by this very Python, and freed of everything that belongs to one machine."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from ssr_lib.files import write_atomic

KERNEL_ENVIRONMENT = {
    # Training asks for the same large buffers every step; kept by the process, they are not faulted in again each time.
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",  # bars are for a person who watches; the runner shows its own
}
PROGRESS_BAR = re.compile(r"\d+%\|.*\||\d+(\.\d+)?(it/s|s/it)\b")
KERNEL_FILE = re.compile(r"[^\s\"'<>]*ipykernel_\d+/\d+\.py")
STYLED_TABLE = re.compile(r"\bT_[0-9a-f]{5}(?=[_\"\s#])")  # the random name of a styled table of pandas
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


class NotebookError(RuntimeError):
    """A notebook that stopped in a cell; the message names both and says what went wrong."""


@contextmanager
def kernel_of_this_python() -> Iterator[None]:
    """Within, the kernel `python3` is this interpreter, without the user's start-up files, whatever is installed."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
            "display_name": "Python 3",
            "language": "python",
            "env": {**KERNEL_ENVIRONMENT, "IPYTHONDIR": f"{folder}/ipython"},
        }
        write_atomic(Path(folder, "kernels", "python3", "kernel.json"), json.dumps(spec))
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = folder + (os.pathsep + before if before else "")
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def execute(source: Path, running: Path, parameters: Mapping, *, progress: bool = True) -> NotebookNode:
    """Execute `source` with `parameters` in its own folder and return it; `running` shows it as far as it has come.

    Raises `NotebookError` naming the notebook, the cell and the error; `running` then stays for inspection.
    """
    running.parent.mkdir(parents=True, exist_ok=True)
    try:
        with kernel_of_this_python():
            return papermill.execute_notebook(
                str(source),
                str(running),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                cwd=str(source.parent),
                progress_bar=progress,
            )
    except PapermillExecutionError as error:
        message = f"{source.name} failed in cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        raise NotebookError(f"{message}\nThe notebook as far as it ran, with the whole traceback: {running}") from None
    except DeadKernelError as error:
        raise NotebookError(f"{source.name}: its kernel died, most often because memory ran out") from error


def parameterize(source: Path, target: Path, parameters: Mapping) -> None:
    """Write a copy of `source`, not run and stored outputs kept, with `parameters` in a cell after its own."""
    notebook = papermill.parameterize.parameterize_notebook(
        papermill.iorw.load_notebook_node(str(source)), dict(parameters), kernel_name="python3", language="python"
    )
    write_atomic(target, nbformat.writes(notebook))


def scrub(notebook: NotebookNode, folders: Mapping[str, str]) -> NotebookNode:
    """A copy without what belongs to one machine or one moment: paths, times, progress bars, memory addresses.

    `folders` maps each absolute folder to what stands for it ("" makes paths relative to it); longer folders first.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        cell.id = f"cell-{i}"  # papermill draws random ones
        if "injected-parameters" in tags:
            cell.source = _without_folders(cell.source, folders)
        if cell.cell_type == "code":
            outputs = [_scrub_output(output, folders, f"T_{i}-{j}") for j, output in enumerate(cell.outputs)]
            cell.outputs = [output for output in outputs if output is not None]
    return notebook


def _scrub_output(output: NotebookNode, folders: Mapping[str, str], name: str) -> NotebookNode | None:
    if output.output_type == "stream":
        lines = [line.rsplit("\r", 1)[-1] for line in output.text.replace("\r\n", "\n").split("\n")]
        output.text = _without_folders("\n".join(line for line in lines if not PROGRESS_BAR.search(line)), folders)
        return output if output.text.strip() else None
    if output.output_type in ("display_data", "execute_result"):
        if any("widget" in kind for kind in output.data):
            return None
        output.metadata = NotebookNode()
        for kind, text in output.data.items():
            if isinstance(text, str) and not kind.startswith("image/p") and not kind.startswith("image/j"):
                output.data[kind] = STYLED_TABLE.sub(name, _without_folders(text, folders))
    return output


def _without_folders(text: str, folders: Mapping[str, str]) -> str:
    text = KERNEL_FILE.sub("cell", text)
    for folder in sorted(folders, key=len, reverse=True):
        # A folder's name ends where a path's part ends: /home/a is no part of /home/ab.
        within, alone = folders[folder], folders[folder].rstrip("/") or "."
        text = re.sub(re.escape(folder) + r"/(?=[\w.])", within, text)
        text = re.sub(re.escape(folder) + r"/?(?![\w.-])", alone, text)
    return ADDRESS.sub("at 0x…", text)
