"""README: its table is the committed one, its links lead somewhere, its commands are those that there are."""

import re
from pathlib import Path

from ssr_lib.commands.main import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_committed_one():
    table = README.split("<!-- results/demo/tables/main.csv -->\n")[1].split("\n<!-- end -->")[0]
    header, _, *lines = table.splitlines()
    shown = [",".join(cell.strip() for cell in line.strip("|").split("|")) for line in (header, *lines)]
    committed = (ROOT / "results/demo/tables/main.csv").read_text(encoding="utf-8").splitlines()
    assert len(shown) > 8 and shown == [line for line in committed if line in shown]


def test_links_lead_somewhere():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)]
    assert links and not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_commands_parse():
    commands = [line.partition("#")[0].replace("&& .venv/bin/ssr", "\nssr") for line in README.splitlines()]
    lines = [line.strip() for text in commands for line in text.split("\n")]
    called = [line.removeprefix(".venv/bin/") for line in lines if line.removeprefix(".venv/bin/").startswith("ssr ")]
    assert len(called) >= 5
    for line in called:
        assert build_parser().parse_args(line.split()[1:]).command == line.split()[1]
