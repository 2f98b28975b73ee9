"""One HTML file with everything the executed notebooks of a profile say: no network, no scripts, pictures inside."""

import base64
import re
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from ssr_lib.files import read_json, write_atomic
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.tables import of_dataset

CELLS = """{% extends 'basic/index.html.j2' %}
{% block in_prompt %}{% endblock %}{% block output_area_prompt %}{% endblock %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}"""


def report(name: str = "demo", *, workspace: Path | str | None = None) -> Path:
    """Assemble `results/<name>/report.html` from the executed notebooks there and return its path."""
    folder = Path(workspace or repository_root()) / "results" / name
    files = sorted((folder / "notebooks").glob("*.ipynb"))
    if not files:
        raise FileNotFoundError(f"{folder / 'notebooks'} has no executed notebook; run `ssr study {name}` first")
    run = read_json(folder / "run.json") or {}
    made_by = {"profile": name, "commit": run.get("commit"), **run.get("machine", {}), **run.get("versions", {})}
    made_by["minutes"] = round(sum(run.get("seconds", {}).values()) / 60)
    contents, findings, sections, tables, figures = [], [], [], [], []
    exporter = HTMLExporter(raw_template=CELLS, embed_images=True)
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(repository_root() / "notebooks")}})
        body = re.sub(r"<(script|style)\b.*?</\1>", "", body, flags=re.DOTALL | re.IGNORECASE)
        body = re.sub(r'(<h\d id=")', rf"\g<1>{file.stem}-", body)
        contents += re.findall(r'<h([12]) id="([^"]*)">(.*?)(?:<a class="anchor|</h)', body, flags=re.DOTALL)
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1:]  # says what held
        printed = "".join(output.text for cell in last for output in cell.outputs if output.get("name") == "stdout")
        findings += [(file.stem, line) for line in printed.splitlines()]
        sections.append((file.stem, body))
    shown = run.get("parameters", {"report": {}, "data": {"datasets": []}})
    for dataset in shown["data"]["datasets"]:  # what the profile's `report` names, as far as it is there
        table = folder / "tables" / f"{of_dataset(shown['report']['table'], dataset)}.csv"
        if table.is_file():
            tables.append((dataset, pd.read_csv(table).to_html(index=False, na_rep="", border=0)))
        for picture in [folder / "figures" / f"{of_dataset(name, dataset)}.png" for name in shown["report"]["figures"]]:
            if picture.is_file():
                figures.append((picture.stem, base64.b64encode(picture.read_bytes()).decode()))
    template = jinja2.Environment().from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    page = {"contents": contents, "findings": findings, "sections": sections, "tables": tables, "figures": figures}
    text = template.render(page, title=run.get("title", name), made_by=made_by)
    write_atomic(folder / "report.html", text + "\n")
    return folder / "report.html"
