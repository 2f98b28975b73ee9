"""One HTML file with everything the executed notebooks of a profile say: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
import mimetypes
import re
from pathlib import Path

import matplotlib
import mistune
import nbformat
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbformat import NotebookNode
from PIL import Image

from ssr_lib.files import write_atomic
from ssr_lib.study.provenance import repository_root

LARGE_PICTURE = 120_000  # bytes; beyond, a picture goes in as WebP, which shows the same in a fraction of the space
MATH_SIZE = FontProperties(size=12)
STYLE = """
body { font: 17px/1.6 Georgia, "Times New Roman", serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       padding: 2rem; max-width: 60rem; }
h1, h2, h3, nav, table, summary, .run { font-family: system-ui, "Helvetica Neue", Arial, sans-serif; line-height: 1.3; }
h1 { font-size: 1.7rem; margin-top: 4rem; border-top: 2px solid #1a1a1a; padding-top: 1rem; }
header h1 { border: 0; margin-top: 0; font-size: 2.1rem; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.1rem; }
.run, summary { color: #555; font-size: .85rem; } nav { font-size: .95rem; } nav ul { padding-left: 1.2rem; }
a { color: #0b5394; } img { max-width: 100%; height: auto; } img.inline { max-width: none; }
figure { margin: 1.5rem 0; overflow-x: auto; } .formula { text-align: center; margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; margin: 1.2rem 0; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; } thead th { border-bottom: 2px solid #1a1a1a; }
pre { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; background: #f6f6f4; padding: .8rem; overflow-x: auto; }
code { font-size: .85em; } .warning { border-left: 3px solid #b45f06; } details { margin: .4rem 0; }
@media print { details { display: none; } h1 { page-break-before: always; } header h1 { page-break-before: avoid; } }
"""


def report(profile: str = "demo", *, workspace: Path | str | None = None) -> Path:
    """Assemble `results/<profile>/report.html` from the executed notebooks there and return its path.

    Raises `FileNotFoundError` where no notebook has been executed.
    """
    folder = Path(workspace or repository_root()) / "results" / profile
    files = sorted((folder / "notebooks").glob("*.ipynb"))
    if not files:
        raise FileNotFoundError(
            f"{folder / 'notebooks'} has no executed notebook; run `make study PROFILE={profile}` first"
        )
    run = json.loads((folder / "run.json").read_text(encoding="utf-8")) if (folder / "run.json").is_file() else {}
    sections = [_Section(path) for path in files]
    title = html.escape(run.get("title", f"The study, profile {profile}"))
    contents = "\n".join(f'<li><a href="#{s.name}">{s.title}</a>{_sublist(s)}</li>' for s in sections)
    page = "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f'<header><h1>{title}</h1><p class="run">{html.escape(_provenance(profile, run))}</p></header>',
            f"<nav><h2>Contents</h2><ul>{contents}</ul></nav>",
            *(section.body for section in sections),
            "</body></html>\n",
        ]
    )
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def formula(latex: str, *, display: bool = False) -> str:
    """A formula as an inline picture in SVG, drawn by matplotlib; what that cannot draw is shown as code."""
    text, picture = f"${' '.join(latex.split())}$", io.BytesIO()
    try:
        with matplotlib.rc_context({"svg.hashsalt": text, "svg.fonttype": "path"}):  # the same names every time
            depth = math_to_image(text, picture, prop=MATH_SIZE, dpi=72, format="svg")
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"
    svg = re.sub(rb"<metadata>.*?</metadata>", b"", picture.getvalue(), flags=re.DOTALL)
    place = f'alt="{html.escape(latex)}" style="vertical-align:-{depth:.1f}pt"'
    image = f'<img class="inline" {place} src="{_uri(svg, "image/svg+xml")}">'
    return f'<div class="formula">{image}</div>' if display else image


class _Section:
    """One executed notebook as HTML: `name` (its anchor), `title`, `headings` (anchor, text) below it, `body`."""

    def __init__(self, path: Path):
        self.name, self.folder = path.stem, path.parent
        self.title, self.headings = html.escape(path.stem), []
        self.markdown = mistune.create_markdown(renderer=_Renderer(self), plugins=["table", "strikethrough", "math"])
        cells = [self._cell(cell) for cell in nbformat.read(path, as_version=4).cells]
        self.body = f'<section id="{self.name}">\n' + "\n".join(cells) + "\n</section>"

    def _cell(self, cell: NotebookNode) -> str:
        if cell.cell_type == "markdown":
            return self.markdown(cell.source)
        if cell.cell_type != "code":
            return ""
        code = f"<details><summary>code</summary><pre>{html.escape(cell.source)}</pre></details>" if cell.source else ""
        return "\n".join([code, *(self._output(output) for output in cell.outputs)])

    def _output(self, output: NotebookNode) -> str:
        if output.output_type == "stream":
            kind = ' class="warning"' if output.name == "stderr" else ""
            return f"<pre{kind}>{html.escape(output.text.rstrip())}</pre>"
        if output.output_type == "error":
            return f'<pre class="warning">{html.escape(f"{output.ename}: {output.evalue}")}</pre>'
        data = output.data
        if "text/html" in data:
            inert = re.sub(r"<(script|style)\b.*?</\1>", "", data["text/html"], flags=re.DOTALL | re.IGNORECASE)
            return self.with_pictures(inert)
        for kind in ("image/svg+xml", "image/png", "image/jpeg"):
            if kind in data:
                raw = data[kind].encode() if kind == "image/svg+xml" else base64.b64decode(data[kind])
                return f'<figure><img alt="figure of {self.name}" src="{_picture(raw, kind)}"></figure>'
        if "text/markdown" in data:
            return self.markdown(data["text/markdown"])
        return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"

    def picture(self, source: str) -> str:
        """The address of a picture that a notebook links to, with the file inside; "" where there is none."""
        if source.startswith("data:"):
            return source
        for folder in (self.folder, repository_root() / "notebooks"):
            path = folder / source
            if path.is_file():
                return _picture(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "image/png")
        return ""

    def with_pictures(self, text: str) -> str:
        return re.sub(r'(<img\b[^>]*\bsrc=")([^"]*)"', lambda match: f'{match[1]}{self.picture(match[2])}"', text)


class _Renderer(mistune.HTMLRenderer):
    """Markdown to HTML with anchors for the table of contents, formulas drawn and pictures inside."""

    def __init__(self, section: _Section):
        super().__init__(escape=False)
        self.section = section

    def heading(self, text: str, level: int, **_) -> str:
        if level == 1:
            self.section.title = text
            return f"<h1>{text}</h1>\n"
        anchor = f"{self.section.name}-{len(self.section.headings) + 1}"
        if level == 2:
            self.section.headings.append((anchor, text))
            return f'<h2 id="{anchor}">{text}</h2>\n'
        return f"<h{level}>{text}</h{level}>\n"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        source = self.section.picture(url)
        return f'<img alt="{html.escape(text)}" src="{source}">' if source else f"[{html.escape(text)}]"

    def inline_math(self, text: str) -> str:
        return formula(text)

    def block_math(self, text: str) -> str:
        return formula(text, display=True)


def _sublist(section: _Section) -> str:
    items = "".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in section.headings)
    return f"<ul>{items}</ul>" if items else ""


def _provenance(profile: str, run: dict) -> str:
    machine, versions = run.get("machine", {}), run.get("versions", {})
    parts = [f"Profile {profile}", f"commit {run['commit'][:12]}" if run.get("commit") else "no commit known"]
    if machine:
        parts.append(f"{machine['system']} {machine['architecture']}, {machine['cores']} cores")
        parts += [f"{machine['memory_gib']} GiB", machine["accelerator"] or "no GPU"]
    parts += [f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if name in versions]
    if run.get("seconds"):
        parts.append(f"{sum(run['seconds'].values()) / 60:.0f} minutes")
    return " · ".join(parts)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _picture(data: bytes, kind: str) -> str:
    """A data address of a picture; a large one of pixels as WebP where that is smaller."""
    if kind in ("image/png", "image/jpeg") and len(data) > LARGE_PICTURE:
        smaller = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(smaller, "WEBP", quality=82, method=4)
        if len(smaller.getvalue()) < len(data):
            return _uri(smaller.getvalue(), "image/webp")
    return _uri(data, kind)
