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
    files, run = sorted((folder / "notebooks").glob("*.ipynb")), read_json(folder / "run.json")
    if not files or not run:
        raise FileNotFoundError(f"{folder / 'notebooks'} has no executed notebook; run `ssr study {name}` first")
    contents, findings, sections, tables, figures = [], [], [], [], []
    exporter, beside = HTMLExporter(raw_template=CELLS, embed_images=True), str(repository_root() / "notebooks")
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": beside}})
        body = re.sub(r"<(script|style)\b.*?</\1>", "", body, flags=re.DOTALL | re.IGNORECASE)
        body = re.sub(r'(<h\d id=")', rf"\g<1>{file.stem}-", body)
        contents += re.findall(r'<h([12]) id="([^"]*)">(.*?)(?:<a class="anchor|</h)', body, flags=re.DOTALL)
        sections.append((file.stem, body))
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]  # says what held
        printed = "".join(output.text for output in last.outputs if output.get("name") == "stdout")
        findings += [(file.stem, line) for line in printed.splitlines()]
    shown = run["parameters"]["report"]
    for dataset in run["parameters"]["data"]["datasets"]:  # what the profile's `report` names, as far as it is there
        table = folder / "tables" / f"{of_dataset(shown['table'], dataset)}.csv"
        if table.is_file():
            tables.append((dataset, pd.read_csv(table).to_html(index=False, na_rep="", border=0)))
        for picture in [folder / "figures" / f"{of_dataset(name, dataset)}.png" for name in shown["figures"]]:
            if picture.is_file():
                figures.append((picture.stem, base64.b64encode(picture.read_bytes()).decode()))
    made_by = {"profile": name, "commit": run["commit"], **run["machine"], **run["versions"]}
    made_by["minutes"] = round(sum(run["seconds"].values()) / 60)
    page = {"contents": contents, "findings": findings, "sections": sections, "tables": tables, "figures": figures}
    template = jinja2.Template(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    write_atomic(folder / "report.html", template.render(page, title=run["title"], made_by=made_by) + "\n")
    return folder / "report.html"
