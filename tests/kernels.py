"""What stands in for a kernel where a test is not about kernels."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
from nbformat.v4 import new_output

from ssr_lib.study import Study, provenance


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


def study_here(profile: str, folder: Path, notebooks: dict[str, dict] | None = None) -> Study:
    """The study of a file in tests/profiles after its notebooks, or those given with parameters of their own."""
    study = Study(str(Path(__file__).parent / "profiles" / profile), folder, progress=False)
    for name, more in (notebooks or {name: {} for name in study.profile.notebooks}).items():
        execute_here(study, name, profile=study.source, workspace=str(folder), changes=None, **more)
    return study
