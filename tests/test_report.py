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
        cells = [new_markdown_cell(f"# {name}\n\nText.\n\n## A section")]
        cells.append(new_code_cell("x = 1 < 2", outputs=shown, metadata={"alt": f"A dot > 0, {name}"}))
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
    assert "43.1 ± 0.6" in first and first.count('<img alt="A dot &gt; 0, 01_second" src="data:image/png;base64,') == 1
    named = ["notebook 02_third", "network renamed in the table main, drawn", "figure cost"]
    assert first.count("".join(f"<li>{what}</li>" for what in named)) == 1


def test_contents_lead_to_the_sections_everything_is_inside_and_nothing_runs(text, tmp_path):
    anchors = re.findall('href="#(.*?)"', text[text.index("<nav>") : text.index("</nav>")])
    assert anchors[:3] == ["findings", "table", "figures"]
    assert [anchor.partition("-")[0] for anchor in anchors[3:]] == ["00_first"] * 2 + ["01_second"] * 2
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert text.count('alt="A dot &gt; 0, 0') == text.count("<img") == 3
    assert "<script" not in text and "alert(1)" not in text and "<td>7.5</td>" in text
    assert not [word for word in text.replace("'", '"').split('"') if word.startswith(("http:", "https:", "//"))]
    assert text.count("<details>") == 4, "code is folded away"
    assert report("tiny", workspace=tmp_path).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("file,held,told", [
    ("tables/claims.csv", "", "tables/claims.csv is damaged: No columns to parse from file"),
    ("tables/main.csv", "", "tables/main.csv is damaged: No columns to parse from file"),
    ("tables/claims.csv", CLAIMS[:-20], "tables/claims, drawn: a row without verdict is left out"),
    ("notebooks/01_second.ipynb", '{"cells": [', "notebooks/01_second.ipynb is damaged: Notebook does not appear"),
    ("notebooks/01_second.ipynb", '{"nbformat": 4}', "notebooks/01_second.ipynb is damaged: "),
    ("run.json", "{", "run.json is not there or damaged; this page follows the profile base as it is now"),
])  # fmt: skip
def test_what_is_damaged_is_named_and_the_rest_stands(file, held, told, text, tmp_path):
    write_atomic(tmp_path / "results" / "tiny" / file, held)
    page = report("tiny", workspace=tmp_path).read_text(encoding="utf-8")
    assert page.count(f"<li>{told}") == 1 and '<section id="00_first"' in page
    assert ("43.1 ± 0.6" in page) == (file != "tables/main.csv") and ("+6.09" in page) == (bool(held) or "main" in file)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed here")
@pytest.mark.parametrize("page", ["report", "queries", "of demo"])
def test_a_page_fits_a_phone_and_a_screen_prints_and_a_browser_finds_no_fault_in_it(page, text, tmp_path):
    made, parts = tmp_path / "results" / "tiny" / f"{page}.html", 2  # sections or queries
    if page == "queries":
        one = [{"ap": 0.5, "first": [[0, "right"], [1, "wrong"]]}, {"ap": None, "first": []}]
        data = {"lists": {"a": {"plain": {"none": one, "GFR": one}}}, "pictures": {}, "missing": ["a picture"]}
        data |= {"queries": {"a": [{"name": "q" * 60, "right": 1}, {"name": "p", "right": 0}]}, "seed": 0}
        template = jinja2.Template(Path(run.__file__).with_name("queries.html.j2").read_text(encoding="utf-8"))
        write_atomic(made, template.render(title="tiny", data=data, json=json.dumps(data)))
        parts = 1
    elif page == "of demo":
        made = Path(__file__).parents[1] / "results" / "demo" / "report.html"
        parts = made.read_text(encoding="utf-8").count("<section id=")
    frames = [f"<iframe src={made.as_uri()} style='width:{width}px;height:800px'></iframe>" for width in (390, 1300)]
    told = "pages.map(f => f.contentDocument.documentElement.scrollWidth)"
    told = f"[...{told}, pages[0].contentDocument.querySelectorAll('section, article').length]"
    told = f"pages = [...document.querySelectorAll('iframe')]; document.title = {told}"
    style = "<meta charset=utf-8><style>iframe { border: 0 }</style>"
    write_atomic(tmp_path / "screens.html", f"{style}{''.join(frames)}<script>onload = () => {{ {told} }}</script>")
    browser = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    browser += ["--hide-scrollbars", f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr"]
    asked = {"screens": [*browser, "--dump-dom", (tmp_path / "screens.html").as_uri()]}
    if page != "of demo":  # its many sheets take ten seconds
        asked["paper"] = [*browser, f"--print-to-pdf={tmp_path}/a.pdf", made.as_uri()]
    seen = {on: subprocess.run(asked[on], capture_output=True, text=True, timeout=300) for on in asked}
    assert f"<title>390,1300,{parts}</title>" in seen["screens"].stdout
    assert not [on for on in seen if "CONSOLE" in seen[on].stderr]
    assert page == "of demo" or (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
