"""The README's figures: written between its markers from committed tables, so that they cannot differ from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from ssr_lib.files import write_atomic
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.readings import read_verdicts
from ssr_lib.study.tables import to_markdown


def between(text: str, name: str, content: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- end of name -->` replaced. Raises if they are not there."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the text has no markers '<!-- {name} -->' and '<!-- end of {name} -->'")
    return pattern.sub(lambda found: found[1] + content + found[2], text)


def readme_text(profile: str, root: Path | None = None) -> str:
    """The README with the main table and the verdicts of `profile`."""
    root = root or repository_root()
    tables = root / "results" / profile / "tables"
    text = (root / "README.md").read_text(encoding="utf-8")
    of = json.loads((tables.parent / "run.json").read_text(encoding="utf-8"))["parameters"]
    intro = (
        f"mAP in percent on {of['data']['test']['landmarks']} drawn test landmarks, mean ± standard deviation over "
        f"{len(of['comparison']['seeds'])} trainings of {of['training']['steps']} steps (profile `{profile}`, `results/{profile}`):"
    )
    main = (tables / "main.md").read_text(encoding="utf-8")
    text = between(text, "main table", f"\n{intro}\n\n{main}\n")
    claims = pd.read_csv(tables / "claims.csv")
    shown = claims[["claim", "comparison", "difference", "low", "high", "p", "verdict"]]
    return between(text, "verdicts", "\n" + read_verdicts(claims) + "\n\n" + to_markdown(shown, digits=2) + "\n")


def update_readme(profile: str) -> Path:
    """Write the figures of `profile` into README.md."""
    path = repository_root() / "README.md"
    write_atomic(path, readme_text(profile))
    return path
