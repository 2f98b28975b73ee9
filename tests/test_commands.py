"""`ssr` does what it says, and meets every wrong input with one line and exit status 2."""

import errno
import functools
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssr_lib import metrics
from ssr_lib.commands import evaluate, search
from ssr_lib.commands.main import main
from ssr_lib.datasets.folder import read_labels
from ssr_lib.datasets.revisited import read_ground_truth
from ssr_lib.extract import describe
from ssr_lib.images import Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import NO_GROUP, global_rerank, standing_out
from ssr_lib.weights import load_checkpoint, stored_preprocess
from ssr_lib.whitening import fit_lda

NAMES = [f"{thing}{view}.png" for thing in "abcd" for view in range(3)]
SEARCH, EVALUATE = "search photos/a0.png --gallery photos", "evaluate labels.csv --images photos"
TRUTH = "evaluate --ground-truth gnd.pkl"
built_once = functools.cache(RetrievalNet)


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """The current folder, with three noisy photos each of four colours, two tables of labels, and gnd.pkl with two queries."""
    monkeypatch.setattr(search, "RetrievalNet", built_once)
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    colours = (220, 30, 30), (30, 200, 40), (40, 60, 230), (240, 220, 20)
    for i, name in enumerate(NAMES):
        picture = colours[i // 3] + np.random.default_rng(i).normal(0, 6, (64, 64, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(f"photos/{name}")
    lines = [f"{name},{name[0]},{'query' if name[1] == '0' else 'db'}" for name in NAMES]
    Path("labels.csv").write_text("\n".join(["file,label,split", *lines, ""]))
    Path("train.csv").write_text("\n".join(["file,label", *(f"{name},{name[0]}" for name in NAMES)]))
    record = {"imlist": [name[:-4] for name in NAMES if name[1] != "0"], "qimlist": ["a0", "b0"]}
    record["gnd"] = [{"easy": [0], "hard": [1], "junk": [], "bbx": [4.2, 4, 60, 60.9]},
                     {"easy": [2], "hard": [3], "junk": [], "bbx": [0, 0, 64, 64]}]  # fmt: skip
    Path("gnd.pkl").write_bytes(pickle.dumps(record))
    return tmp_path


def ssr(line):
    """The exit status of a command line; pictures are described at 64 pixels."""
    words = shlex.split(line)
    sized = words[0] in ("search", "index", "whiten") or (words[0] == "evaluate" and "--features" not in words)
    try:
        return main([*words, *(["--size", "64"] if sized and "--size" not in words else [])])
    except SystemExit as end:  # argparse
        return end.code


def found(capsys, line):
    assert ssr(f"{line} --json") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, line):
    """The one line of a command that must fail, behind what is said of a ground truth of one's own."""
    assert ssr(line) == 2
    captured = capsys.readouterr()
    *notes, told = captured.err.splitlines()
    assert captured.out == "" and told.startswith("ssr: ") and all("not a published" in note for note in notes)
    return told


