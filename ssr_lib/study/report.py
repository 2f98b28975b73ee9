"""One HTML file with everything the executed notebooks of a profile say: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from ssr_lib.files import read_json, write_atomic
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.tables import of_dataset

CELLS = """{% extends 'basic/index.html.j2' %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}
{% block in_prompt %}{% endblock %}{% block output_area_prompt %}{% endblock %}"""
STYLE = """
body { font: 17px/1.6 Georgia, "Times New Roman", serif; color: #1a1a1a; margin: 0; display: flex; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; flex: 0 0 17rem; padding: 1rem; box-sizing: border-box; }
main { max-width: 60rem; min-width: 0; padding: 1rem 2rem; } nav ul { padding-left: 1rem; } a { color: #0b5394; }
nav, h1, h2, h3, table, summary, .run { font-family: system-ui, Arial, sans-serif; line-height: 1.3; }
nav, .run, summary, table { font-size: .82rem; } .anchor-link { display: none; } section { border-top: 2px solid; }
img { max-width: 100%; } table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums; }
pre { font: 13px/1.45 ui-monospace, Menlo, monospace; background: #f6f6f4; padding: .8rem; overflow-x: auto; }
@media (max-width: 60rem) { body { display: block; } nav { position: static; height: auto; } }
"""


def report(name: str = "demo", *, workspace: Path | str | None = None) -> Path:
    """Assemble `results/<name>/report.html` from the executed notebooks there and return its path.

    Raises `FileNotFoundError` where no notebook has been executed.
    """
    folder = Path(workspace or repository_root()) / "results" / name
    files = sorted((folder / "notebooks").glob("*.ipynb"))
    if not files:
        raise FileNotFoundError(
            f"{folder / 'notebooks'} has no executed notebook; run `ssr study --profile {name}` first"
        )
    run = read_json(folder / "run.json") or {}
    title = html.escape(run.get("title", name))
    exporter = HTMLExporter(raw_template=CELLS, embed_images=True)
    contents, findings, sections = [], [], []
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(repository_root() / "notebooks")}})
        body = re.sub(r"<(script|style)\b.*?</\1>", "", body, flags=re.DOTALL | re.IGNORECASE)
        body = re.sub(r'(<h\d id=")', rf"\1{file.stem}-", body)
        headings = re.findall(r'<h([12]) id="([^"]*)">(.*?)(?:<a class="anchor|</h)', body, flags=re.DOTALL)
        contents += [f'<li class="h{level}"><a href="#{anchor}">{text}</a></li>' for level, anchor, text in headings]
        findings += [f"<li>{html.escape(line)} ({file.stem})</li>" for line in _said_last(notebook)]
        sections.append(f'<section id="{file.stem}">{body}</section>')
    page = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    ]
    page.append(f"<body><nav><b>Contents</b><ul>{''.join(contents)}</ul></nav><main><h1>{title}</h1>")
    page += [f'<p class="run">{html.escape(_provenance(name, run))}</p><h2>Findings</h2><ul>{"".join(findings)}</ul>']
    page += [*_first_page(folder, run.get("parameters", {})), *sections, "</main></body></html>\n"]
    write_atomic(folder / "report.html", "\n".join(page))
    return folder / "report.html"


def _said_last(notebook: nbformat.NotebookNode) -> list[str]:
    """The lines that the last cell of a notebook prints: its sentences and whether they held."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [output.text for output in code[-1].outputs if output.get("name") == "stdout"] if code else []
    return "".join(printed).splitlines()


def _first_page(folder: Path, parameters: dict) -> list[str]:
    """The main table and the figures that the profile's `report` names, as far as they are there."""
    shown = []
    for dataset in parameters.get("data", {}).get("datasets", ()):
        table = folder / "tables" / f"{of_dataset(parameters['report']['table'], dataset)}.csv"
        if table.is_file():
            shown += [f"<h2>{dataset}</h2>", pd.read_csv(table).to_html(index=False, na_rep="", border=0)]
        for figure in parameters["report"]["figures"]:
            picture = folder / "figures" / f"{of_dataset(figure, dataset)}.png"
            if picture.is_file():
                data = base64.b64encode(picture.read_bytes()).decode()
                shown.append(f'<img alt="{picture.stem}" src="data:image/png;base64,{data}">')
    return shown


def _provenance(name: str, run: dict) -> str:
    said = {"profile": name, "commit": run.get("commit") or "not known", **run.get("machine", {})}
    said |= {package: run.get("versions", {}).get(package) for package in ("python", "torch", "numpy")}
    said["minutes"] = round(sum(run.get("seconds", {}).values()) / 60)
    return " · ".join(f"{key} {value}" for key, value in said.items() if value is not None)
