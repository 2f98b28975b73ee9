"""The report and the page of queries: one file each with everything in it, that needs no network, on any screen."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

from ssr_lib.files import write_atomic
from ssr_lib.study import run
from ssr_lib.study.run import report

TINY = Path(__file__).with_name("report")  # results: two executed notebooks, tables, a figure; the rest is missing
DEMO = Path(__file__).parents[1] / "results" / "demo" / "report.html"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def text(tmp_path) -> str:
    shutil.copytree(TINY, tmp_path / "results" / "tiny")
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


@pytest.mark.parametrize("file,end,told", [
    ("tables/claims.csv", 0, "tables/claims.csv is damaged: No columns to parse from file"),
    ("tables/main.csv", 0, "tables/main.csv is damaged: No columns to parse from file"),
    ("tables/claims.csv", -20, "tables/claims, drawn: a row without verdict is left out"),
    ("notebooks/01_second.ipynb", 99, "notebooks/01_second.ipynb is damaged: Notebook does not appear"),
    ("run.json", 99, "run.json is not there or damaged; this page follows the profile base as it is now"),
])  # fmt: skip
def test_what_is_cut_off_is_named_and_the_rest_stands(file, end, told, text, tmp_path):
    write_atomic(tmp_path / "results" / "tiny" / file, (TINY / file).read_bytes()[:end])
    page = report("tiny", workspace=tmp_path).read_text(encoding="utf-8")
    assert page.count(f"<li>{told}") == 1 and '<section id="00_first"' in page
    assert ("43.1 ± 0.6" in page) == (file != "tables/main.csv") and ("+6.09" in page) == (end != 0 or "main" in file)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed here")
@pytest.mark.parametrize("page,parts", [("report", 2), ("queries", 1), ("demo", DEMO.read_text().count("<section"))])
def test_a_page_fits_a_phone_and_a_screen_prints_and_a_browser_finds_no_fault_in_it(page, parts, text, tmp_path):
    made = DEMO if page == "demo" else tmp_path / "results" / "tiny" / f"{page}.html"
    if page == "queries":
        data = json.loads((TINY / "queries.json").read_text())
        template = jinja2.Template(Path(run.__file__).with_name("queries.html.j2").read_text(encoding="utf-8"))
        write_atomic(made, template.render(title="tiny", data=data, json=json.dumps(data)))
    write_atomic(tmp_path / "screens.html", (TINY / "screens.html").read_text().replace("PAGE", made.as_uri()))
    browser = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    browser += ["--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}"]
    asked = [*browser, "--dump-dom", (tmp_path / "screens.html").as_uri()]
    seen = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert f"<title>390,1300,{parts}</title>" in seen.stdout and "CONSOLE" not in seen.stderr
    if page != "demo":  # whose many sheets take ten seconds
        subprocess.run([*browser, f"--print-to-pdf={tmp_path}/a.pdf", made.as_uri()], check=True, timeout=300)
        assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