@pytest.mark.parametrize("line,words", [
    ("search nowhere.jpg --gallery photos", "nowhere.jpg: No such file or directory"),
    ("search photos/a0.png --gallery ''", "gallery is empty"), (f"{TRUTH} --features x.mat", "x.mat: No such file"),
    (f"{SEARCH} --k 12", "k = 12: wanted is 1 to 11, as many others as each picture has"),
    (f"{SEARCH} --alpha nan", "alpha = nan: a number from 0 to 1000"),
    (f"{SEARCH} --rerank superglobal --alpha 0.3", "alpha = 0.3: superglobal has no alpha; leave it out"),
    (f"{SEARCH} --out no/x.png", "a name that ends in .png is wanted, in a folder that is there"),
    *((f"{SEARCH} --out {x}", f"--out {x} is the query or a picture of the gallery") for x in ("link.png", "photos/x.png")),
    (f"{SEARCH} --rerank os.path", "rerank: os.path: AttributeError: "), (f"{SEARCH} --device meta", "device meta: "),
    ("index --gallery photos --k 12", "k = 12: wanted is 1 to 11"), (f"{SEARCH} --rerank attention_qe", "wants more"),
    (f"{SEARCH} --model w.pth", "`ssr convert` makes them of published weights"),
    (f"{SEARCH} --top 0", "argument --top: '0' is no whole number of 1 or more; `ssr search --help` says"),
    ("evaluate broken.csv", "2 of the pictures cannot be used"),
    (f"{TRUTH} --features x.npz --images photos", "leave out images"),
    (f"{EVALUATE} --index .", "--index . holds a live index, whose lists are approximate"),
    ("whiten labels.csv --images photos --out mine", "labels.csv has 0 labels in its training rows"),
    ("whiten train.csv --images photos --out v", "v.json is there and was made by something else; give another name"),
    ("whiten train.csv --images photos --out .", ". is a folder; the name of a checkpoint is wanted"),
    ("whiten train.csv --images photos --out w.pth/x", "w.pth/x.safetensors: cannot be written (Not a directory)"),
    ("whiten broken.csv --out mine", "2 labels have two pictures or more; 4 such labels are wanted"),
    ("study --set a=[1", "--set a=[1: '[1' is no value as a profile has it (YAML)"),
    ("convert w.pth --family gem", "w.pth (gem) is damaged"),
    ("convert w.pth --family gem --out v", "v.json is there and was made by something else"),
])  # fmt: skip
def test_what_is_wrong_is_refused_in_one_line_before_anything_is_described(desk, capsys, line, words):
    Path("broken.csv").write_text("file,label\ngnd.pkl,a\nw.pth,a\nphotos/a0.png,b\nphotos/a1.png,b\n")
    Path("w.pth").write_text("text")
    Path("v.json").touch()
    Path("live.npz").touch()
    os.link("photos/b1.png", "link.png")
    before = set(desk.rglob("*"))
    assert words in refused(capsys, line) and set(desk.rglob("*")) == before


def test_search_finds_the_other_views_first_and_leaves_out_the_query_itself(capsys):
    os.symlink("photos/b1.png", "link.png")
    os.link("photos/b1.png", "photos/z.png")  # listed once, under its first name
    for photo, new in (("photos/b1.png", 12), ("photos/../photos/z.png", 0), ("link.png", 0)):
        lists = found(capsys, f"search {photo} --gallery photos --top 4")
        assert (lists["pictures"], lists["newly_indexed"], lists["k"], lists["alpha"]) == (12, new, 2, 0.3)
        for key in ("before", "after"):
            assert {entry["file"] for entry in lists[key][:2]} == {"b0.png", "b2.png"}
            scores = [entry["score"] for entry in lists[key]]
            assert scores == sorted(scores, reverse=True) and scores[0] < 0.99999


def test_search_says_where_fewer_than_k_stand_out_from_the_background(capsys):
    assert standing_out(np.repeat([1.0, 0.0], [2, 18])) == 2  # the line: 0.1 + 0.7 * 2.448 * 0.3 = 0.61
    assert standing_out(np.repeat([1.0, 0.0], [4, 4])) == 0  # 0.5 + 0.7 * 2.039 * 0.5 = 1.21
    assert found(capsys, SEARCH)["standing_out"] == 2
    for expected in (False, True):  # then without the other views of the query
        assert ssr(SEARCH) == 0 and (f"\n{NO_GROUP}\n" in capsys.readouterr().out) == expected
        for name in ("photos/a1.png", "photos/a2.png"):
            Path(name).unlink(missing_ok=True)


