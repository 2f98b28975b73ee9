"""The report: one file with everything in it, that needs neither network nor script."""

import base64
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ssr_lib.files import write_atomic
from ssr_lib.study.run import report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TABLE = "<style>x</style><script>alert(1)</script><table><td>7.5</td></table>"


@pytest.fixture
def text(tmp_path) -> str:
    """The report on a results folder with two executed notebooks, a table and a figure."""
    folder = tmp_path / "results" / "tiny"
    (folder / "notebooks").mkdir(parents=True)
    shown = [new_output("display_data", {"image/png": PIXEL}), new_output("display_data", {"text/html": TABLE})]
    for name, held in (("00_first", "GFR < none: True"), ("01_second", "k & α: False")):
        last = new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text=held + "\n")])
        cells = [new_markdown_cell(f"# {name}\n\nText.\n\n## A section"), new_code_cell("x = 1 < 2", outputs=shown)]
        nbformat.write(new_notebook(cells=[*cells, last]), folder / "notebooks" / f"{name}.ipynb")
    write_atomic(folder / "tables" / "main.csv", "network,medium\nplain,43.1 ± 0.6\n")
    write_atomic(folder / "figures" / "claims.png", base64.b64decode(PIXEL))
    parameters = {"report": {"table": "main", "figures": ["claims", "cost"]}, "data": {"datasets": ["drawn"]}}
    record = {"title": "A <tiny> study", "parameters": parameters, "seconds": {"00_first": 90, "01_second": 30}}
    record |= {"commit": "abc", "machine": {"cores": 2, "accelerator": None}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(record))
    return report("tiny", workspace=tmp_path).read_text(encoding="utf-8")


def test_the_first_page_has_findings_the_main_table_and_figures(text):
    first = text[: text.index('<section id="00_first"')]
    assert "<title>A &lt;tiny&gt; study</title>" in first
    assert "profile tiny · commit abc · cores 2 · minutes 2" in first
    assert "GFR &lt; none: True" in first and "k &amp; α: False" in first
    assert "43.1 ± 0.6" in first and first.count('<img alt="claims" src="data:image/png;base64,') == 1


def test_contents_lead_to_the_sections_everything_is_inside_and_nothing_runs(text, tmp_path):
    anchors = re.findall('href="#(.*?)"', text[text.index("<nav>") : text.index("</nav>")])
    assert [anchor.partition("-")[0] for anchor in anchors] == ["00_first", "00_first", "01_second", "01_second"]
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert "<script" not in text and "alert(1)" not in text and "<td>7.5</td>" in text
    assert not [word for word in text.replace("'", '"').split('"') if word.startswith(("http:", "https:", "//"))]
    assert text.count("<details>") == 4, "code is folded away"
    assert report("tiny", workspace=tmp_path).read_text(encoding="utf-8") == text
