"""The published ground truth is read exactly, cut-down ones on purpose only, and hostile pickles run nothing."""

import gzip
import pickle
from collections import OrderedDict
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ssr_lib.benchmark import LISTS, Benchmark
from ssr_lib.datasets import revisited
from ssr_lib.datasets.revisited import read_ground_truth
from ssr_lib.study.provenance import repository_root

Q0 = {"easy": [0], "hard": [1], "junk": [3], "bbx": [10.5, 0, 60.2, 40]}
Q1 = {"easy": [2], "hard": [], "junk": [], "bbx": [0, 0, 64, 48]}
RECORD = {"imlist": ["tower_1", "tower_2", "bridge_1", "hill"], "qimlist": ["tower_q", "bridge_q"], "gnd": [Q0, Q1]}
TRUTH = {"easy": np.array([0, 2]), "hard": np.array([], dtype=np.int32), "junk": [np.int64(3)],
         "bbx": np.array([10.5, 0, 60.2, 40])}  # fmt: skip
changed = partial(dict, RECORD)  # with other entries
FILES = ["tower_1.jpg", "tower_2.png", "bridge_1.jpg", "hill.jpeg", "tower_q.jpg", "bridge_q.jpg"]
REDUCED = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
ARRAY = REDUCED + b"K\0\x85U\x01btR(K\x01K\x01\x85cnumpy\ndtype\n(U\x02i8K\0K\x01tR(K\x03U\x01<NNN"
ARRAY += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89U\x08" + bytes(8) + b"tb"  # numpy.array([0]) in Python 2


def write(folder, record=RECORD, protocol=2):
    (folder / "gnd_cut.pkl").write_bytes(pickle.dumps(record, protocol=protocol))
    return folder / "gnd_cut.pkl"


@pytest.mark.parametrize("name,n_database,n_groups,n_cut,n_labelled", [
    ("roxford", 4993, 12, 11, (70, 775, 735)), ("rparis", 6322, 11, 6, (12, 267, 241))
])  # fmt: skip
def test_published_ground_truth_is_read_exactly(extra_data, name, n_database, n_groups, n_cut, n_labelled):
    (file,) = (extra_data / "gnd").glob(f"gnd_{name}?k.pkl")
    benchmark, expected = read_ground_truth(file), pickle.loads(file.read_bytes())
    assert (f"gnd_{benchmark.name}", len(benchmark), len(benchmark.database)) == (file.stem, 70, n_database)
    assert benchmark.database == [f"{image}.jpg" for image in expected["imlist"]]
    assert benchmark.queries == [f"{image}.jpg" for image in expected["qimlist"]]
    for key in LISTS:
        assert [ids.tolist() for ids in getattr(benchmark, key)] == [list(truth[key]) for truth in expected["gnd"]]
    assert benchmark.boxes == [tuple(map(float, truth["bbx"])) for truth in expected["gnd"]]
    cut = read_ground_truth(extra_data / "photos" / f"{name}_subset" / f"gnd_{name}_subset.pkl", subset=True)
    assert (len(set(benchmark.groups)), len(set(cut.groups))) == (n_groups, n_cut)
    if name == "roxford":  # balliol_000187 stands alone, and has no positive in the subset
        assert benchmark.groups.count("balliol_000187") == 1
        assert len(cut.positives[cut.queries.index("balliol_000187.jpg")]) == 0
    names = revisited.read_names(repository_root() / "data" / f"{benchmark.name}_labelled.txt")
    labelled = read_ground_truth(file, names=names)
    assert (len(labelled), len(labelled.database), len({*np.concatenate(labelled.positives)})) == n_labelled
    for i, j in enumerate(cut.queries.index(query) for query in labelled.queries):
        for key in LISTS:
            found, wanted = getattr(labelled, key)[i], getattr(cut, key)[j]
            assert {labelled.database[k] for k in found} == {cut.database[k] for k in wanted}


def test_cut_down_file_is_read_when_said_to_be_one(tmp_path):
    with pytest.raises(ValueError, match="not the published"):
        read_ground_truth(write(tmp_path))
    benchmark = read_ground_truth(write(tmp_path, changed(gnd=[Q0, {key: Q1[key] for key in LISTS}])), subset=True)
    assert benchmark.name == "cut (cut down)" and benchmark.boxes == [(10.5, 0, 60.2, 40), None]
    assert [ids.tolist() for ids in benchmark.hard] == [[1], []] and benchmark.groups == ["tower_q", "bridge_q"]


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
    assert benchmark.database + benchmark.queries == [f"{name}.jpg" for name in RECORD["imlist"] + RECORD["qimlist"]]
    for key, ids in zip(LISTS, ([0, 2], [], [3]), strict=True):
        assert [found.tolist() for found in getattr(benchmark, key)] == [ids] * 2
    assert benchmark.boxes == [(10.5, 0.0, 60.2, 40.0)] * 2