def test_search_prints_both_lists_draws_them_and_names_what_it_leaves_out(capsys):
    Path("photos/text.jpg").write_text("I am no picture")
    Path("photos/cut.png").write_bytes(Path("photos/a0.png").read_bytes()[:500])
    Path("photos/IMG_1.HEIC").touch()
    os.rename("photos/a1.png", "photos/a1\x1b[31m\u2028\n.png")
    assert ssr(f"{SEARCH} --top 3 --out lists.png") == 0
    captured = capsys.readouterr()
    notes = captured.err.splitlines()
    assert len(notes) == 3 and "cut.png: truncated" in notes[0] and "text.jpg: not a picture" in notes[1]
    assert notes[2].startswith("ssr: left out: 1 × ") and notes[2].endswith("(.heic)")
    assert captured.out.count(r"a1\x1b[31m\u2028\n.png") == 2
    assert "before re-ranking\n" in captured.out and "after re-ranking (gfr, k = 2, alpha = 0.3)\n" in captured.out
    assert Path("lists.png").read_bytes().startswith(b"\x89PNG")


def test_a_live_search_gives_the_lists_of_the_exact_one_and_looks_only_at_its_index(monkeypatch, capsys):
    assert ssr("index --gallery photos") == 0 and "12 pictures in photos, 12 newly indexed" in capsys.readouterr().out
    for changed in ("--size 80", "--k 3"):
        told = refused(capsys, f"{SEARCH} --live {changed}")
        assert re.search("live.npz was made by .* 64 px, .* k = 2, .* the query by .* (80 px,|k = 3)", told)
    os.remove("photos/c0.png")
    os.rename("photos/d0.png", "photos/e0.png")
    with monkeypatch.context() as patch:
        for name in ("index_folder", "list_pictures"):
            patch.setattr(search, name, Mock(side_effect=AssertionError(name)))
        assert found(capsys, f"{SEARCH} --live")["pictures"] == 12
    assert found(capsys, "index --gallery photos") == {"pictures": 11, "newly_indexed": 1}
    for photo in ("photos/b1.png", "photos/e0.png"):
        line = f"search {photo} --gallery photos"
        exact, live = found(capsys, line), found(capsys, f"{line} --live")
        assert live["before"] == exact["before"] and live["after"] == exact["after"] and live["pictures"] == 11
    assert "--rerank aqe: a live index re-ranks by gfr" in refused(capsys, f"{SEARCH} --live --rerank aqe")


def test_whiten_stores_a_network_that_whitens_as_lda_does_and_tells_what_it_gave(monkeypatch, capsys):
    monkeypatch.setattr(search, "RetrievalNet", RetrievalNet)  # for this one gets a whitening
    monkeypatch.setattr(evaluate, "PAIRS", 24)  # four of the six pictures at a time, then two
    seen, line = [], "whiten train.csv --images photos --index kept"
    monkeypatch.setattr(evaluate, "fit_lda", lambda x, y, *how: seen.append({*y.tolist()}) or fit_lda(x, y, *how))
    assert ssr(line) == 0 and seen == [{0, 2}, {0, 1, 2, 3}], "measured on labels that it was not learned from"
    with monkeypatch.context() as patch:  # what the first run described is not described again
        patch.setattr("ssr_lib.extract.fill", Mock(side_effect=AssertionError))
        assert ssr(line) == 0
    told = capsys.readouterr().out
    assert "learned from 12 pictures of 4 labels; --model train-whitened.safetensors" in told
    assert "mAP 100.0 % without it, 100.0 % with it, +0.0 [+0.0, +0.0] points" in told
    files, preprocess = [f"photos/{name}" for name in NAMES], Preprocess(size=64)
    x = describe(built_once("tf_efficientnet_lite0"), files, preprocess)
    y = fit_lda(x, np.repeat(range(4), 3), 1.0).apply(x, 512)
    whitened = describe(load_checkpoint("train-whitened"), files, stored_preprocess("train-whitened"))
    np.testing.assert_allclose(whitened @ whitened.T, y @ y.T, atol=1e-4)
    lists = found(capsys, "search photos/b1.png --gallery photos --model train-whitened")
    assert {entry["file"] for entry in lists["after"][:2]} == {"b0.png", "b2.png"}
    assert "--model train-whitened ends in a whitening" in refused(capsys, f"{line} --model train-whitened")


