"""Where a result comes from: the repository, its commit, the versions of packages, the machine."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import torch

from ssr_lib.datasets.fetch import DATA_SETS
from ssr_lib.files import read_json, write_atomic

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scipy", "faiss-cpu", "opencv-python-headless", "pillow")


def repository_root() -> Path:
    """The folder of `ssr_lib`, `profiles`, `notebooks`; the current folder where ssr_lib is installed without them."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def data_folder() -> Path:
    """Where pictures and weights that cannot be made lie: the folder that SSR_DATA names, or data/."""
    return Path(os.environ.get("SSR_DATA") or repository_root() / "data")


def data_file(name: str | None) -> Path:
    """The file or folder `name` below `data_folder()`; `FileNotFoundError` where it is not there, or null."""
    check_data([str(name)])
    return data_folder() / name


def missing(names: Iterable[str]) -> list[str]:
    """Of files and folders that are not in `data_folder()` each, and what brings it."""
    told = []
    for name in [name for name in dict.fromkeys(names) if not (data_folder() / name).exists()]:
        folder = name.partition("/")[0]
        how = f"`ssr fetch {folder}` brings it" if folder in DATA_SETS else "data/README.md says how to get it"
        told.append(f"{name} is not in {data_folder()}: {how}")
    return told


def check_data(names: Iterable[str]) -> None:
    """Raises `FileNotFoundError` naming all files and folders that are not in `data_folder()`."""
    if told := missing(names):
        raise FileNotFoundError(f"{'; '.join(told)}; where it lies in another folder, set SSR_DATA to that")


def describe_run() -> dict:
    """Commit, versions and machine as a JSON-able record, without host names, user names or paths."""
    machine = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
    machine["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine |= {"threads": torch.get_num_threads(), "accelerator": accelerator}  # last digits depend on both
    versions = {"python": platform.python_version()} | {package: metadata.version(package) for package in PACKAGES}
    return {"commit": commit(), "versions": versions, "machine": machine}


def commit() -> str | None:
    """The commit of the working tree, with "+changes" where code differs from it; None outside git."""
    git, how = ["git", "-C", str(repository_root())], {"text": True, "stderr": subprocess.DEVNULL}
    changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
    try:
        folder, found = subprocess.check_output([*git, "rev-parse", "--show-toplevel", "HEAD"], **how).splitlines()
        if Path(folder).resolve() != repository_root():  # inside another project
            return None
        return found + ("+changes" if subprocess.check_output(changed, **how) else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None


def source_of(notebook: str, kinds: Sequence[str] = ("code", "markdown")) -> list[list[str]]:
    """Kind and source of the cells of a notebook of the repository; outputs do not count."""
    cells = (read_json(repository_root() / "notebooks" / f"{notebook}.ipynb") or {"cells": []})["cells"]
    return [[cell["cell_type"], "".join(cell["source"])] for cell in cells if cell["cell_type"] in kinds]


def update(path: Path, **entries: object) -> None:
    """Put entries into a JSON file; mappings are merged with those that stand there."""
    record = read_json(path) or {}
    for key, value in entries.items():
        record[key] = {**record.get(key, {}), **value} if isinstance(value, dict) else value
    write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
