"""What describes the environment says the same, the Makefile's targets make it first; README says what is true."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from ssr_lib.commands.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = [Requirement(line) for line in LINES]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_dependency_is_pinned_at_a_version_that_the_project_accepts(wanted):
    pins = [pin for pin in PINNED if pin.name == wanted.name]
    assert pins, f"{wanted.name} is not in requirements.txt; run `make requirements`"
    for pin in pins:
        assert wanted.specifier.contains(str(pin.specifier).removeprefix("==")), f"{pin} is not {wanted}"


@pytest.mark.parametrize("version", ["3.11.0", "3.11.9", "3.12.4", "3.13.1"])
@pytest.mark.parametrize("system", [("Linux", "linux", "x86_64"), ("Darwin", "darwin", "arm64")])
def test_requirements_pin_each_package_once_on_every_machine(system, version):
    environment = dict(zip(("platform_system", "sys_platform", "platform_machine"), system, strict=True))
    environment |= {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    environment |= {"os_name": "posix", "implementation_name": "cpython"}
    names = [pin.name for pin in PINNED if pin.marker is None or pin.marker.evaluate(environment)]
    assert sorted(names) == sorted(set(names)) and {"torch", "torchvision", "pytest"} <= set(names)


def test_requirements_are_plain_pins_without_hosts_or_packages_of_one_platform_only():
    for line, pin in zip(LINES, PINNED, strict=True):
        assert re.fullmatch(r"==[^,*+]+", str(pin.specifier)), f"{line}: wanted one exact public version"
        assert "://" not in line and not line.startswith("-")
        assert not pin.name.startswith(("nvidia-", "cuda-", "triton")), f"{line}: torch brings what it needs of CUDA"


def test_conda_installs_the_same_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_the_project_installs_its_command():
    assert PROJECT["scripts"] == {"ssr": "ssr_lib.commands.main:main"}
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tools["packages"]["find"]["include"] == ["ssr_lib*", "drawn_landmarks*", "recipes*"]
    for package, files in tools["package-data"].items():
        assert all((ROOT / package.replace(".", "/") / name).is_file() for name in files)


def test_help_is_the_default_and_names_every_target():
    text = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split()
    assert "study" in targets and not [target for target in targets if not re.search(rf"\b{target}\b", text)]


@pytest.mark.parametrize("target", ["study", "verify", "report", "test", "lint"])
def test_every_command_makes_the_environment_first_and_finds_it_there_the_second_time(target, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())

    def plan() -> str:
        return subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "-r requirements.txt" in plan()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    assert "requirements.txt" not in plan() and ".venv/bin/" in plan()


def test_the_table_is_the_committed_one():
    table = README.split("<!-- results/demo/tables/main.csv -->\n")[1].split("\n<!-- end -->")[0]
    header, _, *lines = table.splitlines()
    shown = [",".join(cell.strip() for cell in line.strip("|").split("|")) for line in (header, *lines)]
    assert shown == (ROOT / "results/demo/tables/main.csv").read_text(encoding="utf-8").splitlines()


def test_links_lead_somewhere():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)]
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_commands_parse():
    commands = [line.partition("#")[0].replace("&& .venv/bin/ssr", "\nssr") for line in README.splitlines()]
    lines = [line.strip() for text in commands for line in text.split("\n")]
    called = [line.removeprefix(".venv/bin/") for line in lines if line.removeprefix(".venv/bin/").startswith("ssr ")]
    assert len(called) >= 5
    for line in called:
        assert build_parser().parse_args(line.split()[1:]).command == line.split()[1]


def test_every_change_has_its_date():
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings and all(re.match(r"20\d\d-\d\d-\d\d: ", heading) for heading in headings)