@pytest.mark.parametrize("name", ["aqe", "alpha_qe", "dba", "alpha_qe_dba", "superglobal", "diffusion", "none"])
def test_search_and_evaluate_take_any_reranker_of_descriptors(capsys, name):
    lists = found(capsys, f"search photos/b1.png --gallery photos --rerank {name}")
    assert {entry["file"] for entry in lists["after"][:2]} == {"b0.png", "b2.png"} and lists["rerank"] == name
    assert found(capsys, f"{EVALUATE} --rerank {name}")["rerank"] == name


def test_a_gallery_of_one_is_refused_and_the_default_k_gives_way_to_one_of_two(capsys):
    os.renames("photos/b0.png", "few/b0.png")
    assert "holds 1 usable pictures" in refused(capsys, "search photos/a0.png --gallery few")
    os.rename("photos/b1.png", "few/b1.png")
    assert found(capsys, "search photos/a0.png --gallery few")["k"] == 1


def test_evaluate_prints_what_the_library_measures_block_by_block(monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "PAIRS", 8)  # one query at a time
    printed = found(capsys, f"{EVALUATE} --k 1 --index kept")
    assert (printed["queries"], printed["groups"], printed["database"]) == (4, 4, 8)
    net, benchmark = built_once("tf_efficientnet_lite0"), read_labels("labels.csv", "photos")
    queries, database = evaluate.extract_benchmark(net, benchmark, Preprocess(size=64), "x", progress=False)
    first, again = np.argsort(-(queries @ database.T), axis=1), global_rerank(queries, database, 1, 0.3).ranks
    for title, ranks in {"without re-ranking": first, "with re-ranking": again}.items():
        expected, given = metrics.evaluate(ranks, benchmark, at=(1, 5, 10)), printed["results"][title]
        values = [expected.map["medium"], *expected.mp["medium"]]
        assert list(given) == ["medium"] and list(given["medium"].values()) == pytest.approx(values) and values[0] > 0.9


def test_evaluate_tells_of_queries_without_positives(capsys):
    record = pickle.loads(Path("gnd.pkl").read_bytes())
    record["gnd"][1] |= {"easy": [], "hard": [], "junk": [2]}
    Path("gnd.pkl").write_bytes(pickle.dumps(record))
    assert ssr(f"{TRUTH} --images photos") == 0
    captured = capsys.readouterr()
    assert "1 queries have no right picture in the database and no part in the means (b0.png)" in captured.err
    header, *lines = captured.out.strip().splitlines()[-7:]
    assert header.split() == ["per", "cent", "mAP", "mP@1", "mP@5", "mP@10"]
    assert lines[0].split() == ["without", "re-ranking,", "Easy", *4 * ["100.00"]]


def test_evaluate_with_distractors_ranks_them_behind_the_database(monkeypatch, capsys):
    shutil.copytree("photos", "revisitop1m/jpg/0")  # copies of the right ones, and wrong: they halve what was perfect
    Path("revisitop1m/revisitop1m.txt").write_text("0/a1.png\n0/a2.png\n0/b1.png\n0/b2.png\n")
    line = f"{TRUTH} --images photos --index kept"
    alone, behind = found(capsys, line), found(capsys, f"{line} --distractors revisitop1m")
    assert (alone["database"], behind["database"]) == (8, 12) and behind["neighbourhood"] == "shortlist"
    means = [printed["results"]["without re-ranking"]["medium"]["mAP"] for printed in (alone, behind)]
    assert means[0] == pytest.approx(1.0) and means[1] < 0.9
    with monkeypatch.context() as patch:
        patch.setattr("ssr_lib.commands.evaluate.SHORTLIST", 4)
        assert "k = 4: wanted is 1 to 3" in refused(capsys, f"{line} --distractors revisitop1m --k 4")
        patch.setattr("ssr_lib.commands.evaluate.extract", Mock(side_effect=AssertionError("described twice")))
        assert found(capsys, "evaluate train.csv --images photos --distractors revisitop1m")["database"] == 16
    pytest.importorskip("ray", reason="pip install .[ray]")
    assert found(capsys, f"{line} --index other --engine ray") == alone


