"""The report and the page of queries: one file each with everything in it, that needs no network, on any screen."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ssr_lib.files import write_atomic
from ssr_lib.study import run
from ssr_lib.study.run import report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TABLE = "<style>x</style><script>alert(1)</script><table><td>7.5</td></table>"
CLAIMS = """claim,comparison,difference,low,high,margin,unit,verdict
it helps,"mAP, GFR − none",6.09,4.26,7.92,,points of mAP,supported
it sees,"mAP, a < b",,,,,,not tested here
"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def text(tmp_path) -> str:
    """The report on a results folder with two executed notebooks, tables and a figure; much of the profile is missing."""
    folder = tmp_path / "results" / "tiny"
    (folder / "notebooks").mkdir(parents=True)
    shown = [new_output("display_data", {"image/png": PIXEL}), new_output("display_data", {"text/html": TABLE})]
    for name, held in (("00_first", "GFR < none: True"), ("01_second", "k & α: False\n" + "{'x': 1} " * 99)):
        cells = [new_markdown_cell(f"# {name}\n\nText.\n\n## A section"), new_code_cell("x = 1 < 2", outputs=shown)]
        cells.append(new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text=held + "\n")]))
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")
    write_atomic(folder / "tables" / "main.csv", "network,medium\nplain,43.1 ± 0.6\n")
    write_atomic(folder / "tables" / "claims.csv", CLAIMS)
    write_atomic(folder / "figures" / "claims.png", base64.b64decode(PIXEL))
    parameters = {"report": {"table": "main", "figures": ["claims", "cost"]}, "data": {"datasets": ["drawn"]}}
    parameters |= {"notebooks": ["00_first", "01_second", "02_third"], "tables": {"main": ["plain", "renamed"]}}
    record = {"title": "A <tiny> study", "parameters": parameters, "seconds": {"00_first": 90, "01_second": 30}}
    record |= {"commit": "abc", "machine": {"cores": 2, "accelerator": None}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(record))
    return report("tiny", workspace=tmp_path).read_text(encoding="utf-8")


def test_the_first_page_has_findings_in_sentences_the_main_table_figures_and_what_is_missing(text):
    first = text[: text.index('<section id="00_first"')]
    assert "<title>A &lt;tiny&gt; study</title>" in first and "profile tiny · commit abc · cores 2 · minutes 2" in first
    assert "mAP, GFR − none is +6.09 points of mAP, with an interval from +4.26 to +7.92.</li>" in first
    assert "<em>it sees</em>: mAP, a &lt; b.</li>" in first
    assert "<b>Holds:</b> GFR &lt; none." in first and "'x'" not in first
    assert "<b>Does not hold:</b> k &amp; α." in first
    assert "43.1 ± 0.6" in first and first.count(" of drawn; ") == first.count('src="data:image/png;base64,') == 1
    named = ["notebook 02_third", "network renamed in the table main, drawn", "figure cost"]
    assert first.count("".join(f"<li>{what}</li>" for what in named)) == 1


def test_contents_lead_to_the_sections_everything_is_inside_and_nothing_runs(text, tmp_path):
    anchors = re.findall('href="#(.*?)"', text[text.index("<nav>") : text.index("</nav>")])
    assert anchors[:3] == ["findings", "table", "figures"]
    assert [anchor.partition("-")[0] for anchor in anchors[3:]] == ["00_first"] * 2 + ["01_second"] * 2
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert text.count('alt="figure of the section A section"') == 2 and len(re.findall("<img (?!alt)", text)) == 0
    assert "<script" not in text and "alert(1)" not in text and "<td>7.5</td>" in text
    assert not [word for word in text.replace("'", '"').split('"') if word.startswith(("http:", "https:", "//"))]
    assert text.count("<details>") == 4, "code is folded away"
    assert report("tiny", workspace=tmp_path).read_text(encoding="utf-8") == text


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed here")
@pytest.mark.parametrize("page", ["report", "queries"])
def test_a_page_fits_a_phone_and_a_browser_finds_no_fault_in_it(page, text, tmp_path):
    made = tmp_path / "results" / "tiny" / f"{page}.html"
    if page == "queries":
        one = [{"ap": 0.5, "first": [[0, "right"], [1, "wrong"]]}]
        data = {"lists": {"a": {"plain": {"none": one, "GFR": one}}}, "pictures": {}, "missing": ["a picture"]}
        data |= {"queries": {"a": [{"name": "q" * 60, "right": 1}]}, "seed": 0}
        template = jinja2.Template(Path(run.__file__).with_name("queries.html.j2").read_text(encoding="utf-8"))
        write_atomic(made, template.render(title="tiny", data=data, json=json.dumps(data)))
    frame = f"<iframe id=page src={made.as_uri()} style='width:390px;height:800px;border:0'></iframe>"
    shown = "page.contentDocument.querySelectorAll('section, article').length"
    told = f"page.onload = () => document.title = `${{page.contentDocument.documentElement.scrollWidth}} ${{{shown}}}`"
    write_atomic(tmp_path / "phone.html", f"<meta charset=utf-8>{frame}<script>{told}</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars"]
    options += [f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr", "--dump-dom"]
    command = [BROWSER, *options, (tmp_path / "phone.html").as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert f"<title>390 {2 if page == 'report' else 1}</title>" in seen.stdout, "width in pixels, sections or queries"
    assert "CONSOLE" not in seen.stderr
