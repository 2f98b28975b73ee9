"""What the README and the pages of docs/ say: figures are those of the committed tables, links lead somewhere, commands are there."""

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssr_lib import rerank
from ssr_lib.commands.main import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "results/README.md", *sorted((ROOT / "docs").glob("*.md"))]
INTERVAL = r"([+−\d.]+)\s\[([+−\d.]+),\s([+−\d.]+)\]"


# A file as committed: `make study` on another machine may change the last digits of the one on disk.
def committed(name):
    found = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, encoding="utf-8")
    return found.stdout if found.returncode == 0 else (ROOT / name).read_text(encoding="utf-8")


def rows(name):
    return list(csv.DictReader(committed(name).splitlines()))


@pytest.mark.parametrize("text", [README, FINDINGS], ids=["README", "findings"])
def test_each_interval_is_a_row_of_the_table_that_is_linked_behind_it(text):
    *parts, last = re.split(r"\]\((?:\.\./)?(results/[^)]*\.csv)\)", text)
    assert len(parts) >= 8 and not re.findall(INTERVAL, last)
    for said, name in zip(parts[::2], parts[1::2], strict=True):
        for found in re.findall(INTERVAL, said):
            places, wanted = len(found[0].partition(".")[2]), [float(number.replace("−", "-")) for number in found]
            keys = ("difference", "low", "high")
            there = [[round(float(row[key]), places) for key in keys] for row in rows(name) if row["low"]]
            assert wanted in there, f"{found} is no row of {name}"


@pytest.mark.parametrize("name, least", [("demo/tables/main", 8), ("real/tables/real_roxford5k", 5)])
def test_the_tables_are_the_committed_ones(name, least):
    shown = FINDINGS.split(f"<!-- results/{name}.csv -->\n")[1].split("\n<!-- end -->")[0].splitlines()
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    there = [[row[column] for column in header] for row in rows(f"results/{name}.csv")]
    assert len(lines) >= least and lines == [row for row in there if row in lines]


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_the_first_cell_tells_the_time_of_the_committed_run(file):
    told = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
    times = re.findall(r"about (\d+) (second|minute)s? of(?: the profile)? `(\w+)`", told)
    assert times and "It takes" in told
    for number, unit, profile in times:
        took = json.loads(committed(f"results/{profile}/run.json"))["seconds"][file.stem]
        assert 0.5 <= took / (int(number) * {"second": 1, "minute": 60}[unit]) <= 2, f"{took} s in {profile}"


def test_the_code_of_the_readme_is_the_librarys_re_ranking():
    exec(README.split("```python\n")[1].split("```")[0], code := {})
    vectors = np.random.default_rng(0).normal(size=(70, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks = code["global_feature_reranking"](vectors[:10], vectors[10:], 4, 0.7)
    np.testing.assert_array_equal(ranks, rerank.global_rerank(vectors[:10], vectors[10:], k=4, alpha=0.7).ranks)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_somewhere_and_commands_parse(page):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
    for line in re.findall(r"^\s*(?:\.venv/bin/)?ssr (.*)", text, re.MULTILINE):
        words = re.split("#|;|&&", line.replace('"$@"', ""))[0].split()
        assert build_parser().parse_args(words).command == words[0]
