"""The published ground truth is read exactly, cut-down ones on purpose only, and hostile pickles run nothing."""

import gzip
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from PIL import Image

from ssr_lib.datasets.revisited import read_distractors, read_ground_truth, same_landmark, with_distractors

RECORD = {
    "imlist": ["tower_1", "tower_2", "bridge_1", "hill"],
    "qimlist": ["tower_q", "bridge_q"],
    "gnd": [
        {"easy": [0], "hard": [1], "junk": [3], "bbx": [10.5, 0, 60.2, 40]},
        {"easy": [2], "hard": [], "junk": [], "bbx": [0, 0, 64, 48]},
    ],
}


def write(folder, record=RECORD, protocol=2):
    path = folder / "gnd_cut.pkl"
    path.write_bytes(pickle.dumps(record, protocol=protocol))
    return path


def changed(**entries):
    return {**RECORD, **entries}


@pytest.mark.parametrize("name,n_database,n_groups,n_cut", [("roxford", 4993, 12, 11), ("rparis", 6322, 11, 6)])
def test_published_ground_truth_is_read_as_it_is_in_groups_of_landmarks(extra_data, name, n_database, n_groups, n_cut):
    (file,) = (extra_data / "gnd").glob(f"gnd_{name}?k.pkl")
    benchmark, expected = read_ground_truth(file), pickle.loads(file.read_bytes())
    assert (f"gnd_{benchmark.name}", len(benchmark), len(benchmark.database)) == (file.stem, 70, n_database)
    assert benchmark.database == [f"{image}.jpg" for image in expected["imlist"]]
    assert benchmark.queries == [f"{image}.jpg" for image in expected["qimlist"]]
    for key in ("easy", "hard", "junk"):
        assert [ids.tolist() for ids in getattr(benchmark, key)] == [list(truth[key]) for truth in expected["gnd"]]
    assert benchmark.boxes == [tuple(map(float, truth["bbx"])) for truth in expected["gnd"]]
    folder = extra_data / "photos" / f"{name}_subset"
    cut = read_ground_truth(folder / f"gnd_{name}_subset.pkl", subset=True)
    assert (len(set(benchmark.groups)), len(set(cut.groups))) == (n_groups, n_cut)
    if name == "roxford":  # balliol_000187 stands alone, and has no positive in the subset
        assert benchmark.groups.count("balliol_000187") == 1
        assert [cut.queries[i] for i, ids in enumerate(cut.positives) if len(ids) == 0] == ["balliol_000187.jpg"]


def test_cut_down_file_is_read_when_said_to_be_one(tmp_path):
    with pytest.raises(ValueError, match="not the published"):
        read_ground_truth(write(tmp_path))
    benchmark = read_ground_truth(write(tmp_path), subset=True)
    assert benchmark.name == "cut (cut down)" and benchmark.boxes[0] == (10.5, 0, 60.2, 40)
    assert [ids.tolist() for ids in benchmark.hard] == [[1], []] and benchmark.groups == ["tower_q", "bridge_q"]
    whole = [{key: ids for key, ids in truth.items() if key != "bbx"} for truth in RECORD["gnd"]]
    assert read_ground_truth(write(tmp_path, changed(gnd=whole)), subset=True).boxes == [None, None]


TRUTH = {"easy": np.array([0, 2]), "hard": np.array([], dtype=np.int32), "junk": [np.int64(3)],
         "bbx": np.array([10.5, 0, 60.2, 40])}  # fmt: skip
