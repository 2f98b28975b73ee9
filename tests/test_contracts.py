"""Who may import whom: data flows one way through the library, and experiments live in notebooks."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ["files", "benchmark", "decode", "images", "datasets", "backbones", "pooling", "self_similarity", "whitening"]
CORE += ["heads", "losses", "network", "weights", "official", "store", "extract", "train"]
ORDER = [*CORE, "search", "local", "rerank", "gallery", "metrics", "significance", "scale", "study", "commands"]
EXPERIMENT = {"train", "search", "rerank", "metrics"}  # notebooks call these; in `study` choose and artefacts alone


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """Every module of a package with each name that it imports, wherever in it; `from ssr_lib import x` is ssr_lib.x."""
    for path in sorted((ROOT / package).rglob("*.py")):
        here = ".".join(path.relative_to(ROOT).parts[:-1])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = resolve_name("." * node.level + (node.module or ""), here)
                yield from ((path, f"{module}.{alias.name}") for alias in node.names)


def room(words: list[str]) -> str | None:
    return words[1] if words[0] == "ssr_lib" and words[1:2] and words[1] in ORDER else None


def test_a_module_imports_only_from_rooms_above_its_own():
    faults = []
    for path, name in imports("ssr_lib"):
        mine, other = room([*path.relative_to(ROOT).with_suffix("").parts]), room(name.split("."))
        if mine and other and ORDER.index(other) > ORDER.index(mine):
            faults.append(f"{path}: {mine} imports {other}, which comes later")
        if mine is None and path.stem not in ("__init__", "__main__"):
            faults.append(f"{path}: ORDER has no such room")
        if mine not in ("study", "commands") and name.split(".")[0] in ("drawn_landmarks", "recipes"):
            faults.append(f"{path}: the library imports {name}")
        if mine == "study" and other in EXPERIMENT and path.stem not in ("choose", "artefacts"):
            faults.append(f"{path}: the study imports {name}; an experiment belongs into a notebook")
    assert faults == []


def test_the_drawing_engine_knows_benchmarks_and_nothing_else_of_the_library():
    ours = {name for _, name in imports("drawn_landmarks") if name.split(".")[0] == "ssr_lib"}
    assert ours and all(name.startswith("ssr_lib.benchmark") for name in ours), ours
