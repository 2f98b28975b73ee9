"""`ssr train`: from a table of landmarks and a folder of pictures to a model that can be loaded."""

import argparse

import numpy as np
import pytest
from PIL import Image

from ssr_lib.commands.train import add_train, preprocess_of, read_recipe, train
from ssr_lib.weights import load_checkpoint, read_record


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    return parser.parse_args(["train", *map(str, arguments)])


def test_a_model_comes_out(tmp_path, capsys):
    rng, rows = np.random.default_rng(0), ["landmark_id,images"]
    for landmark in (4, 5, 6):
        names = [f"{landmark}{i}{landmark}{i:013d}" for i in range(4)]
        rows.append(f"{landmark},{' '.join(names)}")
        for name in names:
            path = tmp_path / "train" / name[0] / name[1] / name[2] / f"{name}.jpg"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    (tmp_path / "train_clean.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "out.txt").write_text("6\n")
    arguments = ["--clean-csv", tmp_path / "train_clean.csv", "--images", tmp_path / "train", "--out", tmp_path / "run"]
    arguments += ["--leave-out", tmp_path / "out.txt", "--backbone", "test_efficientnet", "--pretrained", "none"]
    arguments += ["--mid-channels", 4, "--window", 3, "--descriptor-dim", 8, "--workers", 0]
    train(parse(*arguments, "--set", "epochs=1", "--set", "batch_size=4", "--set", "image_size=32"))
    assert "2 steps" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run" / "model").descriptor_dim == 8
    extra = read_record(tmp_path / "run" / "model")["extra"]
    assert extra["preprocess"]["size_rule"] == "none" and extra["training"]["config"]["batch_size"] == 4


@pytest.mark.parametrize(("rows", "left_out"), [("", None), ("6,666666\n", "6\n")])
def test_a_table_without_pictures_is_named(tmp_path, rows, left_out):
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n{rows}")
    arguments = ["--clean-csv", tmp_path / "train_clean.csv", "--images", tmp_path, "--out", tmp_path / "run"]
    if left_out:
        (tmp_path / "out.txt").write_text(left_out)
        arguments += ["--leave-out", tmp_path / "out.txt"]
    arguments += ["--backbone", "test_efficientnet", "--pretrained", "none"]
    with pytest.raises(ValueError, match=rf"train_clean\.csv lists no pictures.*{'out.txt' if left_out else ''}; "):
        train(parse(*arguments))
    assert not (tmp_path / "run").exists()


def test_entries_of_the_recipe_have_their_kind():
    config = read_recipe(["lr=0.01", "accumulate=2", "train_trunk=false", "precision=bfloat16"])
    assert (config.lr, config.accumulate, config.train_trunk, config.precision) == (0.01, 2, False, "bfloat16")


@pytest.mark.parametrize(
    ("setting", "message"), [("rate=1", "no 'rate'"), ("lr=fast", "a value like 0.005"), ("train_trunk=2", "like True")]
)
def test_wrong_entries_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        read_recipe([setting])


def test_pictures_are_prepared_as_the_backbone_was_trained():
    assert preprocess_of("resnet50").mean == (0.485, 0.456, 0.406)
    assert preprocess_of("tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
