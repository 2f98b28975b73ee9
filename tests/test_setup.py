"""The files that describe the environment say the same, and the targets of the Makefile exist and make it first."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = [Requirement(line) for line in LINES]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_dependency_is_pinned_at_a_version_that_the_project_accepts(wanted):
    pins = [str(pin.specifier).removeprefix("==") for pin in PINNED if pin.name == wanted.name]
    assert pins and all(map(wanted.specifier.contains, pins)), f"{pins}; run `make requirements`"


def test_requirements_are_exact_public_versions_and_conda_installs_the_same():
    for line, pin in zip(LINES, PINNED, strict=True):
        assert re.fullmatch(r"==[^,*+]+", str(pin.specifier)) and "://" not in line, line
        assert not pin.name.startswith(("nvidia-", "cuda-", "triton")), f"{line}: torch brings what it needs of CUDA"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.txt", "-e ."]} in conda and f"python{PROJECT['requires-python']}" in conda


@pytest.mark.parametrize("target", ["study", "verify", "report", "test", "lint"])
def test_every_command_makes_the_environment_first_and_finds_it_there_the_second_time(target, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert "-r requirements.txt" in subprocess.check_output(["make", "-n", target], cwd=tmp_path, text=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    again = subprocess.check_output(["make", "-n", target], cwd=tmp_path, text=True)
    assert "requirements.txt" not in again and ".venv/bin/" in again
