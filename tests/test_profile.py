"""Profiles: differences of one base, checked at the door; every refusal names the key and what is legal."""

import itertools

import pytest

from ssr_lib.study import profile as profiles
from ssr_lib.study import provenance
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import check_parts, load_profile

PROFILES = provenance.repository_root() / "profiles"
PART = "from torch import nn\nclass {}(nn.Module):\n    def __init__(self, {}): super().__init__()\n"
HEAD, LOSS = PART.format("Head", "channels, *, seed=0"), PART.format("Loss", "width, classes")


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_is_whole_and_gives_every_reranker_the_same_number_of_trials(name):
    profile = load_profile(name)
    check_parts(profile)
    trials = {line: len(list(itertools.product(*spec.candidates.values()))) for line, spec in profile.rerankers.items()}
    assert trials.pop("none") == 1 and len(set(trials.values())) == 1, trials
    seeds = [profile.data.training.seed, profile.data.validation.seed, profile.data.test.seed]
    assert len(set(seeds)) == 3, "nothing is chosen or trained on test landmarks"


def test_each_profile_that_trains_on_drawn_landmarks_has_test_landmarks_of_its_own():
    assert len({load_profile(name).data.test.seed for name in ("smoke", "demo", "full", "end_to_end")}) == 4


def test_a_profile_holds_differences_of_the_one_it_starts_from_and_what_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "repository_root", lambda: tmp_path)
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "base.yaml").write_bytes((PROFILES / "base.yaml").read_bytes())
    (folder / "a.yaml").write_text("base: base\ntitle: A\ntraining: {steps: 7}\nnetworks: {mine: {head: plain}}\n")
    changed = "networks: {mine: null}\ntraining: {loss_options: {base: null, scale: 3.0}}\n"
    (folder / "b.yaml").write_text("base: a\n" + changed)
    profile = load_profile("b")
    assert (profile.title, profile.training.steps) == ("A", 7)
    assert "mine" in load_profile("a").networks and "mine" not in profile.networks, "a mapping that is null goes"
    assert profile.training.loss_options == {"scale": 3.0}, "base: null starts empty"
    refusals = {"base: [": r"mine\.yaml is no YAML with keys", "title: alone": "profile mine: source is missing; "}
    refusals["base: dmeo"] = "no profile 'dmeo' to start from; there are a, b, base, mine, and any file"
    for text, refusal in refusals.items():
        (folder / "mine.yaml").write_text(text)
        with pytest.raises(ValueError, match=refusal):
            load_profile("mine")


def test_a_network_is_like_another_but_for_what_its_line_says():
    profile = load_profile("smoke", {"networks.product.options.window": 5})
    again, product = profile.spec("product, again"), profile.spec("product")
    assert again.options == product.options and again.options["window"] == 5
    assert (again.initialisation, product.initialisation, again.steps) == (1, 0, profile.training.steps)
    assert profile.spec("untrained").seeds == [None] and profile.spec("untrained").backbone == profile.model.backbone


@pytest.mark.parametrize("changes,refusal", [
    ({"training.stps": 3}, r"there is no training\.stps; profiles/base\.yaml has every key"),
    ({"tables.mian": ["plain"]}, r"tables\.mian.* is 'mian'; wanted 'main', .*'drawings'"),
    ({"training.steps": 0}, r"training\.steps is 0; wanted greater than or equal to 1"),
    ({"training.seeds": [0, 0]}, r"seeds is \[0, 0\]; wanted each once"),
    ({"source": "photographs"}, r"source is photographs and data\.datasets has 'drawn', which data\.labels has no"),
    ({"source": "revisited", "data.datasets": []}, r"networks\.plain\.checkpoint is null, and .* does not train"),
    ("{", "Expecting property name"), ({"training.steps": True}, r"training\.steps is True; wanted a valid integer"),
    ({"networks.product.options.windw": 5}, r"networks\.product\.head product, see .*it has no option windw; it has "),
    ({"networks.plain.head": "plane"}, r"networks\.plain\.head plane, see .*no part 'plane' in heads; there are .*plain"),
    ({"training.loss_options.margn": 1.0}, r"training\.loss arcface, see .*it has no option margn; it has margin"),
    ({"rerankers.GFR.candidates.kk": [1]}, r"rerankers\.GFR\.module gfr, see .*: TypeError: .*unexpected .*'kk'"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(changes, refusal):
    with pytest.raises(ValueError, match=refusal) as caught:
        check_parts(load_profile("smoke", changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place,text,refusal", [
    ("networks.structural.head", "class Hed: pass", "heads/__init__.py: .* no attribute 'Head'"),
    ("networks.structural.head", HEAD + "    def forward(self, last, project): pass", "TypeError: too many "),
    ("training.loss", LOSS, "losses/__init__.py: TypeError: .*'seed'"),
    ("rerankers.mine.module", "def rank(): pass", "rerank/__init__.py: .* no attribute 'rerank'"),
])  # fmt: skip
def test_a_file_that_is_no_part_is_refused_with_its_key_and_what_is_wanted(place, text, refusal, tmp_path):
    file = tmp_path / "part.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"{place} {file}, see .*{refusal}") as caught:
        Study("smoke", tmp_path, {place: str(file), "training.loss_options": {"base": None}})
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [file], "before anything is drawn"


def test_a_library_installed_without_the_repository_works_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "ssr_lib" / "study" / "provenance.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSR_DATA", raising=False)
    assert provenance.repository_root() == tmp_path and provenance.data_folder() == tmp_path / "data"
    with pytest.raises(ValueError, match=rf"there are none in {tmp_path}/profiles \(run in a clone\)"):
        load_profile("demo")
