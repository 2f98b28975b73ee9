"""The notebooks of the profile `paper`, end to end on two revisited benchmarks in miniature: nothing but data and sizes changes."""

import json

import miniature
import numpy as np
import pandas as pd
import pytest
from kernels import execute_here
from ssr_lib.study.run.run import artefacts, published
from ssr_lib.study.run.run import run as study

from drawn_landmarks import SyntheticSpec, draw_benchmark
from ssr_lib.commands.main import main
from ssr_lib.datasets import revisited
from ssr_lib.datasets.folder import read_labels
from ssr_lib.study.artefacts import Study
from ssr_lib.study.profile import load_profile

NAMES = ("roxford5k", "rparis6k")  # their names, so that every table is made; admitted for these tests only
PREPARED = load_profile("paper")["sweeps"]["preprocess"]["changes"]
METHODS = load_profile("paper")["rerank"]["candidates"]


def pictures(tmp_path_factory, request):
    """Real photographs where there are any, else drawn ones; both as a Benchmark whose queries stand apart."""
    try:
        return read_labels(request.getfixturevalue("extra_data") / "photos" / "holidays" / "labels.csv")
    except pytest.skip.Exception:
        spec = SyntheticSpec("town", 5, landmarks=24, fixed_views=5, twins=0, doubles=0, distractors=12, size=128)
        return draw_benchmark(spec, tmp_path_factory.mktemp("town"), progress=False)["ordinary"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, request):
    """A data folder with both benchmarks, distractors and checkpoints; and the changes to the profile."""
    folder, benchmark = tmp_path_factory.mktemp("data"), pictures(tmp_path_factory, request)
    counts = {g: len(e) + len(h) for g, e, h in zip(benchmark.groups, benchmark.easy, benchmark.hard, strict=True)}
    groups = sorted(counts, key=lambda g: (-counts[g], g))[:16]
    others = [q for q, g in zip(benchmark.queries, benchmark.groups, strict=True) if g not in groups]
    behind = [*others, *benchmark.database[-12:]][:12]
    admitted = tuple(miniature.build(folder, name, benchmark, groups[i::2], behind) for i, name in enumerate(NAMES))
    changes = {
        "data.datasets": list(NAMES),
        "data.labels": {name: f"{name}/gnd_{name}.pkl" for name in NAMES},
        "data.distractors": "revisitop1m",
        "model.backbone": "resnet18",
        "model.other_backbones": ["resnet10t"],
        "model.checkpoints": miniature.checkpoints(folder),
        "extraction.size": 80,
        "extraction.device": "cpu",
        "rerank.candidates": {m: {key: values[: 4 // len(c)] for key, values in c.items()} for m, c in METHODS.items()},
        "rerank.local": {"queries": 3, "shortlist": 5},
        "sweeps.k": [1, 3],
        "sweeps.alpha": [0.25, 0.5],
        "sweeps.shortlist": [10],
        "sweeps.rounds": [1, 2],
        "sweeps.database": [100, 200],
        "model.descriptor_dim": 64,
        "sweeps.preprocess": {"images": 20, "changes": [c | ({"size": 64} if "size" in c else {}) for c in PREPARED]},
        "statistics.resamples": 200,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisited, "OFFICIAL", admitted)
        patch.setattr(published, "N_DISTRACTORS", 12)
        yield folder, changes


@pytest.fixture(scope="module")
def opened(data, tmp_path_factory):
    """The profile run on them, opened."""
    folder, changes = data
    workspace = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(folder))
        patch.setattr(study, "execute", execute_here)
        measured = [name for name in load_profile("paper")["notebooks"] if name[:2] not in ("01", "02")]
        study.run("paper", workspace=workspace, notebooks=measured, progress=False, **changes)
        yield Study("paper", workspace, changes, progress=False)


def test_every_table_is_made_for_both_benchmarks(opened):
    tables = {path.stem for path in (opened.results_dir / "tables").glob("*.csv")}
    for name in ("main", "backbones", "rerank", "claims", "k_alpha", "rerank_options", "distractors", "preprocess"):
        assert {f"{name}_{dataset}" for dataset in NAMES} <= tables, name
    assert (opened.results_dir / "report.html").is_file()


def test_measured_figures_stand_beside_published_ones_with_their_conditions(opened):
    table = pd.read_csv(opened.results_dir / "tables" / "comparison_medium.csv")
    ours = table[table["kind"] == "measured here"]
    assert set(ours["backbone"]) == {"ResNet18", "ResNet10t"} and set(ours["train_set"]) == {"GLDv2-clean"}
    assert set(ours["dim"]) == {64} and {"none", "ours", "SuperGlobal"} <= set(ours["rerank"])
    assert ours["roxford5k + 1M"].notna().any() and ours[list(NAMES)].notna().all(axis=1).any()


def test_a_set_under_a_published_name_that_is_not_the_published_one_is_refused(data, tmp_path, monkeypatch):
    folder, changes = data
    monkeypatch.setenv("SSR_DATA", str(folder))
    monkeypatch.setattr(revisited, "OFFICIAL", ())
    monkeypatch.setattr(artefacts, "OFFICIAL", (revisited.Official(NAMES[0], 1, ""),))
    with pytest.raises(ValueError, match=r"not the published .* a dataset that has another name"):
        Study("paper", tmp_path, changes).benchmark(NAMES[0])


def test_nothing_is_trained_and_nothing_drawn(opened):
    assert not (opened.cache / "models").exists() and not (opened.cache / "drawn").exists()


def test_the_figure_is_the_one_that_the_command_line_measures(opened, data, capsys):
    folder, changes = data
    name, weights = NAMES[0], folder / changes["model.checkpoints"]["resnet18"]["plain"]
    command = ["evaluate", "--ground-truth", str(folder / name / f"gnd_{name}.pkl"), "--images", str(folder / name)]
    assert main([*command, "--model", f"{weights}.safetensors", "--size", "80", "--k", "1", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["results"]["without re-ranking"]
    rows = opened.results.frame(experiment="components", dataset=name, variant="plain", rerank="none", metric="mAP")
    for difficulty, value in rows.set_index("difficulty")["value"].items():
        assert value == pytest.approx(expected[difficulty]["mAP"], abs=1e-4), difficulty


def test_parameters_are_chosen_on_the_other_benchmark(opened):
    stored = json.loads((opened.results_dir / "choices.json").read_text(encoding="utf-8"))
    assert set(stored) == set(NAMES), "each is keyed by what it was chosen on"
    used = opened.results.frame(
        experiment="components", dataset=NAMES[0], rerank="ours", metric="mAP", difficulty="medium"
    )
    assert set(used["k"]) == {stored[NAMES[1]]["chosen"]["ours"]["k"]}


def test_distractors_stand_behind_the_database(opened):
    table = pd.read_csv(opened.results_dir / "tables" / f"distractors_{NAMES[0]}.csv")
    assert sorted(set(table["distractors"])) == [0, 12]
    model = opened.model("plain", None)
    (_, database), (_, behind) = (
        opened.descriptors(model, NAMES[0]),
        opened.descriptors_with_distractors(model, NAMES[0]),
    )
    assert len(behind) == len(database) + 12 and np.array_equal(behind[: len(database)], database)


def test_a_single_checkpoint_carries_no_verdict_and_claims_on_drawings_are_not_tested(opened):
    claims = pd.read_csv(opened.results_dir / "tables" / f"claims_{NAMES[0]}.csv")
    assert set(claims["verdict"]) == {"no verdict", "not tested here", "see notebook 10"}
    assert claims["comparison"].str.contains("the profile has no neighbour").any()


def test_a_variant_without_checkpoint_is_refused(opened):
    with pytest.raises(ValueError, match="names no checkpoint for 'neighbour' with resnet18, and it does not train"):
        opened.model("neighbour")


def test_everything_that_is_missing_is_named_before_the_first_notebook(data, tmp_path, monkeypatch):
    _, changes = data
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        study.run("paper", workspace=tmp_path / "w", progress=False, **changes)
    for name in ("roxford5k/gnd_roxford5k.pkl", "revisitop1m", "checkpoints/resnet10t-plain.safetensors"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "w" / "results").exists()


def test_pictures_of_a_benchmark_that_are_missing_stop_the_study_with_their_names(data, tmp_path, monkeypatch):
    folder, changes = data
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    (tmp_path / NAMES[0]).mkdir()
    (tmp_path / NAMES[0] / f"gnd_{NAMES[0]}.pkl").write_bytes((folder / NAMES[0] / f"gnd_{NAMES[0]}.pkl").read_bytes())
    with pytest.raises(FileNotFoundError, match="pictures are not in"):
        Study("paper", tmp_path, changes).benchmark(NAMES[0])
    with pytest.raises(FileNotFoundError, match=r"gnd_rparis6k\.pkl is not there; data/README\.md says"):
        Study("paper", tmp_path, changes).benchmark(NAMES[1])
