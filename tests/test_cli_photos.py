"""`ssr search` and `ssr evaluate` do what they say, and meet every wrong input with one line and exit status 2."""

import errno
import importlib
import json
import os
import pickle
import resource
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from ssr_lib import gallery, metrics
from ssr_lib.commands import evaluate as cli_evaluate
from ssr_lib.commands import search as cli_photos
from ssr_lib.commands.main import main
from ssr_lib.datasets.folder import read_labels
from ssr_lib.datasets.revisited import read_ground_truth
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.network import RetrievalNet

NAMES = [f"{thing}{view}.png" for thing in "abcd" for view in range(3)]


@pytest.fixture(scope="module")
def lite0():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # pictures this small do not repay a second one
    yield RetrievalNet("tf_efficientnet_lite0", "plain", pretrained="package").eval()
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def one_net(lite0, monkeypatch):
    """The packaged network is built once, not for every command."""
    monkeypatch.setattr(cli_photos, "RetrievalNet", lambda *args, **options: lite0)


@pytest.fixture
def photos(tmp_path):
    """Twelve small pictures: three noisy views each of red stripes, green checks, a blue slope and a yellow disc."""
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[0:64, 0:64]
    things = (
        (x // 8 % 2, (220, 30, 30)),
        ((x // 16 + y // 16) % 2, (30, 200, 40)),
        (x / 64, (40, 60, 230)),
        ((x - 32) ** 2 + (y - 32) ** 2 < 400, (240, 220, 20)),
    )
    for i, (shape, colour) in enumerate(things):
        for view in range(3):
            noise = np.random.default_rng(10 * i + view).normal(0, 6, (64, 64, 3))
            picture = (shape[:, :, None] * np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / NAMES[3 * i + view])
    return folder


@pytest.fixture
def labels(photos):
    path = photos.parent / "labels.csv"
    lines = [f"{name},{name[0]},{'query' if name[1] == '0' else 'db'}" for name in NAMES]
    path.write_text("\n".join(["file,label,split", *lines]) + "\n")
    return path


def ssr(*args):
    return main([*map(str, args), *(["--size", "64"] if args[0] in ("search", "evaluate") else [])])


def refused(capsys, *args):
    """Run a command that must fail; return its one line."""
    assert ssr(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


# ---- search --------------------------------------------------------------------------------------------------------


def test_search_finds_the_other_views_first_and_leaves_out_the_query_itself(photos, capsys):
    assert ssr("search", photos / "b1.png", "--gallery", photos, "--json", "--top", 4) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == found["newly_indexed"] == 12 and found["k"] == 2 and found["unreadable"] == {}
    for key in ("before", "after"):
        assert [entry["place"] for entry in found[key]] == [1, 2, 3, 4]
        assert {entry["file"] for entry in found[key][:2]} == {"b0.png", "b2.png"}
        scores = [entry["score"] for entry in found[key]]
        assert scores == sorted(scores, reverse=True)


def test_search_prints_both_lists_and_indexes_only_once(photos, capsys):
    query = photos.parent / "query.png"
    (photos / "c2.png").rename(query)
    for new in (11, 0):
        assert ssr("search", query, "--gallery", photos) == 0
        out = capsys.readouterr().out
        assert f"11 pictures in {photos}, {new} of them newly indexed" in out
        assert out.index("before re-ranking") < out.index("after re-ranking (k = 2, alpha = 0.3)")
        first_places = [line for line in out.splitlines() if line.startswith("     1  ")]
        assert len(first_places) == 2 and all("c0.png" in line or "c1.png" in line for line in first_places)
    assert (photos / ".ssr-index").is_dir()


def test_search_writes_the_picture_of_both_lists(photos, tmp_path, capsys):
    out = tmp_path / "lists.png"
    assert ssr("search", photos / "a0.png", "--gallery", photos, "--out", out, "--top", 3) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert picture.format == "PNG" and pixels.shape[1] > 300
    red = (pixels[:, :, 0] > 180) & (pixels[:, :, 1:].max(axis=2) < 90)  # the stripes of thing a: query and its views
    assert red.mean() > 0.05


def test_search_names_unreadable_pictures_and_goes_on(photos, capsys):
    (photos / "text.jpg").write_text("I am no picture")
    (photos / "cut.png").write_bytes((photos / "a0.png").read_bytes()[:500])
    for _ in range(2):  # also when they are already known
        assert ssr("search", photos / "a0.png", "--gallery", photos) == 0
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 2 and "cut.png: truncated" in lines[0] and "text.jpg: not a picture" in lines[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_search_copes_with_a_file_name_that_is_no_text(photos, capsys):
    (photos / "a1.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff\n.png"))
    for _ in range(2):
        assert ssr("search", photos / "a0.png", "--gallery", photos, "--top", 2) == 0
        assert r"\udcff" in capsys.readouterr().out


def test_search_says_how_many_pictures_of_other_kinds_it_left_out(photos, capsys):
    (photos / "IMG_1.HEIC").touch()
    assert ssr("search", photos / "a0.png", "--gallery", photos) == 0
    assert "left out: 1 files ending in .heic; convert them to JPEG or PNG first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "prepare,words",
    [
        (lambda p: {"photo": p / "nowhere.jpg"}, "nowhere.jpg: No such file or directory"),
        (lambda p: (p / "t.jpg").write_text("text") and {"photo": p / "t.jpg"}, "t.jpg: not a picture"),
        (lambda p: (p / "a0.png").write_bytes((p / "a0.png").read_bytes()[:900]) and {}, "a0.png: truncated"),
        (lambda p: {"--gallery": p / "nowhere"}, "nowhere: no such folder"),
        (lambda p: (p / "empty").mkdir() or {"--gallery": p / "empty"}, "holds no pictures"),
        (lambda p: {"--k": 12}, "--k 12: each picture has 11 others in the database; 1 to 11 is wanted"),
        (lambda p: {"--k": 0}, "--k 0"),
        (lambda p: {"--alpha": -1}, "--alpha is -1.0; wanted a finite number, 0 or more"),
        (lambda p: {"--top": 0}, "--top 0"),
        (lambda p: {"--out": p / "no" / "x.png"}, "there is no folder"),
        (lambda p: {"--out": p / "x.pdf"}, "a name that ends in .png is wanted"),
        (lambda p: {"--model": "lite9"}, "--model lite9: neither lite0, lite1, lite2 nor a checkpoint file"),
        (lambda p: {"--model": p / "no.safetensors"}, "no.safetensors"),
        (lambda p: {"--model": p / "a1.png"}, "a1"),
        (lambda p: {"--preprocess": "vgg"}, "--preprocess vgg: one of lite, senet"),
        (lambda p: {"--size": 0}, "size"),
        (lambda p: {"--device": "tpu9"}, "device tpu9"),
        (lambda p: {"--batch-size": 0}, "--batch-size"),
        (lambda p: {"--index": p / "a1.png" / "index"}, "a1.png"),
    ],
)
def test_search_refuses_what_is_wrong_in_one_line(photos, capsys, prepare, words):
    options = {"photo": photos / "a0.png", "--gallery": photos, "--size": 64, **(prepare(photos) or {})}
    photo = options.pop("photo")
    assert main(["search", str(photo), *(str(part) for pair in options.items() for part in pair)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) == 1
    assert captured.err.startswith("ssr: ") and words in captured.err


@pytest.mark.parametrize("option", [("--k", 12), ("--k", 0), ("--alpha", -1), ("--alpha", "nan")])
def test_search_refuses_a_reranking_before_anything_is_described(photos, capsys, option):
    assert refused(capsys, "search", photos / "a0.png", "--gallery", photos, *option).startswith(f"ssr: {option[0]} ")
    assert not (photos / ".ssr-index").exists()


def test_search_leaves_out_a_link_to_nothing(photos, capsys):
    (photos / "away.jpg").symlink_to(photos / "nowhere.jpg")
    assert ssr("search", photos / "a0.png", "--gallery", photos) == 0
    captured = capsys.readouterr()
    assert captured.err == f"ssr: left out: {photos / 'away.jpg'}: No such file or directory\n"
    assert "12 pictures in" in captured.out


def test_search_draws_pictures_with_a_damaged_exif_block(photos, tmp_path, capsys):
    with Image.open(photos / "a1.png") as picture:
        picture.save(photos / "odd.jpg", dpi=(72, 72), exif=b"Exif\0\0garbage")
    assert ssr("search", photos / "a0.png", "--gallery", photos, "--out", tmp_path / "lists.png", "--top", 3) == 0
    assert "odd.jpg" in capsys.readouterr().out and (tmp_path / "lists.png").is_file()


def test_search_prints_the_lists_even_where_the_picture_of_them_fails(photos, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli_photos, "_picture", full)
    assert ssr("search", photos / "a0.png", "--gallery", photos, "--out", tmp_path / "lists.png") == 2
    captured = capsys.readouterr()
    assert "after re-ranking" in captured.out and "picture:" not in captured.out and "No space left" in captured.err


@pytest.mark.parametrize("rule", ["fixed", "none", "longest"])
def test_size_is_the_longest_side_whatever_a_checkpoint_says(lite0, monkeypatch, rule):
    own = Preprocess(size_rule=rule, size=None if rule == "none" else 224, mean=(0.4, 0.4, 0.4))
    monkeypatch.setattr(cli_photos, "load_checkpoint", lambda path: lite0)
    monkeypatch.setattr(cli_photos, "stored_preprocess", lambda path: own)
    load = lambda size: cli_photos.load_net(Namespace(model="net.safetensors", preprocess=None, size=size))[1]
    assert load(96) == Preprocess(size_rule="longest", size=96, mean=(0.4, 0.4, 0.4))
    assert load(None) == own


def test_search_in_too_small_a_gallery_is_refused(tmp_path, photos, capsys):
    (tmp_path / "one").mkdir()
    (photos / "a0.png").rename(tmp_path / "one" / "a0.png")
    assert "holds 1 usable pictures" in refused(capsys, "search", photos / "a1.png", "--gallery", tmp_path / "one")


def test_default_k_gives_way_to_a_small_gallery(tmp_path, photos, capsys):
    (tmp_path / "two").mkdir()
    for name in ("a0.png", "a1.png"):
        (photos / name).rename(tmp_path / "two" / name)
    assert ssr("search", photos / "a2.png", "--gallery", tmp_path / "two", "--json") == 0
    assert json.loads(capsys.readouterr().out)["k"] == 1


def test_search_in_a_read_only_gallery_asks_for_an_index_elsewhere(photos, tmp_path, monkeypatch, capsys):
    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    with monkeypatch.context() as patch:
        patch.setattr(gallery, "folder_lock", refuse)
        assert "name another folder for the index (--index)" in refused(
            capsys, "search", photos / "a0.png", "--gallery", photos
        )
    assert ssr("search", photos / "a0.png", "--gallery", photos, "--index", tmp_path / "index") == 0
    assert not (photos / ".ssr-index").exists()


def test_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(photos, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the 12 descriptors have 61,440 bytes
    try:
        assert "File too large: make room" in refused(capsys, "search", photos / "a0.png", "--gallery", photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ssr("search", photos / "a0.png", "--gallery", photos) == 0
    assert "12 of them newly indexed" in capsys.readouterr().out


# ---- evaluate ------------------------------------------------------------------------------------------------------


def test_evaluate_prints_what_the_library_measures(photos, labels, lite0, tmp_path, capsys):
    assert ssr("evaluate", labels, "--images", photos, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["queries"], printed["groups"], printed["database"]) == (4, 4, 8)
    benchmark = read_labels(labels, photos)
    preprocess = type(PRESETS["lite"])(size=64)
    queries, database = cli_evaluate.extract_benchmark(lite0, benchmark, preprocess, tmp_path / "x", progress=False)
    expected = metrics.evaluate(np.argsort(-(queries @ database.T), axis=1), benchmark)
    assert printed["results"]["without re-ranking"]["medium"]["mAP"] == pytest.approx(expected.map["medium"])
    assert list(printed["results"]["with re-ranking"]) == ["medium"]
    assert printed["results"]["without re-ranking"]["medium"]["mAP"] > 0.9  # the four things are easy to tell apart


def test_evaluate_table_has_a_line_without_and_a_line_with_reranking(photos, labels, capsys):
    assert ssr("evaluate", labels, "--images", photos, "--k", 1, "--alpha", 0.5) == 0
    out = capsys.readouterr().out
    assert "4 queries in 4 groups, 8 database pictures; re-ranking with k = 1, alpha = 0.5" in out
    header, without, with_ = out.strip().splitlines()[-3:]
    assert header.split() == ["per", "cent", "mAP", "mP@1", "mP@5", "mP@10"]
    for line, title in ((without, "without re-ranking"), (with_, "with re-ranking")):
        assert line.startswith(title) and all(0 <= float(v) <= 100 for v in line.split()[-4:])


def test_evaluate_without_splits_asks_with_every_picture(photos, capsys):
    path = photos / "mine.csv"
    path.write_text("\n".join(["file,label", *(f"{name},{name[0]}" for name in NAMES)]))
    assert ssr("evaluate", path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["queries"], printed["database"]) == (12, 12)
    assert printed["results"]["without re-ranking"]["medium"]["mAP"] > 0.9


def test_evaluate_reports_training_rows_and_lonely_queries(photos, labels, capsys):
    text = labels.read_text().replace("a1.png,a,db", "a1.png,z,db").replace("a2.png,a,db", "a2.png,a,train")
    labels.write_text(text)
    assert ssr("evaluate", labels, "--images", photos) == 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "ssr: 1 rows with split 'train' are left out"
    assert lines[1].startswith("ssr: 1 queries have no picture of their label") and lines[1].endswith("a0.png")


def test_evaluate_keeps_descriptors_where_told_and_nowhere_else(photos, labels, tmp_path, capsys):
    before = sorted(os.listdir(photos.parent)) + sorted(os.listdir(photos))
    assert ssr("evaluate", labels, "--images", photos) == 0
    assert sorted(os.listdir(photos.parent)) + sorted(os.listdir(photos)) == before
    assert ssr("evaluate", labels, "--images", photos, "--index", tmp_path / "kept") == 0
    assert (tmp_path / "kept" / "database" / "array.npy").is_file()


def test_evaluate_never_drops_a_file_in_silence(photos, labels, capsys):
    (photos / "b1.png").unlink()
    assert "1 of the 12 files (b1.png)" in refused(capsys, "evaluate", labels, "--images", photos)
    (photos / "b1.png").write_text("no picture")
    (photos / "c1.png").write_bytes((photos / "c1.png").read_bytes()[:300])
    assert ssr("evaluate", labels, "--images", photos) == 2
    err = capsys.readouterr().err
    assert "2 of the pictures cannot be used" in err and "b1.png: not a picture" in err and "c1.png: truncated" in err


@pytest.mark.parametrize(
    "args,words",
    [
        ([], "name either a LABELS.csv or a --ground-truth FILE.pkl"),
        (["nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["LABELS", "--images", "PHOTOS", "--k", "8"], "--k 8: each picture has 7 others"),
        (["LABELS", "--images", "nowhere"], "12 of the 12 files"),
        (["--ground-truth", "nowhere.pkl"], "--ground-truth wants --images DIR"),
        (["--ground-truth", "x.pkl", "--images", "PHOTOS", "--features", "x.npz"], "leave out --images"),
        (["LABELS", "--images", "PHOTOS", "--alpha", "-0.1"], "--alpha is -0.1; wanted a finite number, 0 or more"),
        (["LABELS", "--images", "PHOTOS", "--alpha", "nan"], "--alpha is nan; wanted a finite number"),
        (["LABELS", "--images", "PHOTOS", "--distractors", "nowhere"], "revisitop1m.txt: No such file or directory"),
    ],
)
def test_evaluate_refuses_what_is_wrong_in_one_line(photos, labels, capsys, args, words):
    places = {"LABELS": labels, "PHOTOS": photos}
    assert words in refused(capsys, "evaluate", *(places.get(arg, arg) for arg in args))


def test_evaluate_on_a_ground_truth_of_the_revisited_form_prints_three_difficulties(photos, tmp_path, capsys):
    record = {"imlist": [name[:-4] for name in NAMES if name[1] != "0"], "qimlist": ["a0", "b0"]}
    record["gnd"] = [{"easy": [0], "hard": [1], "junk": [2], "bbx": [4.2, 4, 60, 60.9]},
                     {"easy": [2, 3], "hard": [], "junk": [], "bbx": [0, 0, 64, 64]}]  # fmt: skip
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(record))
    args = ("evaluate", "--ground-truth", tmp_path / "gnd.pkl", "--images", photos)
    assert ssr(*args, "--json") == 0
    captured = capsys.readouterr()
    assert "is not a published ground truth" in captured.err
    results = json.loads(captured.out)["results"]["without re-ranking"]
    assert list(results) == ["easy", "medium", "hard"] and results["medium"]["mAP"] == pytest.approx(1.0)
    record["gnd"][0]["hard"] = []
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(record))
    assert ssr(*args, "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"]["with re-ranking"]["hard"]["mAP"] is None
    assert ssr(*args) == 0
    lines = capsys.readouterr().out.strip().splitlines()[-6:]
    assert lines[0].startswith("without re-ranking, Easy")
    assert lines[-1].split() == ["with", "re-ranking,", "Hard", "--", "--", "--", "--"]


def revisited(folder):
    """gnd.pkl of two queries, a0 and b0, and eight database pictures."""
    record = {"imlist": [name[:-4] for name in NAMES if name[1] != "0"], "qimlist": ["a0", "b0"]}
    record["gnd"] = [{"easy": [0], "hard": [1], "junk": [], "bbx": [0, 0, 64, 64]},
                     {"easy": [2], "hard": [3], "junk": [], "bbx": [0, 0, 64, 64]}]  # fmt: skip
    (folder / "gnd.pkl").write_bytes(pickle.dumps(record))
    return folder / "gnd.pkl"


def test_evaluate_with_distractors_ranks_them_behind_the_database(photos, tmp_path, capsys):
    """Copies of the positives, under other names, are wrong answers: they halve what was perfect."""
    truth, shard = revisited(tmp_path), tmp_path / "revisitop1m" / "jpg" / "0"
    shard.mkdir(parents=True)
    for name in ("a1.png", "a2.png", "b1.png", "b2.png"):
        (shard / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "revisitop1m" / "revisitop1m.txt").write_text("0/a1.png\n0/a2.png\n0/b1.png\n0/b2.png\n")
    args = ("evaluate", "--ground-truth", truth, "--images", photos, "--json", "--index", tmp_path / "kept")
    assert ssr(*args) == 0
    alone = json.loads(capsys.readouterr().out)
    assert ssr(*args, "--distractors", tmp_path / "revisitop1m") == 0
    behind = json.loads(capsys.readouterr().out)
    assert (alone["database"], behind["database"]) == (8, 12) and behind["neighbourhood"] == "shortlist"
    means = [r["results"]["without re-ranking"]["medium"]["mAP"] for r in (alone, behind)]
    assert means[0] == pytest.approx(1.0) and means[1] < 0.9


def test_evaluate_refuses_more_neighbours_than_a_shortlist_has_before_it_describes(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.import_module("ssr_lib.rerank.global_rerank"), "DEFAULT_SHORTLIST", 5)
    (tmp_path / "jpg").mkdir()
    (photos / "c0.png").rename(tmp_path / "jpg" / "c0.png")
    (tmp_path / "revisitop1m.txt").write_text("c0.png\n")
    truth = revisited(tmp_path)
    args = ("evaluate", "--ground-truth", truth, "--images", photos, "--distractors", tmp_path, "--json")
    kept = ("--index", tmp_path / "kept")
    line = refused(capsys, *args, *kept, "--k", 5)
    assert "--k 5: each picture has 4 others in the shortlist; 1 to 4 is wanted" in line
    assert not (tmp_path / "kept").exists()
    for more in (("--k", 4), ("--k", 5, "--rerank", "superglobal")):  # SuperGlobal takes the whole shortlist instead
        assert ssr(*args, *kept, *more) == 0
        assert json.loads(capsys.readouterr().out)["k"] == more[1]


@pytest.mark.parametrize("option", [("--k", 8), ("--alpha", -1), ("--alpha", "nan")])
def test_evaluate_refuses_a_reranking_before_anything_is_described(photos, labels, tmp_path, capsys, option):
    line = refused(capsys, "evaluate", labels, "--images", photos, "--index", tmp_path / "kept", *option)
    assert line.startswith(f"ssr: {option[0]} ") and not (tmp_path / "kept").exists()


def test_evaluate_names_distractors_that_are_not_there_before_it_describes(photos, tmp_path, capsys):
    (tmp_path / "revisitop1m.txt").write_text("0/a1.png\n0/a2.png\n")
    args = ("evaluate", "--ground-truth", revisited(tmp_path), "--images", photos, "--index", tmp_path / "kept")
    assert ssr(*args, "--distractors", tmp_path) == 2
    assert "2 of the distractors in revisitop1m.txt are not in" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_evaluate_reads_a_stored_benchmark_as_the_pickle_it_was_made_from(photos, tmp_path, capsys):
    truth = revisited(tmp_path)
    read_ground_truth(truth, photos, subset=True).save(tmp_path / "stored.json")
    assert ssr("evaluate", "--ground-truth", truth, "--images", photos, "--json") == 0
    from_pickle = json.loads(capsys.readouterr().out)
    assert ssr("evaluate", "--ground-truth", tmp_path / "stored.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == from_pickle
    assert ssr("evaluate", "--ground-truth", tmp_path / "stored.json", "--images", photos) == 2
    assert "leave out --images" in capsys.readouterr().err


def test_evaluate_refuses_a_stored_benchmark_without_queries(photos, tmp_path, capsys):
    benchmark = read_ground_truth(revisited(tmp_path), photos, subset=True)
    benchmark.select_queries([]).save(tmp_path / "none.json")
    words = "none.json has 0 queries and 8 database pictures; one or more of each is wanted"
    assert words in refused(capsys, "evaluate", "--ground-truth", tmp_path / "none.json")


def test_evaluate_reranks_by_superglobal_where_asked(photos, tmp_path, capsys):
    args = ("evaluate", "--ground-truth", revisited(tmp_path), "--images", photos, "--rerank", "superglobal", "--json")
    assert ssr(*args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rerank"], printed["k"], printed["beta"], printed["shortlist"]) == ("superglobal", 7, 0.15, 8)


@pytest.mark.parametrize("ending", [".mat", ".npz"])
def test_evaluate_reads_published_features_in_place_of_pictures(tmp_path, capsys, ending):
    """Columns as the revisited benchmarks publish them; query 0 is nearest to images 0 and 1, query 1 to image 3, then 2."""
    database = np.eye(8)
    queries = np.zeros((2, 8))
    queries[0, :2], queries[1, 2:4] = (0.9, 0.4), (0.4, 0.9)
    file = tmp_path / f"features{ending}"
    store = savemat if ending == ".mat" else lambda path, arrays: np.savez(path, **arrays)
    store(file, {"Q": queries.T, "X": database.T})
    command = ["evaluate", "--ground-truth", str(revisited(tmp_path)), "--features", str(file), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["results"]["without re-ranking"]["medium"]["mAP"] == pytest.approx(1.0)
    store(file, {"Q": queries, "X": database.T})
    assert main(command) == 2
    assert "Q is float64 (2, 8); wanted floats (dimension, 2)" in capsys.readouterr().err
    file.write_bytes(b"no arrays")
    assert main(command) == 2
    assert f"{file} holds no arrays Q and X" in capsys.readouterr().err


# ---- the command itself --------------------------------------------------------------------------------------------


def test_traceback_is_shown_on_request_only(tmp_path):
    with pytest.raises(NotADirectoryError):
        (tmp_path / "x.png").write_bytes(b"")
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        main(["--traceback", "search", str(tmp_path / "x.png"), "--gallery", str(tmp_path / "nowhere")])


def test_interrupted_command_says_how_to_go_on(photos, monkeypatch, capsys):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_photos, "index_folder", interrupt)
    assert ssr("search", photos / "a0.png", "--gallery", photos) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "index,words", [((), "with --index DIR it would go on"), (("--index", "kept"), "goes on from")]
)
def test_cut_short_evaluate_promises_only_what_is_kept(photos, labels, tmp_path, monkeypatch, capsys, index, words):
    monkeypatch.chdir(tmp_path)
    ends = (KeyboardInterrupt(), 130, "interrupted; "), (OSError(errno.ENOSPC, "No space left"), 2, "make room")
    for error, status, beginning in ends:

        def end(*args, error=error, **options):
            raise error

        monkeypatch.setattr(cli_evaluate, "extract_benchmark", end)
        assert ssr("evaluate", labels, "--images", photos, *index) == status
        line = capsys.readouterr().err.strip()
        assert beginning in line and words in line and ("goes on" in line) == bool(index)


def test_out_of_memory_is_one_line_with_advice(photos, monkeypatch, capsys):
    def exhausted(*args, **options):
        raise MemoryError

    monkeypatch.setattr(cli_photos, "index_folder", exhausted)
    assert "smaller --batch-size" in refused(capsys, "search", photos / "a0.png", "--gallery", photos)


@pytest.mark.parametrize(
    "content", [b"junk\n", b"", bytes(100), b"PK\x03\x04" + bytes(50)], ids=["junk", "empty", "zeros", "zip"]
)
def test_convert_refuses_what_holds_no_weights(tmp_path, capsys, content):
    (tmp_path / "w.pth").write_bytes(content)
    for args, words in (([tmp_path / "w.pth"], "w.pth (gem) is damaged"), ([tmp_path / "no.pth"], "no such file")):
        assert main(["convert", *map(str, args), "--family", "gem"]) == 2
        err = capsys.readouterr().err
        assert len(err.strip().splitlines()) == 1 and words in err


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = "import sys, ssr_lib.commands.main as m; m.build_parser(); print([n for n in ('torch', 'numpy', 'cv2') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_installed_command_ends_with_status_2_and_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "ssr_lib", "study", "a", "--profile", "b"], capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr == "ssr: two profiles are named: a and b\n"
