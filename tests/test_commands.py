"""`ssr` does what it says, and meets every wrong input with one line and exit status 2."""

import errno
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssr_lib import metrics
from ssr_lib.commands import evaluate as evaluate_module
from ssr_lib.commands import search as search_module
from ssr_lib.commands.main import main
from ssr_lib.datasets.folder import read_labels
from ssr_lib.datasets.revisited import read_ground_truth
from ssr_lib.images import Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import global_rerank

NAMES = [f"{thing}{view}.png" for thing in "abcd" for view in range(3)]


@pytest.fixture(scope="module")
def lite0():
    return RetrievalNet("tf_efficientnet_lite0").eval()


@pytest.fixture(autouse=True)
def one_net(lite0, monkeypatch):
    """The packaged network is built once, not for every command."""
    monkeypatch.setattr(search_module, "RetrievalNet", lambda *args, **options: lite0)


@pytest.fixture
def photos(tmp_path):
    """Twelve small pictures: three noisy views each of red stripes, green checks, a blue slope and a yellow disc."""
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[0:64, 0:64]
    shapes = (x // 8 % 2, (x // 16 + y // 16) % 2, x / 64, (x - 32) ** 2 + (y - 32) ** 2 < 400)
    colours = (220, 30, 30), (30, 200, 40), (40, 60, 230), (240, 220, 20)
    for i, name in enumerate(NAMES):
        noise = np.random.default_rng(i).normal(0, 6, (64, 64, 3))
        picture = shapes[i // 3][:, :, None] * np.array(colours[i // 3]) + noise
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def labels(photos):
    path = photos.parent / "labels.csv"
    lines = [f"{name},{name[0]},{'query' if name[1] == '0' else 'db'}" for name in NAMES]
    path.write_text("\n".join(["file,label,split", *lines]) + "\n")
    return path


@pytest.fixture
def truth(tmp_path):
    """A pickle in the revisited form: two queries, a0 and b0, and eight database pictures."""
    record = {"imlist": [name[:-4] for name in NAMES if name[1] != "0"], "qimlist": ["a0", "b0"]}
    record["gnd"] = [{"easy": [0], "hard": [1], "junk": [], "bbx": [4.2, 4, 60, 60.9]},
                     {"easy": [2], "hard": [3], "junk": [], "bbx": [0, 0, 64, 64]}]  # fmt: skip
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(record))
    return tmp_path / "gnd.pkl"


def ssr(*args):
    sized = args[0] == "search" or (args[0] == "evaluate" and "--features" not in args)
    return main([*map(str, args), *(["--size", "64"] if sized and "--size" not in args else [])])


def found(capsys, *args):
    """What a command that succeeds prints as JSON."""
    assert ssr(*args, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *args):
    """Run a command that must fail; return its one line."""
    assert ssr(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) == 1 and captured.err.startswith("ssr: ")
    return captured.err


# ---- search


def test_search_finds_the_other_views_first_and_leaves_out_the_query_itself(photos, tmp_path, capsys):
    (tmp_path / "link.png").symlink_to(photos / "b1.png")
    for photo, new in ((photos / "b1.png", 12), (photos / ".." / "photos" / "b1.png", 0), (tmp_path / "link.png", 0)):
        lists = found(capsys, "search", photo, "--gallery", photos, "--top", 4)
        assert (lists["pictures"], lists["newly_indexed"], lists["k"], lists["alpha"]) == (12, new, 2, 0.3)
        for key in ("before", "after"):
            assert [entry["place"] for entry in lists[key]] == [1, 2, 3, 4]
            assert {entry["file"] for entry in lists[key][:2]} == {"b0.png", "b2.png"}
            scores = [entry["score"] for entry in lists[key]]
            assert scores == sorted(scores, reverse=True) and scores[0] < 0.99999


def test_search_prints_both_lists_draws_them_and_names_what_it_leaves_out(photos, tmp_path, capsys):
    (photos / "text.jpg").write_text("I am no picture")
    (photos / "cut.png").write_bytes((photos / "a0.png").read_bytes()[:500])
    (photos / "IMG_1.HEIC").touch()
    (photos / "a1.png").rename(photos / "a1\x1b[31m\u2028\n.png")
    for _ in range(2):  # also when they are already known
        out = tmp_path / "lists.png"
        assert ssr("search", photos / "a0.png", "--gallery", photos, "--top", 3, "--out", out) == 0
        captured = capsys.readouterr()
        notes = captured.err.splitlines()
        assert len(notes) == 3 and "cut.png: truncated" in notes[0] and "text.jpg: not a picture" in notes[1]
        assert notes[2].startswith("ssr: left out: 1 × ") and notes[2].endswith("(.heic)")
        assert captured.out.count(r"a1\x1b[31m\u2028\n.png") == 2 and str(out) in captured.out
        assert captured.out.index("before re-ranking") < captured.out.index(
            "after re-ranking (gfr, k = 2, alpha = 0.3)"
        )
        with Image.open(out) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        red = (pixels[:, :, 0] > 180) & (pixels[:, :, 1:].max(axis=2) < 90)  # the stripes of thing a
        assert red.mean() > 0.05


@pytest.mark.parametrize("name", ["aqe", "alpha_qe", "dba", "alpha_qe_dba", "superglobal", "none"])
def test_search_and_evaluate_take_any_reranker_of_descriptors(photos, labels, capsys, name):
    lists = found(capsys, "search", photos / "b1.png", "--gallery", photos, "--rerank", name)
    assert {entry["file"] for entry in lists["after"][:2]} == {"b0.png", "b2.png"} and lists["rerank"] == name
    assert found(capsys, "evaluate", labels, "--images", photos, "--rerank", name)["rerank"] == name


@pytest.mark.parametrize(
    "options,words",
    [
        ({"photo": "nowhere.jpg"}, "nowhere.jpg: No such file or directory"),
        ({"photo": "fifo"}, "fifo: a folder, a pipe or a device; a file is wanted"),
        ({"photo": "text.jpg"}, "text.jpg: not a picture"),
        ({"photo": "cut.png"}, "cut.png: truncated"),
        ({"--gallery": ""}, "gallery is empty"),
        ({"--gallery": "nowhere"}, "nowhere: no such folder"),
        ({"--gallery": "empty"}, "holds no pictures"),
        ({"--k": 14}, "--k 14: wanted is 1 to 13, as many others as each picture has"),
        ({"--alpha": "nan"}, "--alpha nan: a number from 0 to 1000"),
        ({"--alpha": 1e300}, "--alpha 1e+300: a number from 0 to 1000"),
        ({"--rerank": "superglobal", "--alpha": 0.3}, "--alpha 0.3: superglobal has no alpha; leave it out"),
        ({"--rerank": "none", "--k": 3}, "--k 3: none has no k"),
        ({"--rerank": "ours"}, "--rerank ours is called gfr now"),
        ({"--rerank": "theirs"}, "no part 'theirs' in rerank; there are alpha_qe, "),
        ({"--rerank": "sift_ransac"}, "--rerank sift_ransac compares pictures"),
        ({"--top": 0}, "--top 0"),
        ({"--out": "no/x.png"}, "a name that ends in .png is wanted, in a folder that is there"),
        ({"--out": "x.pdf"}, "a name that ends in .png is wanted"),
        ({"--model": "w.pth"}, "`ssr convert` makes them of published weights"),
        ({"--preprocess": "vgg"}, "--preprocess takes one of lite, senet"),
        ({"--device": "tpu9"}, "device tpu9"),
        ({"--batch-size": 0}, "--batch-size and --workers must be 1 or more"),
        ({"--index": "text.jpg/index"}, "text.jpg"),
        ({"--nonsense": 1}, "unrecognized arguments: --nonsense 1; `ssr --help` says what is wanted"),
    ],
)
def test_search_refuses_what_is_wrong_in_one_line(photos, capsys, monkeypatch, options, words):
    monkeypatch.chdir(photos)
    os.mkfifo("fifo")
    os.mkdir("empty")
    for name, content in (
        ("text.jpg", b"text"),
        ("w.pth", b"text"),
        ("cut.png", (photos / "a0.png").read_bytes()[:900]),
    ):
        (photos / name).write_bytes(content)
    options = {"photo": "a0.png", "--gallery": ".", **options}
    photo = options.pop("photo")
    try:
        assert words in refused(capsys, "search", photo, *(part for pair in options.items() for part in pair))
    except SystemExit as end:  # argparse
        assert end.code == 2 and words in capsys.readouterr().err
    assert not (photos / ".ssr-index").exists(), "all of it is said before anything is described"


def test_a_gallery_of_one_is_refused_and_the_default_k_gives_way_to_one_of_two(tmp_path, photos, capsys):
    few = tmp_path / "few"
    few.mkdir()
    (photos / "a0.png").rename(few / "a0.png")
    assert "holds 1 usable pictures" in refused(capsys, "search", photos / "a2.png", "--gallery", few)
    (photos / "a1.png").rename(few / "a1.png")
    assert found(capsys, "search", photos / "a2.png", "--gallery", few)["k"] == 1


# ---- evaluate


def test_evaluate_prints_what_the_library_measures_block_by_block(photos, labels, lite0, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_module, "PAIRS", 8)  # one query at a time
    printed = found(capsys, "evaluate", labels, "--images", photos, "--k", 1, "--index", tmp_path / "kept")
    assert (printed["queries"], printed["groups"], printed["database"]) == (4, 4, 8)
    benchmark = read_labels(labels, photos)
    preprocess = Preprocess(size=64)
    queries, database = evaluate_module.extract_benchmark(lite0, benchmark, preprocess, tmp_path / "x", progress=False)
    for title, ranks in (
        ("without re-ranking", np.argsort(-(queries @ database.T), axis=1)),
        ("with re-ranking", global_rerank(queries, database, 1, 0.3).ranks),
    ):
        expected, given = metrics.evaluate(ranks, benchmark, at=(1, 5, 10)), printed["results"][title]
        assert list(given) == ["medium"]
        values = [expected.map["medium"], *expected.mp["medium"]]
        assert list(given["medium"].values()) == pytest.approx(values) and values[0] > 0.9
    assert list((tmp_path / "kept").glob("*/shard-00000.json"))


def test_evaluate_prints_a_table(photos, labels, capsys):
    assert ssr("evaluate", labels, "--images", photos, "--k", 1, "--alpha", 0.5) == 0
    out = capsys.readouterr().out
    assert "4 queries in 4 groups, 8 database pictures; re-ranking by gfr, k = 1, alpha = 0.5" in out
    header, *lines = out.strip().splitlines()[-3:]
    assert header.split() == ["per", "cent", "mAP", "mP@1", "mP@5", "mP@10"]
    assert lines == [f"{title:27s}" + 4 * "  100.00" for title in ("without re-ranking", "with re-ranking")]


def test_evaluate_asks_with_every_picture_and_tells_of_queries_without_positives(photos, truth, capsys):
    path = photos / "mine.csv"
    path.write_text("\n".join(["file,label", *(f"{name},{name[0]}" for name in NAMES)]))
    printed = found(capsys, "evaluate", path)
    assert (printed["queries"], printed["database"]) == (12, 12)
    assert printed["results"]["without re-ranking"]["medium"]["mAP"] > 0.9
    record = pickle.loads(truth.read_bytes())
    record["gnd"][1] |= {"easy": [], "hard": [], "junk": [2]}
    truth.write_bytes(pickle.dumps(record))
    assert ssr("evaluate", "--ground-truth", truth, "--images", photos) == 0
    captured = capsys.readouterr()
    assert "1 queries have no right picture in the database and no part in the means: b0" in captured.err
    assert "is not a published ground truth" in captured.err
    assert captured.out.strip().splitlines()[-6].startswith("without re-ranking, Easy")


def test_evaluate_with_distractors_ranks_them_behind_the_database(photos, truth, tmp_path, monkeypatch, capsys):
    """Copies of the positives, under other names, are wrong answers: they halve what was perfect."""
    shard = tmp_path / "revisitop1m" / "jpg" / "0"
    shard.mkdir(parents=True)
    for name in ("a1.png", "a2.png", "b1.png", "b2.png"):
        (shard / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "revisitop1m" / "revisitop1m.txt").write_text("0/a1.png\n0/a2.png\n0/b1.png\n0/b2.png\n")
    args = ("evaluate", "--ground-truth", truth, "--images", photos, "--index", tmp_path / "kept")
    alone = found(capsys, *args)
    behind = found(capsys, *args, "--distractors", tmp_path / "revisitop1m")
    assert (alone["database"], behind["database"]) == (8, 12) and behind["neighbourhood"] == "shortlist"
    means = [r["results"]["without re-ranking"]["medium"]["mAP"] for r in (alone, behind)]
    assert means[0] == pytest.approx(1.0) and means[1] < 0.9
    monkeypatch.setattr(evaluate_module, "SHORTLIST", 5)
    assert ssr(*args, "--distractors", tmp_path / "revisitop1m", "--k", 5) == 2
    assert "--k 5: wanted is 1 to 4" in capsys.readouterr().err


def test_evaluate_reads_a_stored_benchmark_as_the_pickle_it_was_made_from(photos, truth, tmp_path, capsys):
    benchmark = read_ground_truth(truth, photos, subset=True)
    benchmark.save(tmp_path / "stored.json")
    from_pickle = found(capsys, "evaluate", "--ground-truth", truth, "--images", photos)
    assert found(capsys, "evaluate", "--ground-truth", tmp_path / "stored.json") == from_pickle
    benchmark.select_queries([]).save(tmp_path / "none.json")
    assert "none.json has 0 queries and 8 " in refused(capsys, "evaluate", "--ground-truth", tmp_path / "none.json")


@pytest.mark.parametrize("ending", [".mat", ".MAT", ".npz"])
@pytest.mark.parametrize("dtype", ["float64", "int8"])
def test_evaluate_reads_published_features_in_place_of_pictures(truth, tmp_path, capsys, ending, dtype):
    """Columns as the revisited benchmarks publish them; query 0 is nearest to images 0 and 1, query 1 to image 3, then 2."""
    queries = np.zeros((2, 8))
    queries[0, :2], queries[1, 2:4] = (9, 4), (4, 9)
    file = tmp_path / f"features{ending}"

    def evaluated(content, status):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            with open(file, "wb") as opened:
                np.savez(opened, **content) if ending == ".npz" else savemat(opened, content)
        assert ssr("evaluate", "--ground-truth", truth, "--features", file, "--json") == status
        captured = capsys.readouterr()
        return json.loads(captured.out) if status == 0 else captured.err.splitlines()[-1]

    printed = evaluated({"Q": queries.T.astype(dtype), "X": np.eye(8, dtype=dtype)}, 0)
    assert printed["results"]["without re-ranking"]["medium"]["mAP"] == pytest.approx(1.0)
    assert "Q is float64 (2, 8); wanted numbers (dimension, 2)" in evaluated({"Q": queries, "X": np.eye(8)}, 2)
    for content in ({"Q": queries.T}, b"no arrays", b""):
        line = evaluated(content, 2)
        assert "holds no arrays Q (D, queries) and X (D, N): it is damaged" in line and "pickle" not in line


@pytest.mark.parametrize(
    "args,words",
    [
        ([], "name either a LABELS.csv or a --ground-truth FILE.pkl"),
        (["nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["labels.csv", "--images", "photos", "--k", "8"], "--k 8: wanted is 1 to 7"),
        (["labels.csv", "--images", "photos", "--index", ""], "index is empty"),
        (["--ground-truth", "gnd.pkl"], "--ground-truth wants --images DIR"),
        (["--ground-truth", "gnd.json", "--images", "photos"], "leave out --images"),
        (["labels.csv", "--features", "x.npz"], "leave out labels"),
        (["--ground-truth", "gnd.pkl", "--features", "x.mat"], "x.mat: No such file or directory"),
        *(
            (["--ground-truth", "gnd.pkl", "--features", "x.npz", option, value], f"leave out {option[2:]}")
            for option, value in (("--images", "photos"), ("--model", "lite0"), ("--index", "kept"), ("--size", "9"))
        ),
        (["labels.csv", "--images", "photos", "--distractors", "no"], "revisitop1m.txt: No such file or directory"),
        (["broken.csv", "--images", "photos"], "2 of the pictures cannot be used"),
    ],
)
def test_evaluate_refuses_what_is_wrong_in_one_line(photos, labels, truth, tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gnd.json").touch()
    (photos / "x.png").write_text("no picture")
    (photos / "y.png").write_bytes((photos / "c1.png").read_bytes()[:300])
    (tmp_path / "broken.csv").write_text(labels.read_text() + "x.png,a,db\ny.png,a,db\n")
    assert ssr("evaluate", *args) == 2
    assert words in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "kept").exists()


# ---- the command itself


@pytest.mark.parametrize(
    "error,status,words",
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command"),
        (MemoryError(), 2, "out of memory; a smaller --batch-size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            2,
            "out of memory; a smaller --batch-size",
        ),
        (OSError(errno.ENOSPC, "No space left"), 2, "No space left: make room, or name another folder"),
        (KeyError("x"), 2, "unexpected KeyError: 'x'; `ssr --traceback …` shows where, please report it"),
    ],
)
def test_what_ends_a_command_is_told_in_one_line(photos, labels, monkeypatch, capsys, error, status, words):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(search_module, "index_folder", fail)
    monkeypatch.setattr(evaluate_module, "extract_benchmark", fail)
    kept = "goes on from here"
    for args, promise in (
        (("search", photos / "a0.png", "--gallery", photos), kept),
        (("evaluate", labels, "--images", photos, "--index", photos / "kept"), kept),
        (("evaluate", labels, "--images", photos), "begins anew; with --index DIR it would go on"),
    ):
        assert ssr(*args) == status
        err = capsys.readouterr().err
        assert words in err and len(err.splitlines()) == 1 and (promise in err or "the same command" not in err)
        if status == 2:
            with pytest.raises(type(error)):
                ssr("--traceback", *args)


@pytest.mark.parametrize(
    "args,words",
    [
        (["train", "--clean-csv", "x"], "recipes/gldv2/README.md says how a network is trained"),
        (["study", "a", "--profile", "b"], "two profiles are named: a and b"),
        (["study", "--set", "steps"], "--set steps: KEY=VALUE is wanted"),
        (["study", "--set", "a=1", "--set", "a=2"], "--set a=2: a is set twice"),
        (["study", "--set", "a=[1"], "--set a=[1: '[1' is no value as a profile has it (YAML)"),
        (["study", "--set", "notebooks=[]"], "--set notebooks=[]: notebooks cannot be changed this way"),
        (["fetch", "nowhere"], "no data set 'nowhere'; there are roxford5k, "),
        (["convert", "no.pth", "--family", "gem"], "no.pth: No such file or directory"),
        (["convert", "junk.pth", "--family", "gem"], "junk.pth (gem) is damaged"),
    ],
)
def test_other_commands_refuse_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.pth").write_bytes(b"PK\x03\x04" + bytes(50))
    assert words in refused(capsys, *args)


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = "import sys, ssr_lib.commands.main as m; m.build_parser(); print([n for n in ('torch', 'numpy', 'cv2') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "redirection,status,words",
    [
        (">&-", 2, "standard output is closed"),
        (">/dev/full", 2, "No space left on device"),
        ("| head -0", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_a_stream_that_cannot_be_written_is_no_reason_to_fall_over(redirection, status, words):
    command = f"set -o pipefail; {sys.executable} -m ssr_lib fetch {redirection}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert run.returncode == status and words in run.stderr and len(run.stderr.splitlines()) == bool(words)
