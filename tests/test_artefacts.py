"""A study opened: folders, artefacts that are made once, and choices that are never made on what is measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.files import write_atomic
from ssr_lib.rerank import first_ranking, gfr
from ssr_lib.study import artefacts, choose, describe
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile

TINY = str(Path(__file__).parent / "profiles" / "tiny.yaml")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(TINY, tmp_path_factory.mktemp("workspace"), progress=False)


def test_changes_go_to_a_folder_of_their_own(tmp_path):
    plain, changed = Study("smoke", tmp_path), Study("smoke", tmp_path, '{"training.steps": 7}')
    assert plain.results_dir == tmp_path / "results" / "smoke" and plain.cache == changed.cache
    assert changed.name.startswith("custom-") and changed.profile.training.steps == 7
    (tmp_path / "smoke.yaml").write_text("base: smoke\ntraining: {steps: 7}\n")
    assert Study(f"{tmp_path}/smoke.yaml", tmp_path).name.startswith("custom-"), "another profile of that name"
    same = {"training.rate": f"{plain.profile.training.rate:e}"}
    assert Study("smoke", tmp_path, same).name == "smoke", "a change that changes nothing; YAML takes 4e-3 for text"


def test_whatever_makes_a_network_is_in_its_record(tmp_path):
    def record(name="plain", seed=0, changes=None):
        return json.dumps(describe.network_record(load_profile("smoke", changes), name, seed), sort_keys=True)

    changed = [{"training.steps": 9}, {"training.loss_options.margin": 0.3}, {"data.training.seed": 8}]
    changed += [{"model.descriptor_dim": 16}, {"training.start": "random"}]
    changed += [{"training.protocol": "end_to_end"}, {"training.share": 0.5}, {"networks.plain.initialisation": 1}]
    records = [record(), record(seed=1), record("conv"), *(record(changes=change) for change in changed)]
    for code in ("", "1"):  # of a head inside another
        (tmp_path / "mine.py").write_text(code)
        records.append(record(changes={"networks.plain.options": {"of": str(tmp_path / "mine.py")}}))
    assert len(set(records)) == len(records)
    assert record(changes={"data.test.seed": 9, "sweeps.k": [4], "title": "x"}) == record(), "and nothing else"


def test_networks_are_trained_once_and_descriptors_made_once(study, monkeypatch):
    queries, database = study.descriptors("plain", 1)
    assert queries.shape == (3, 8) and database.dtype == np.float32
    assert json.loads(study.store("maps", {"a": 1}).with_suffix(".json").read_text()) == {"a": 1}
    curve = study.learning_curve("plain", 1)
    assert curve["step"].tolist() == [1, 2] and np.isfinite(curve["loss"]).all()
    for module, function in ((artefacts, "train_head"), (describe, "describe_maps")):
        monkeypatch.setattr(module, function, lambda *a, **k: pytest.fail("made again"))
    again = Study(TINY, study.workspace, progress=False).descriptors("plain", 1)
    assert all(np.array_equal(a, b) for a, b in zip(again, (queries, database), strict=True))


def test_a_seed_has_its_own_landmarks_the_same_for_every_network(study):
    labels = np.asarray(study.training_views().labels)
    shares = [set(labels[study.share(labels, seed)]) for seed in (0, 1)]
    assert shares[0] != shares[1] and {len(share) for share in shares} == {round(0.8 * len(set(labels)))}
    assert study.recipe("plain", 1).seed == 1 and study.recipe("plain", 1).lr_new == study.spec("plain").rate


def test_names_and_seeds_that_are_not_there_are_refused_with_those_that_are(study):
    for ask, refusal in (
        (lambda: study.spec("plan"), "no 'plan' in networks of the profile; it has untrained; "),
        (lambda: study.benchmark("oxford"), r"no 'oxford' in data\.labels of the profile; it has none"),
        (lambda: study.network("plain", 5), r"network 'plain' has no training 5; its seeds are \[0, 1\]"),
        (lambda: study.training_views("photographs"), "None is not in .*data/README"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=refusal):
            ask()


def test_choices_are_made_on_validation_once_and_every_trial_is_kept(study):
    chosen = study.choices()
    assert list(chosen) == ["none", "AQE", "SuperGlobal", "GFR"]
    queries, database = study.descriptors("plain", 0, split="validation")
    truth, values = study.benchmark(split="validation"), {}
    for k in (1, 2, 5):
        ranks = gfr.rerank(queries, database, first_ranking(queries, database), k=k, alpha=0.5).ranks
        values[k] = metrics.evaluate(ranks, truth).map["medium"]
    trials = [trial["mAP"] for trial in choose.record(study, "drawn")["trials"] if trial["reranker"] == "GFR"]
    assert trials == pytest.approx(list(values.values()))
    assert chosen["GFR"] == {"k": max(values, key=values.get), "alpha": 0.5} and "shortlist" in chosen["SuperGlobal"]
    path = study.results_dir / "choices.json"
    path.write_text(path.read_text().replace('"alpha": 0.5', '"alpha": 0.25'))
    again = Study(TINY, study.workspace, progress=False)
    assert again.choices()["GFR"]["alpha"] == 0.25, "read, not chosen again"
    path.write_text(path.read_text().replace('"tried": "', '"tried": "0'))
    assert Study(TINY, study.workspace, progress=False).choices() == chosen, "other things were tried"


def test_what_a_notebook_made_before_and_not_now_is_removed(tmp_path):
    for names in (["a", "b"], ["a"]):
        study = Study("smoke", tmp_path, notebook="05_ablation")
        for name in names:
            study.write_table(name, pd.DataFrame({"mAP": [1 / 3]}), "photos")
            for suffix in (".png", ".svg"):
                study.figure(f"{name}.png").with_suffix(suffix).write_text("")  # its folder is there
        study.write_rows(None, pd.DataFrame({"measure": ["ms"], "value": [1.0]}))
    assert {path.name for path in study.results_dir.glob("[tf]*/*")} == {"a_photos.csv", "a.png", "a.svg"}


def test_candidates_are_averaged_over_the_same_data_sets():
    """k = 10 fits one of two databases: left out for both, not averaged over the one."""
    asked, rng = [], np.random.default_rng(0)
    for count in (4, 20):
        images, none = [f"{i}.jpg" for i in range(count)], [[], []]
        truth = Benchmark("a", ".", images, ["q0.jpg", "q1.jpg"], [[0], [1]], none, none)
        queries, database = (rng.standard_normal((size, 8)).astype(np.float32) for size in (2, count))
        asked.append((queries, database, first_ranking(queries, database), truth))

    def tried(*ks):
        profile = load_profile("smoke", {"rerankers.GFR.candidates": {"k": ks, "alpha": [1.0]}})
        return choose.tried_by(SimpleNamespace(profile=profile, reranker=lambda name: gfr), "GFR", asked)

    assert [trial["parameters"]["k"] for trial in tried(1, 3, 10)] == [1, 3]
    with pytest.raises(ValueError, match=r"every k of .*GFR\.candidates is above the smallest database, 4 images"):
        tried(4, 10)


def test_another_profiles_choice_has_to_be_there(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "repository_root", lambda: tmp_path)
    study = Study("smoke", tmp_path / "workspace", {"data.choices_from": "demo"})
    with pytest.raises(ValueError, match=r"choices\.json holds no choice .*; run `ssr study --profile demo`"):
        choose.record(study, "a")
    for k, place in ((2, tmp_path), (3, study.workspace)):  # the repository's, then the workspace's own
        chosen = {"drawn": {"chosen": {"GFR": {"k": k}}, "trials": []}}
        write_atomic(place / "results" / "demo" / "choices.json", json.dumps(chosen))
        assert choose.record(study, "a")["chosen"]["GFR"] == {"k": k}