def test_evaluate_reads_a_stored_benchmark_as_the_pickle_it_was_made_from(capsys):
    benchmark = read_ground_truth("gnd.pkl", "photos", subset=True)
    benchmark.save("stored.json")
    assert found(capsys, "evaluate --ground-truth stored.json") == found(capsys, f"{TRUTH} --images photos")
    benchmark.select_queries([]).save("none.json")
    assert "none.json has 0 queries and 8 " in refused(capsys, "evaluate --ground-truth none.json")
    os.remove("photos/d1.png")
    assert "1 of 10 pictures (d1.png) are not in " in refused(capsys, "evaluate --ground-truth stored.json")


@pytest.mark.parametrize("ending", [".mat", ".MAT", ".npz"])
@pytest.mark.parametrize("dtype", ["float64", "int8"])
def test_evaluate_reads_published_features_in_place_of_pictures(capsys, ending, dtype):
    queries = np.zeros((2, 8), dtype)  # query 0 is nearest to images 0 and 1, query 1 to 3, then 2
    queries[0, :2], queries[1, 2:4] = (9, 4), (4, 9)
    line = f"{TRUTH} --features features{ending}"

    def store(**arrays):
        with open(f"features{ending}", "wb") as file:
            np.savez(file, **arrays) if ending == ".npz" else savemat(file, arrays)

    store(Q=queries.T, X=np.eye(8, dtype=dtype))  # columns, as the revisited benchmarks publish them
    assert found(capsys, line)["results"]["without re-ranking"]["medium"]["mAP"] == pytest.approx(1.0)
    store(Q=queries, X=np.eye(8))
    assert f"Q is {dtype} (2, 8); wanted numbers (dimension, 2)" in refused(capsys, line)
    Path(f"features{ending}").write_bytes(b"no arrays")
    told = refused(capsys, line)
    assert "it is damaged" in told and "pickle" not in told


@pytest.mark.parametrize("error,status,words", [
    (KeyboardInterrupt(), 130, "interrupted; the same command goes on behind what its index or folder holds, and begins anew without"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory; a smaller --batch-size"),
    (OSError(errno.ENOSPC, "No space left"), 2, "No space left: make room, or name another folder"),
    (KeyError("x"), 2, "unexpected KeyError: 'x'; `ssr --traceback …` shows where, please report it"),
])  # fmt: skip
def test_what_ends_a_command_is_told_in_one_line(monkeypatch, capsys, error, status, words):
    monkeypatch.setattr(search, "index_folder", Mock(side_effect=error))
    assert ssr(SEARCH) == status
    told = capsys.readouterr().err
    assert words in told and len(told.splitlines()) == 1


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = "import sys; import ssr_lib.commands.main as m; m.build_parser(); print({'torch', 'numpy', 'cv2'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("redirection,status,words", [
    (">&-", 2, "output is closed"), (">/dev/full", 2, "No space left on device"), ("| head -0", 0, "")
])  # fmt: skip
def test_a_stream_that_cannot_be_written_is_no_reason_to_fall_over(redirection, status, words):
    command = f"set -o pipefail; {sys.executable} -m ssr_lib fetch {redirection}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert run.returncode == status and words in run.stderr and len(run.stderr.splitlines()) == bool(words)


@pytest.mark.parametrize("name,sizes,mAP", [("holidays", (299, 509), 0.845), ("smvs_landmarks", (101, 101), 0.501)])
def test_untrained_network_finds_real_photographs(extra_data, capsys, name, sizes, mAP):  # as was measured
    assert main(["evaluate", str(extra_data / "photos" / name / "labels.csv"), "--k", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == name and (found["queries"], found["database"]) == sizes
    assert found["results"]["without re-ranking"]["medium"]["mAP"] == pytest.approx(mAP, abs=0.05)