@pytest.mark.parametrize("codec", ["utf-8", "latin1"])
def test_names_that_python_2_wrote_are_read_as_utf_8_or_else_as_latin_1(tmp_path, codec):
    name = "château".encode(codec)
    record = {"imlist": ["NAME"], "qimlist": ["q"], "gnd": [{"easy": "ARRAY", "hard": [], "junk": []}]}
    data = pickle.dumps(record, protocol=2).replace(b"X\4\0\0\0NAME", b"U" + bytes([len(name)]) + name)
    data = data.replace(b"X\5\0\0\0ARRAY", ARRAY).replace(b"X", b"T")  # T: a string of bytes, as the keys are there
    (tmp_path / "gnd.pkl").write_bytes(data)
    benchmark = read_ground_truth(tmp_path / "gnd.pkl", subset=True)
    assert benchmark.database == ["château.jpg"] and benchmark.easy[0].tolist() == [0]


def test_queries_are_of_one_landmark_from_a_jaccard_index_of_three_tenths_on():
    positives = [range(10), range(7, 10), [9, 20], range(20, 30), range(24, 44), range(25, 44)]
    assert revisited.same_landmark(positives) == [0, 0, 2, 3, 4, 4], "3 of 10, 1 of 11, 6 of 24, 19 of 20"
    assert revisited.same_landmark([[1, 2], [5], [2, 3], [3, 4], [], [5, 6], []]) == [0, 1, 0, 0, 4, 1, 6]
    benchmark = Benchmark("b", ".", list("abcd"), "qrs", [[0, 1], [1], [3]], [[]] * 3, [[]] * 3, groups="xyx")
    ids, landmarks = revisited.one_landmark(benchmark)
    assert (ids.tolist(), landmarks) == ([0, 3], ["x", "x"]), "1 shows two landmarks"


def draw(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(folder / file)


@pytest.mark.parametrize("place", [".", "jpg"])
def test_pictures_are_found_in_the_folder_or_in_its_jpg_with_their_extension(tmp_path, place):
    draw(tmp_path / place, *FILES)
    benchmark = read_ground_truth(write(tmp_path), tmp_path, subset=True)
    assert (benchmark.root, benchmark.database, benchmark.queries) == (tmp_path / place, FILES[:4], FILES[4:])
    own = changed(qimlist=["tower_q", "hill.jpeg"])  # the file's own name, with and without its extension
    assert read_ground_truth(write(tmp_path, own), tmp_path, subset=True).query_ids == [-1, 3]


@pytest.mark.parametrize("width,scale", [("", 1), (" 128", 0.5)])
def test_names_not_listed_leave_every_list_and_boxes_are_scaled_to_copies(tmp_path, width, scale):
    draw(tmp_path, "tower_1.jpg", "hill.jpeg", "tower_q.jpg")
    (tmp_path / "list.txt").write_text(f"# queries\ntower_q{width}  # px\n\n# database\ntower_1\nhill\n")
    names = revisited.read_names(tmp_path / "list.txt")
    benchmark = read_ground_truth(write(tmp_path), tmp_path, subset=True, names=names)
    assert (benchmark.queries, benchmark.database) == (["tower_q.jpg"], ["tower_1.jpg", "hill.jpeg"])
    assert [getattr(benchmark, key)[0].tolist() for key in LISTS] == [[0], [], [1]]
    assert benchmark.boxes == [tuple(scale * side for side in Q0["bbx"])]


@pytest.mark.parametrize("box,orientation,fits", [((10, 10, 640, 480), 1, False), ((0, 0, 40, 60), 1, False),
                                                  ((0, 0, 40, 60), 6, True), ((0, 0, 64, 48), 6, True)])  # fmt: skip
def test_a_box_outside_its_picture_which_may_lie_on_its_side_is_refused_first(tmp_path, box, orientation, fits):
    draw(tmp_path, *FILES)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (64, 48)).save(tmp_path / "tower_q.jpg", exif=exif)
    file = write(tmp_path, changed(gnd=[{**Q0, "bbx": box}, Q1]))
    with nullcontext() if fits else pytest.raises(ValueError, match=r"tower_q\.jpg: box .* of 64 x 48 px"):
        assert read_ground_truth(file, tmp_path, subset=True).boxes[0] == box


