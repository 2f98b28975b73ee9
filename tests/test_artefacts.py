"""A profile opens into parameters, folders and models; changes never reach committed results."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssr_lib.study.artefacts import Study
from ssr_lib.study.comparisons import seeds_of
from ssr_lib.study.profile import data_file, load_profile, override
from ssr_lib.study.provenance import repository_root

PROFILES = sorted(path.stem for path in (repository_root() / "profiles").glob("*.yaml"))


def keys(parameters, prefix=""):
    """Dotted names of all parameters; what lies under these is free."""
    free = ("rerank.candidates", "rerank.fixed", "data.labels", "model.checkpoints", "comparison.ablation.rows")
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, dict) and name not in free:
            yield from keys(value, f"{name}.")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_the_same_keys(name):
    wanted, found = set(keys(load_profile("demo"))), set(keys(load_profile(name)))
    assert found == wanted, f"missing {sorted(wanted - found)}, unknown {sorted(found - wanted)}"


@pytest.mark.parametrize("name", PROFILES)
def test_every_re_ranker_gets_the_same_number_of_trials(name):
    trials = {
        m: int(np.prod([len(v) for v in c.values()])) for m, c in load_profile(name)["rerank"]["candidates"].items()
    }
    assert len(set(trials.values())) == 1, trials


def test_no_profile_shares_seeds_between_training_validation_and_test():
    seeds = {name: load_profile(name)["data"] for name in PROFILES}
    for data in seeds.values():
        assert len({data[split]["seed"] for split in ("training", "validation", "test")}) == 3
    tested = seeds["demo"]["test"]["seed"]
    assert seeds["smoke"]["test"]["seed"] != tested, "the smallest profile must not touch the test landmarks"


def test_an_unknown_profile_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no profile 'dmeo'; there are .*demo"):
        load_profile("dmeo")


def test_a_change_goes_to_a_folder_of_its_own(tmp_path):
    plain, changed = Study("smoke", tmp_path), Study("smoke", tmp_path, {"training.steps": 7, "model.window": None})
    assert plain.results_dir == tmp_path / "results" / "smoke"
    assert changed.results_dir.name.startswith("custom-") and changed["training.steps"] == 7
    assert changed["model.window"] == plain["model.window"], "None leaves the profile's value"
    assert Study("smoke", tmp_path, {"training.steps": plain["training.steps"]}).results_dir == plain.results_dir


def test_networks_on_re_skinned_views_have_steps_of_their_own(tmp_path):
    study = Study("smoke", tmp_path)
    ordinary, reskinned = (study.model("neighbour", regime=regime).steps for regime in ("ordinary", "reskinned"))
    assert (ordinary, reskinned) == (
        study["training.steps"],
        study["training.reskinned_steps"],
    ) and ordinary < reskinned
    as_many = Study("smoke", tmp_path, {"training.steps": 5} | {"training.reskinned_steps": 0})
    assert as_many.model("neighbour", regime="reskinned").steps == 5, "none of their own: as many as the others"


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(ValueError, match=r"no parameter 'training\.step'; training has .*steps"):
        override(load_profile("smoke"), {"training.step": 3})
    for wrong in ("traning.steps", "training.steps.x"):
        with pytest.raises(ValueError, match=f"no parameter '{wrong}'"):
            override(load_profile("smoke"), {wrong: 3})


def test_a_value_of_another_kind_is_refused_and_a_number_that_yaml_takes_for_text_is_one():
    smoke = load_profile("smoke")
    rate = override(smoke, {"training.learning_rates.plain": "1e-3"})["training"]["learning_rates"]["plain"]
    assert rate == 0.001
    steps = override(smoke, {"training.steps": "1e2"})["training"]["steps"]
    assert steps == 100 and isinstance(steps, int)
    assert override(smoke, {"training.reskinned_steps": None, "data.distractors": "revisitop1m"})["data"]["distractors"]
    for name, value, wanted in (
        ("training.steps", "many", "a whole number"),
        ("training.steps", "1e-2", "a whole number"),
        ("training.steps", True, "a whole number"),
        ("training.margin", "nan", "a number"),
        ("comparison.seeds", 3, "a list"),
        ("rerank.fixed", [1], "a mapping"),
        ("title", 7, "text"),
    ):
        with pytest.raises(ValueError, match=f"{name} is .*; wanted {wanted}, such as"):
            override(smoke, {name: value})


def test_a_profile_without_steps_is_refused(tmp_path, monkeypatch):
    study = Study("smoke", tmp_path, {"training.steps": 0})
    monkeypatch.setattr(study, "training_set", lambda regime: SimpleNamespace(root=tmp_path, files=[], labels=[]))
    monkeypatch.setattr(study, "_maps", lambda *a, **k: np.zeros((4, 112, 2, 2), np.float16))
    with pytest.raises(ValueError, match="steps 0"):
        study.network(study.model("plain"))


def test_models_are_named_by_everything_that_makes_them(tmp_path):
    study = Study("smoke", tmp_path)
    model = study.model("self-similarity", 1, window=5)
    assert model.window == 5 and model.seed == 1 and model.params()["window"] == 5
    assert "window" not in study.model("plain").params(), "plain has no module"
    assert study.model("untrained", 3).seed is None
    names = {
        study._folder_name(m) for m in (model, study.model("self-similarity", 2, window=5), study.model("plain", 1))
    }
    assert len(names) == 3
    with pytest.raises(ValueError, match="no variant 'convolution'"):
        study.model("convolution")


def test_checkpoints_of_several_trainings_are_named_by_their_seed(tmp_path):
    changes = {
        "model.checkpoints": {"resnet50": {"plain": "trained/plain_{seed}", "self-similarity": "trained/one"}},
        "comparison.seeds": [0, 2],
    }
    study = Study("paper", tmp_path, changes)
    models = seeds_of(study, "plain")
    assert [model.weights for model in models] == ["trained/plain_0.safetensors", "trained/plain_2.safetensors"]
    assert [model.seed for model in models] == [0, 2] and len({str(model.params()) for model in models}) == 1
    with pytest.raises(ValueError, match=r"trained/one is one network; wanted \[null\], or \{seed\}"):
        seeds_of(study, "self-similarity")
    with pytest.raises(ValueError, match=r"plain_\{seed\} is one network for each seed; .* not null"):
        study.model("plain", None)


def test_pictures_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"labels\.csv is not there; .*SSR_DATA"):
        data_file("photos/labels.csv")
