"""Profiles: differences of one base, checked at the door; every refusal names the key and what is legal."""

import itertools

import pytest

from ssr_lib.study import checks, provenance
from ssr_lib.study import profile as profiles
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile

NAMES = sorted(path.stem for path in (provenance.repository_root() / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_whole_and_its_parts_and_notebooks_have_what_they_need(name):
    profile = load_profile(name)
    checks.check_parts(profile)
    checks.check_notebooks(profile, profile.notebooks)
    trials = {line: len(list(itertools.product(*spec.candidates.values()))) for line, spec in profile.rerankers.items()}
    trials.pop("none")
    assert len(set(trials.values())) == 1, f"every re-ranker gets the same number of trials: {trials}"
    seeds = [profile.data.training.seed, profile.data.validation.seed, profile.data.test.seed]
    assert len(set(seeds)) == 3, "nothing is chosen or trained on test landmarks"


def test_the_smallest_profile_does_not_touch_the_test_landmarks_of_the_others():
    assert load_profile("smoke").data.test.seed not in [load_profile(name).data.test.seed for name in ("demo", "full")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository with the base profile and room for others."""
    (tmp_path / "profiles").mkdir()
    base = provenance.repository_root() / "profiles" / "base.yaml"
    (tmp_path / "profiles" / "base.yaml").write_bytes(base.read_bytes())
    monkeypatch.setattr(profiles, "repository_root", lambda: tmp_path)
    return tmp_path / "profiles"


def test_a_profile_holds_differences_of_the_one_it_starts_from(folder):
    (folder / "a.yaml").write_text("base: base\ntitle: A\ntraining: {steps: 7}\nnetworks: {conv: null}\n")
    (folder / "b.yaml").write_text("base: a\ntraining: {rate: 0.5, loss_options: {base: null, scale: 3.0}}\n")
    base, profile = load_profile("base"), load_profile("b")
    assert (profile.title, profile.training.steps, profile.training.rate) == ("A", 7, 0.5)
    assert profile.training.batch_size == base.training.batch_size
    assert "conv" in base.networks and "conv" not in profile.networks, "a mapping that is null goes"
    assert profile.training.loss_options == {"scale": 3.0}, "base: null starts empty"


def test_a_network_is_like_another_but_for_what_its_line_says():
    profile = load_profile("smoke", {"networks.product.options.window": 5})
    last = profile.spec("place last")
    assert last.options == profile.spec("product").options | {"place": "last"}
    assert last.options["window"] == 5 and last.seeds == [0] and last.steps == profile.training.steps
    assert profile.spec("untrained").seeds == [None] and profile.spec("untrained").backbone == profile.model.backbone


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"training.stps": 3}, r"there is no training\.stps; there are loss, .*steps"),
        ({"trainng.steps": 3}, "there is no trainng; there are title, .*training"),
        ({"networks.plain.had": "x"}, r"there is no networks\.plain\.had; there are head, options"),
        ({"tables.mian": ["plain"]}, r"there is no tables\.mian; there are main, restyled, .*drawings"),
        ({"reads.05_x": ["data/*"]}, r"there is no reads\.05_x; there are 00_quickstart, .*11_claims"),
        ({"training.steps": True}, r"training\.steps is True; wanted a number"),
        ({"training.steps": 0}, r"training\.steps is 0; wanted greater than or equal to 1"),
        ({"training.rate": "nan"}, r"training\.rate is 'nan'; wanted a finite number"),
        ({"training.seeds": [0, 0]}, r"seeds is \[0, 0\]; wanted numbers, each once"),
        ({"networks.untrained.seeds": [1]}, r"networks\.untrained\.seeds is \[1\]; wanted \[null\]"),
        ({"networks.plain.steps": 0, "training.start": "random"}, r"networks\.plain\.steps is 0, which wants"),
        ({"networks.mine": {"like": "nothing"}}, r"networks\.mine\.like is 'nothing'; wanted another line of networks"),
        ({"networks.mine": {"like": "mine"}}, r"networks\.mine\.like is 'mine'; wanted another"),
        ({"tables.main": ["mine"]}, r"tables\.main has 'mine'; wanted lines of networks: untrained; "),
        ({"rerankers.GFR.candidates.k": [400, 356]}, r"GFR\.candidates\.k is \[400, 356\]; .* has 356 images at most"),
        ({"data.validation.views": [3]}, r"data\.validation\.views\.1 is missing"),
        ({"source": "photographs"}, r"source is photographs and data\.datasets has 'drawn', which data\.labels has no"),
        ({"data.datasets": ["oxford"]}, r"data\.datasets has 'oxford', which data\.labels has no file of"),
        ({"networks.plain.views": "photographs"}, r"plain\.views is photographs, .* data\.training_labels; it is null"),
        (
            {"source": "revisited", "data.datasets": ["a"], "data.labels": {"a": "a.csv"}},
            r"networks\.plain\.checkpoint is null, and a profile of source revisited does not train",
        ),
        ({"title": 7}, "title is 7; wanted a valid string"),
        ("{", "changes is '{'; wanted dotted keys with values"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, refusal):
    with pytest.raises(ValueError, match=refusal) as caught:
        load_profile("smoke", changes)
    assert "\n" not in str(caught.value)


WORKS = """
from torch import nn
class Head(nn.Module):
    def __init__(self, channels, *, seed=0):
        super().__init__()
        self.width = channels[2]
    def forward(self, mid, last, project):
        return project(last).mean((2, 3))
"""
LOSS = "from torch import nn\nclass Loss(nn.Module):\n    per_class = None\n"
NETWORK, LOSS_FILE, RERANKER = "networks.plain.head", "training.loss", "rerankers.mine.module"


@pytest.mark.parametrize(
    ("place", "text", "refusal"),
    [
        (NETWORK, "class Hed: pass", "AttributeError: .* no attribute 'Head'; wanted a class Head"),
        (NETWORK, WORKS.replace("self.width", "self.size"), "no attribute 'width'; wanted a class Head"),
        (NETWORK, WORKS.replace("mid, last, project", "last"), r"TypeError: too many .*forward\(mid, last, project\)"),
        (NETWORK, "def Head(:", "SyntaxError: .*wanted a class Head"),
        (LOSS_FILE, "", "no attribute 'Loss'; wanted a class Loss"),
        (LOSS_FILE, LOSS + "    def __init__(self, width): pass", r"TypeError: .*wanted a class Loss\(width, classes"),
        (LOSS_FILE, LOSS + "    def __init__(self, width, classes): pass", "TypeError: .*'seed'; wanted a class Loss"),
        (LOSS_FILE, LOSS + "    def __init__(self, *_, seed): super().__init__()\n    def forward(self, x): pass",
         r"TypeError: too many .*forward\(descriptors, labels\)"),
        (RERANKER, "def rank(): pass", "no attribute 'rerank'; wanted rerank"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_part_is_refused_with_its_key_and_what_is_wanted(place, text, refusal, tmp_path):
    file = tmp_path / "part.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"{place} {file}: .*{refusal}") as caught:
        Study("smoke", tmp_path, {place: str(file), "training.loss_options": {"base": None}})
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"networks.product.options.windw": 5}, r"networks\.product\.head product: it has no option windw; it has "),
        ({"networks.plain.head": "plane"}, r"networks\.plain\.head plane: no part 'plane' in heads; there are .*plain"),
        ({"training.loss": "arcfase"}, "no part 'arcfase' in losses; there are arcface"),
        ({"training.loss_options.margn": 1.0}, r"training\.loss arcface: it has no option margn; it has margin"),
        ({"rerankers.GFR.module": "grf"}, "no part 'grf' in rerank; there are .*gfr"),
        ({"rerankers.GFR.candidates.kk": [1]}, r"rerankers\.GFR\.module gfr: TypeError: .*unexpected .*'kk'; wanted"),
        ({"rerankers.AQE.candidates": {"base": None}}, r"rerankers\.AQE\.module aqe: TypeError: .*missing .*'k'"),
    ],
)
def test_a_part_that_is_not_there_or_does_not_take_its_options_is_refused(changes, refusal, tmp_path):
    with pytest.raises(ValueError, match=refusal):
        Study("smoke", tmp_path, changes)
    assert not list(tmp_path.iterdir()), "before anything is drawn"


def test_files_of_parts_are_found_from_the_folder_of_the_profile(tmp_path):
    (tmp_path / "mine.py").write_text(WORKS)
    (tmp_path / "mine.yaml").write_text("base: smoke\nnetworks: {mine: {head: mine.py}}\n")
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert profile.networks["mine"].head == str(tmp_path / "mine.py")
    checks.check_parts(profile)


@pytest.mark.parametrize(
    ("changes", "notebook", "refusal"),
    [
        ({"tables.main": ["plain"]}, "05_ablation", r"05_ablation needs product in tables\.main of the profile"),
        ({"rerankers.αQE + DBA": None}, "06_rerank", r"06_rerank needs αQE \+ DBA in rerankers of the profile"),
        ({}, "06_rernak", r"no notebook 06_rernak in notebooks/; there are 00_quickstart, .*06_rerank"),
    ],
)
def test_a_notebook_without_what_it_needs_is_refused(changes, notebook, refusal):
    with pytest.raises(ValueError, match=refusal):
        checks.check_notebooks(load_profile("smoke", changes), [notebook])


def test_changes_may_be_json_text_as_papermill_hands_them_on():
    assert load_profile("smoke", '{"training.steps": 50, "training.seeds": [4]}').training.steps == 50
    assert load_profile("smoke", {"training.rate": "1e-3"}).training.rate == 0.001, "YAML takes 1e-3 for text"
    assert load_profile("smoke", {"extraction.size": None}).extraction.size is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("base: [", "mine.yaml is not YAML"),
        ("- 1", r"mine.yaml holds \[1\]; wanted keys of profiles/base.yaml"),
        ("base: mine", "no profile 'mine' to start from"),
        ("base: dmeo", "no profile 'dmeo' to start from; there are .*base, .*mine"),
        ("title: alone", "profile mine: source is missing; .* comes from the one that it names, as in `base: base`"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(text, refusal, folder):
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=refusal):
        load_profile("mine")


def test_a_library_installed_without_the_repository_works_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "site-packages" / "ssr_lib" / "study").mkdir(parents=True)
    installed = tmp_path / "site-packages" / "ssr_lib" / "study" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSR_DATA", raising=False)
    assert provenance.repository_root() == tmp_path and provenance.data_folder() == tmp_path / "data"
    with pytest.raises(ValueError, match=rf"there are none in {tmp_path}/profiles \(run in a clone\)"):
        load_profile("demo")