@pytest.mark.parametrize("record,words", [
    ([1, 2], r"cut\.pkl is refused; wanted is a pickle of imlist, qimlist, gnd .*: AttributeError: 'list'"),
    ({"gnd": [], "imlist": []}, r"KeyError: 'qimlist'"), (changed(gnd=[Q0]), "1 entries in 'easy' for 2 queries"),
    (changed(qimlist=[], gnd=[]), r"cut\.pkl has 0 queries"),
    (changed(qimlist=["tower_q", "bridge_1"]), "query 1: bridge_1 is a positive of itself"),
    (changed(imlist=np.array(["a", "b"], dtype=object)), "an array of object; only numbers and text are read"),
    *((changed(imlist=[name, "a", "b", "c"]), "not the name of a picture") for name in ("../../etc/passwd", "/a", "C:a")),
    (changed(gnd=[{"easy": [0], "good": []}, Q1]), "KeyError: 'hard'"),
    *((changed(gnd=[Q0, {**Q1, "easy": ids}]), words) for ids, words in (
        ([4], "outside the database of 4 images"), ([3, 3], "more than once"), ([-1], "outside"), ([2**70], "too large"),
        ([0.5], "'float' object cannot be interpreted as an integer"), (None, "'NoneType' .* not iterable"))),
    *((changed(gnd=[{**Q0, "bbx": [*box, 9]}, Q1]), words) for box, words in (
        ([0, 0], "x0 < x1"), (["a", 0, 9], "to float: 'a'"), ([0, 0, float("nan")], "x0 < x1"), ([0, 0, 10**400], "too large"))),
])  # fmt: skip
def test_ground_truth_that_contradicts_itself_is_refused(tmp_path, record, words):
    with pytest.raises(ValueError, match=words):
        read_ground_truth(write(tmp_path, record), subset=True)


HOSTILE = {
    "os.system": b"cposix\nsystem\n(S'touch it-ran'\ntR.", "array bomb": REDUCED + b"(L1000000000000L\ntS'b'\ntR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0df2py.os.system\x93\x8c\x0ctouch it-ran\x85R.", "persistent id": b"Pgo\n.",
    "array of structures": b"cnumpy\ndtype\n(S'V1000000000'\nI0\nI1\ntR.",
    "array that points anywhere": REDUCED + b"(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1"
    b"\nI63\ntbI00\nS'AAAAAAAAAAAAAAAA'\ntb.", "bytes claimed": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "memory claimed": b"\x80\x02Nr" + (2**31).to_bytes(4, "little") + b".",
    "compressed": gzip.compress(pickle.dumps(RECORD)), "cut": pickle.dumps(RECORD)[:100], "empty": b"",
    "damaged": pickle.dumps(RECORD, 0).replace(b"qimlist", b"qimlis\x81"), "a picture": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_damaged_pickles_are_refused_in_one_line_and_run_nothing(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gnd.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(ValueError, match=r"^gnd\.pkl is refused; wanted is .*, whole and not compressed: .+$"):
        read_ground_truth("gnd.pkl", subset=True)
    assert not (tmp_path / "it-ran").exists()


def test_distractors_follow_the_database_and_change_no_answer(tmp_path):
    draw(tmp_path / "set", *FILES)
    (tmp_path / "revisitop1m.txt").write_bytes(b"0a/x.jpg\n0b/\xe9.jpg\n")
    benchmark = read_ground_truth(write(tmp_path), tmp_path / "set", subset=True)
    larger = revisited.with_distractors(benchmark, revisited.read_distractors(tmp_path), tmp_path)
    assert larger.database == [*benchmark.database, "../jpg/0a/x.jpg", "../jpg/0b/\udce9.jpg"]
    assert [ids.tolist() for ids in larger.easy] == [ids.tolist() for ids in benchmark.easy]
    (tmp_path / "revisitop1m.txt").write_text("../../etc/passwd\n")
    with pytest.raises(ValueError, match=r"revisitop1m\.txt is empty, or names a file outside"):
        revisited.read_distractors(tmp_path)
