"""Labelled photographs through the study: notebook 09 at the profile `photos`, with small drawn pictures in their place."""

import csv

import pandas as pd
import pytest
from kernels import execute_here
from ssr_lib.study.run.run import photographs, readings
from ssr_lib.study.run.run import run as study

from drawn_landmarks import SyntheticSpec, draw_benchmark
from ssr_lib.datasets.folder import read_labels
from ssr_lib.study.artefacts import Study

CHANGES = {
    "data.datasets": ["town"],
    "data.labels": {"town": "town/labels.csv"},
    "data.training_labels": "town/training.csv",
    "data.choices_from": "validation",
    "data.image_size": 64,
    "data.drawn_size": 64,
    "data.training": {"seed": 1, "landmarks": 4, "views": 4},
    "data.validation": {"seed": 2, "landmarks": 4, "twins": 0, "doubles": 0, "distractors": 8},
    "model.mid_channels": 8,
    "model.window": 3,
    "model.descriptor_dim": 16,
    "extraction.size": 64,
    "training.steps": 2,
    "training.batch_size": 8,
    "comparison.variants": ["neighbour", "plain", "self-similarity"],
    "comparison.seeds": [0, 1],
    "rerank.candidates": {"ours": {"k": [2], "alpha": [0.5]}},
    "statistics.resamples": 200,
    "sweeps.preprocess": {"images": None, "changes": [{"dtype": "bfloat16"}, {"color_order": "bgr"}]},
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The profile run on a drawn town, whose files are listed as photographs are."""
    folder, workspace = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("workspace")
    spec = SyntheticSpec("town", 5, landmarks=6, fixed_views=4, twins=0, doubles=0, distractors=0, size=64)
    town = draw_benchmark(spec, folder / "town", progress=False)["ordinary"]
    labels = [(file, group, "query") for file, group in zip(town.queries, town.groups, strict=True)]
    labels += [
        (town.database[i], group, "db")
        for group, *lists in zip(town.groups, town.easy, town.hard, town.junk, strict=True)
        for ids in lists
        for i in ids
    ]
    training = [(file, label, "train") for file, label, split in labels if split == "db"]
    for name, rows in (("labels", labels), ("training", training)):
        with open(town.root / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file", "label", "split"), *rows])
    changes = CHANGES | {
        "data.labels": {"town": str((town.root / "labels.csv").relative_to(folder))},
        "data.training_labels": str((town.root / "training.csv").relative_to(folder)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSR_DATA", str(folder))
        patch.setattr(study, "execute", execute_here)
        study.run("photos", workspace=workspace, progress=False, **changes)
        yield Study("photos", workspace, changes, progress=False)


def test_the_table_has_untrained_transferred_and_fine_tuned_networks(opened):
    table = pd.read_csv(opened.results_dir / "tables" / "photos_town.csv")
    assert len(table) == 2 * (1 + 3 + 3)
    assert table["trained on"].value_counts().to_dict() == {"ImageNet only": 2, "drawings": 6, "photographs": 6}
    assert set(table.loc[table["variant"] != "untrained", "seeds"]) == {2}


def test_the_untrained_row_is_what_the_rows_say(opened):
    table = pd.read_csv(opened.results_dir / "tables" / "photos_town.csv")
    rows = opened.results.frame(
        experiment="photos", variant="untrained", rerank="none", metric="mAP", difficulty="medium"
    )
    assert len(rows) == 1 and float(table["mAP"].iloc[0]) == pytest.approx(100 * rows["value"].iloc[0], abs=0.06)


def test_differences_are_paired_and_those_of_trainings_count_their_seeds(opened):
    table = pd.read_csv(opened.results_dir / "tables" / "photo_differences_town.csv").set_index("comparison")
    assert table.loc["ours − none, untrained", "seeds"] == 0, "nothing was trained there"
    assert table.loc["self-similarity − neighbour, trained on photographs", "seeds"] == 2
    assert (table["low"] <= table["difference"]).all() and (table["difference"] <= table["high"]).all()


def test_networks_trained_on_photographs_and_on_drawings_are_told_apart(opened):
    ordinary, fine_tuned = (opened.model("plain", 0, regime) for regime in ("ordinary", "photographs"))
    assert opened._folder_name(ordinary) != opened._folder_name(fine_tuned)
    assert opened.model("plain").regime == "photographs"


def test_preprocessing_is_changed_one_choice_at_a_time(opened):
    table = photographs.preprocess_table(opened, opened.model("untrained"), "town")
    assert list(table["changed"]) == ["nothing", "dtype bfloat16", "color_order bgr"]
    assert table["difference"].isna().tolist() == [True, False, False]
    assert "largest move" in readings.read_preprocessing(table)


def test_queries_that_are_database_images_too_are_refused(opened, tmp_path, monkeypatch):
    root = read_labels(opened.benchmark("town").root / "labels.csv").root
    (tmp_path / "labels.csv").write_text(
        "file,label\n" + "".join(f"{root}/{file},a\n" for file in opened.benchmark("town").database[:3])
    )
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    other = Study("photos", tmp_path, {"data.labels": {"town": "labels.csv"}})
    with pytest.raises(ValueError, match="queries are database images too"):
        other.benchmark("town")