FORMS = {
    "arrays": changed(gnd=[TRUTH, TRUTH]),
    "byte order": changed(gnd=[{**TRUTH, "easy": np.array([0, 2], dtype=">i4")}] * 2),
    "sets": changed(gnd=[{**TRUTH, "easy": {2, 0}, "hard": frozenset()}] * 2),
    "ordered": OrderedDict(changed(gnd=[OrderedDict(TRUTH)] * 2)),
    "text": changed(imlist=np.array(RECORD["imlist"]), qimlist=np.array(RECORD["qimlist"], dtype="S"), gnd=[TRUTH] * 2),
    "ok and junk": changed(gnd=[{"ok": [0, 2], "junk": [3], "bbx": (10.5, 0, 60.2, 40)}] * 2),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", FORMS)
def test_arrays_sets_and_older_keys_of_every_protocol_are_the_same_ground_truth(tmp_path, form, protocol):
    benchmark = read_ground_truth(write(tmp_path, FORMS[form], protocol), subset=True)
    assert benchmark.database == [f"{name}.jpg" for name in RECORD["imlist"]]
    assert benchmark.queries == [f"{name}.jpg" for name in RECORD["qimlist"]]
    lists = [benchmark.easy, benchmark.hard, benchmark.junk]
    assert [[ids.tolist() for ids in of_queries] for of_queries in lists] == [[[0, 2]] * 2, [[]] * 2, [[3]] * 2]
    assert benchmark.boxes == [(10.5, 0.0, 60.2, 40.0)] * 2


def python2(name):
    """What Python 2 writes for {"imlist": [name], "qimlist": ["q"], "gnd": [{"easy": numpy.array([0]), …}]}."""

    def string(data):
        return b"U" + bytes([len(data)]) + data

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR(K\x01K\x01\x85cnumpy\ndtype\n(U\x02i8K\0K\x01"
        b"tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89U\x08" + bytes(8) + b"tb"
    )
    truth = b"}(" + string(b"easy") + array + string(b"hard") + b"]" + string(b"junk") + b"]u"
    fields = string(b"imlist") + b"](" + string(name) + b"e" + string(b"qimlist") + b"](" + string(b"q") + b"e"
    return b"\x80\x02}(" + fields + string(b"gnd") + b"](" + truth + b"eu."


@pytest.mark.parametrize("codec", ["utf-8", "latin1"])
def test_names_that_python_2_wrote_are_read_as_utf_8_or_else_as_latin_1(tmp_path, codec):
    (tmp_path / "gnd.pkl").write_bytes(python2("château".encode(codec)))
    benchmark = read_ground_truth(tmp_path / "gnd.pkl", subset=True)
    assert benchmark.database == ["château.jpg"] and benchmark.easy[0].tolist() == [0]


def test_query_that_is_a_database_image_is_known_as_such(tmp_path):
    itself = {**RECORD["gnd"][1], "easy": [3], "junk": [2]}
    own = changed(qimlist=["tower_q", "bridge_1"], gnd=[RECORD["gnd"][0], itself])
    assert read_ground_truth(write(tmp_path, own), subset=True).query_ids == [-1, 2]
    with pytest.raises(ValueError, match="query 1: bridge_1 is a positive of itself"):
        read_ground_truth(write(tmp_path, changed(qimlist=["tower_q", "bridge_1"])), subset=True)


def test_queries_are_of_one_landmark_from_a_jaccard_index_of_three_tenths_on():
    positives = [range(10), range(7, 10), [9, 20], range(20, 30), range(24, 44), range(25, 44)]
    assert same_landmark(positives) == [0, 0, 2, 3, 4, 4], "3 of 10, 1 of 11, 6 of 24, 19 of 20"
    assert same_landmark([[1, 2], [5], [2, 3], [3, 4], [], [5, 6]]) == [0, 1, 0, 0, 4, 1], "in chains too, 1 of 3"
    assert same_landmark([[7], [], []]) == [0, 1, 2]


def draw(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(folder / file)


FILES = ["tower_1.jpg", "tower_2.png", "bridge_1.jpg", "hill.jpeg", "tower_q.jpg", "bridge_q.jpg"]


@pytest.mark.parametrize("place", [".", "jpg"])
def test_pictures_are_found_in_the_folder_or_in_its_jpg_with_their_extension(tmp_path, place):
    draw(tmp_path / place, *FILES)
    benchmark = read_ground_truth(write(tmp_path), tmp_path, subset=True)
    assert benchmark.root == tmp_path / place
    assert benchmark.database == FILES[:4] and benchmark.queries == FILES[4:]
    own = changed(qimlist=["tower_q", "hill.jpeg"])  # the file's own name, with and without its extension
    assert read_ground_truth(write(tmp_path, own), tmp_path, subset=True).query_ids == [-1, 3]


@pytest.mark.parametrize("box,orientation,fits", [((10, 10, 640, 480), 1, False), ((0, 0, 40, 60), 1, False),
                                                  ((0, 0, 40, 60), 6, True), ((0, 0, 64, 48), 6, True)])  # fmt: skip
def test_a_box_fits_its_picture_on_its_side_or_upright_or_is_refused_first(tmp_path, box, orientation, fits):
    draw(tmp_path, *FILES)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (64, 48)).save(tmp_path / "tower_q.jpg", exif=exif)
    file = write(tmp_path, changed(gnd=[{**RECORD["gnd"][0], "bbx": box}, RECORD["gnd"][1]]))
    if fits:
        assert read_ground_truth(file, tmp_path, subset=True).boxes[0] == box
        return
    with pytest.raises(ValueError, match=r"tower_q\.jpg: box .* of 64 x 48 px"):
        read_ground_truth(file, tmp_path, subset=True)


Q0, Q1 = RECORD["gnd"]


@pytest.mark.parametrize("record,words", [
    ([1, 2], r"cut\.pkl is refused \(.*'list' .*\); wanted is a pickle of imlist, qimlist, gnd"),
    ({"gnd": [], "imlist": []}, r"KeyError: 'qimlist'"),
    (changed(gnd=[Q0]), "1 entries in 'easy' for 2 queries"),
    (changed(imlist=np.array(["a", "b"], dtype=object)), "an array of object; only numbers and text are read"),
    *((changed(imlist=[name, "a", "b", "c"]), "not the name of a picture inside") for name in ("../../etc/passwd", "/a", "C:a")),
    (changed(gnd=[{"easy": [0], "good": []}, Q1]), "KeyError: 'hard'"),
    *((changed(gnd=[Q0, {**Q1, "easy": ids}]), words) for ids, words in (
        ([4], "outside the database of 4 images"), ([3, 3], "more than once"), ([-1], "outside"), ([2**70], "too large"),
        ([0.5], "'float' object cannot be interpreted as an integer"), (None, "'NoneType' .* not iterable"),
    )),
    *((changed(gnd=[{**Q0, "bbx": box}, Q1]), words) for box, words in (
        ([0, 0, 9], "x0 < x1"), (["a", 0, 9, 9], "string to float: 'a'"), ([0, 0, float("nan"), 9], "x0 < x1"),
        ([0, 0, 10**400, 9], "too large"),
    )),
])  # fmt: skip
def test_ground_truth_that_contradicts_itself_is_refused(tmp_path, record, words):
    with pytest.raises(ValueError, match=words):
        read_ground_truth(write(tmp_path, record), subset=True)


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(marker):
    return {
        "os.system": pickle.dumps(Runs(os.system, f"touch {marker}")),
        "exec": pickle.dumps(changed(gnd=Runs(exec, f"open({str(marker)!r}, 'w')"))),
        "getattr": b"cbuiltins\ngetattr\n(cos\nS'system'\ntR.",
        "numpy.load": b"cnumpy\nload\n(S'x.npy'\ntR.",
        "numpy dotted": b"\x80\x04\x8c\x05numpy\x8c\x0df2py.os.system\x93\x8c\x04true\x85R.",
        "bytearray bomb": b"cbuiltins\nbytearray\n(L1000000000000L\ntR.",
        "array bomb": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000000L\ntS'b'\ntR.",
        "array of structures": b"cnumpy\ndtype\n(S'V1000000000'\nI0\nI1\ntR.",
        "array that points anywhere": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI63\ntbI00\nS'AAAAAAAAAAAAAAAA'\ntb.",
        "bytes claimed": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        "memory claimed": b"\x80\x02Nr" + (2**31).to_bytes(4, "little") + b".",
        "persistent id": b"Pgo\n.",
    }


@pytest.mark.parametrize("kind", list(hostile("x")))
def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path, kind):
    marker = tmp_path / "it-ran"
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(hostile(marker)[kind])
    with pytest.raises(ValueError, match=r"gnd_roxford5k\.pkl is refused"):
        read_ground_truth(path, subset=True)
    assert not marker.exists()


@pytest.mark.parametrize("made", [
    gzip.compress, lambda data: data[:100], lambda data: data.replace(b"qimlist", b"qimlis\x81"), lambda data: b"",
    lambda data: b"\xff\xd8\xff\xe0\0\x10JFIF\0",
])  # fmt: skip
def test_pictures_compressed_cut_and_damaged_pickles_are_refused_in_one_line(tmp_path, made):
    (tmp_path / "gnd.pkl").write_bytes(made(pickle.dumps(RECORD, protocol=0)))
    with pytest.raises(ValueError, match=r"gnd\.pkl is refused \(.+\); wanted is .*, whole and not compressed$"):
        read_ground_truth(tmp_path / "gnd.pkl", subset=True)


def test_distractors_follow_the_database_and_change_no_answer(tmp_path):
    draw(tmp_path / "set", *FILES)
    draw(tmp_path / "million" / "jpg", "0a/x.jpg", "0b/y.jpg")
    (tmp_path / "million" / "revisitop1m.txt").write_text("0a/x.jpg\n0b/y.jpg\n")
    benchmark = read_ground_truth(write(tmp_path), tmp_path / "set", subset=True)
    files = read_distractors(tmp_path / "million")
    assert files == ["jpg/0a/x.jpg", "jpg/0b/y.jpg"]
    larger = with_distractors(benchmark, files, tmp_path / "million")
    assert larger.name == "cut (cut down)+2"
    assert larger.database[:4] == benchmark.database and len(larger.database) == 6
    assert [ids.tolist() for ids in larger.easy] == [ids.tolist() for ids in benchmark.easy]
    (tmp_path / "revisitop1m.txt").write_text("../../etc/passwd\n")
    with pytest.raises(ValueError, match=r"revisitop1m\.txt is empty, or names a file outside"):
        read_distractors(tmp_path)
