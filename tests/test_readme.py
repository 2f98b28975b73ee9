"""The README says what the committed results say."""

import re

import pytest

from ssr_lib.study.provenance import repository_root
from ssr_lib.study.readme import between, readme_text

README = (repository_root() / "README.md").read_text(encoding="utf-8")


def test_the_figures_of_the_readme_are_those_of_the_committed_results():
    profile = re.search(r"`results/(\w+)`", README)[1]
    assert readme_text(profile) == README, f"run `.venv/bin/ssr readme --profile {profile}`"


def test_text_between_markers_is_replaced_and_missing_markers_are_named():
    assert between("a\n<!-- x -->\nold\n<!-- end of x -->\n", "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- end of x -->\n"
    with pytest.raises(ValueError, match="no markers '<!-- y -->'"):
        between("a", "y", "new")


def test_every_file_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    missing = [link for link in links if not (repository_root() / link).exists()]
    assert not missing, missing
