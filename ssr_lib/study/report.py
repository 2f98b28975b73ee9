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
body { font: 17px/1.6 Georgia, serif; margin: 0; display: flex; } main { max-width: 60rem; min-width: 0; padding: 1rem 2rem; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; flex: 0 0 17rem; padding: 1rem; box-sizing: border-box; }
nav, h1, h2, h3, table, summary, .run { font-family: system-ui, sans-serif; line-height: 1.3; } nav ul { padding-left: 1rem; }
nav, .run, summary, table { font-size: .82rem; } .anchor-link { display: none; } section { border-top: 2px solid; }
table { border-collapse: collapse; display: block; overflow-x: auto; } img { max-width: 100%; } .h2 { margin-left: 1rem; }
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
        raise FileNotFoundError(f"{folder / 'notebooks'} has no executed notebook; run `ssr study {name}` first")
    run = read_json(folder / "run.json") or {}
    said = {"profile": name, "commit": run.get("commit"), **run.get("machine", {}), **run.get("versions", {})}
    said["minutes"] = round(sum(run.get("seconds", {}).values()) / 60)
    title, run_line = html.escape(run.get("title", name)), " · ".join(f"{key} {value}" for key, value in said.items())
    exporter = HTMLExporter(raw_template=CELLS, embed_images=True)
    contents, findings, sections = [], [], []
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(repository_root() / "notebooks")}})
        body = re.sub(r"<(script|style)\b.*?</\1>", "", body, flags=re.DOTALL | re.IGNORECASE)
        body = re.sub(r'(<h\d id=")', rf"\g<1>{file.stem}-", body)
        headings = re.findall(r'<h([12]) id="([^"]*)">(.*?)(?:<a class="anchor|</h)', body, flags=re.DOTALL)
        contents += [f'<li class="h{level}"><a href="#{anchor}">{text}</a></li>' for level, anchor, text in headings]
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1:]  # says what held
        printed = "".join(output.text for cell in last for output in cell.outputs if output.get("name") == "stdout")
        findings += [f"<li>{html.escape(line)} ({file.stem})</li>" for line in printed.splitlines()]
        sections.append(f'<section id="{file.stem}">{body}</section>')
    head = f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    page = ["<!doctype html>", head, f"<body><nav><b>Contents</b><ul>{''.join(contents)}</ul></nav>"]
    page += [f'<main><h1>{title}</h1><p class="run">{html.escape(run_line)}</p>']
    page += [f"<h2>Findings</h2><ul>{''.join(findings)}</ul>", *_shown_first(folder, run.get("parameters", {}))]
    write_atomic(folder / "report.html", "\n".join([*page, *sections, "</main></body></html>\n"]))
    return folder / "report.html"


def _shown_first(folder: Path, parameters: dict) -> list[str]:
    """The main table and the figures that the profile's `report` names, as far as they are there."""
    shown = []
    for dataset in parameters.get("data", {}).get("datasets", ()):
        table = folder / "tables" / f"{of_dataset(parameters['report']['table'], dataset)}.csv"
        if table.is_file():
            shown += [f"<h2>{dataset}</h2>", pd.read_csv(table).to_html(index=False, na_rep="", border=0)]
        names = [f"{of_dataset(figure, dataset)}.png" for figure in parameters["report"]["figures"]]
        for picture in [folder / "figures" / name for name in names if (folder / "figures" / name).is_file()]:
            data = base64.b64encode(picture.read_bytes()).decode()
            shown.append(f'<img alt="{picture.stem}" src="data:image/png;base64,{data}">')
    return shown
