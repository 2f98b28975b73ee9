"""The published ground truth is read exactly, cut-down ones on purpose only, and hostile pickles run nothing."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets import revisited
from ssr_lib.datasets.revisited import read_distractors, read_ground_truth, shared_positives, with_distractors
from ssr_lib.datasets.unpickle import unpickle
from ssr_lib.images import PRESETS, ImageError
from ssr_lib.loading import load_tensors

RECORD = {
    "imlist": ["tower_1", "tower_2", "bridge_1", "hill"],
    "qimlist": ["tower_q", "bridge_q"],
    "gnd": [
        {"easy": [0], "hard": [1], "junk": [3], "bbx": [10.5, 0, 60.2, 40]},
        {"easy": [2], "hard": [], "junk": [], "bbx": [0, 0, 64, 48]},
    ],
}


@pytest.fixture
def gnd(extra_data):
    return extra_data / "gnd"


def write(folder, record=RECORD, protocol=2):
    path = folder / "gnd_cut.pkl"
    path.write_bytes(pickle.dumps(record, protocol=protocol))
    return path


def changed(**entries):
    return {**RECORD, **entries}


# ---- the published files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,n_database,n_groups", [("roxford5k", 4993, 7), ("rparis6k", 6322, 7)])
def test_published_ground_truth_is_read_as_it_is(gnd, name, n_database, n_groups):
    benchmark = read_ground_truth(gnd / f"gnd_{name}.pkl")
    with open(gnd / f"gnd_{name}.pkl", "rb") as file:
        expected = pickle.load(file)
    assert (benchmark.name, len(benchmark), len(benchmark.database)) == (name, 70, n_database)
    assert benchmark.database == [f"{image}.jpg" for image in expected["imlist"]]
    assert benchmark.queries == [f"{image}.jpg" for image in expected["qimlist"]]
    for i, truth in enumerate(expected["gnd"]):
        assert [getattr(benchmark, key)[i].tolist() for key in ("easy", "hard", "junk")] == [
            list(truth[key]) for key in ("easy", "hard", "junk")
        ]
        assert benchmark.boxes[i] == tuple(map(float, truth["bbx"]))
    assert len(set(benchmark.groups)) == n_groups and benchmark.query_ids == [-1] * 70


def test_queries_of_different_groups_share_no_positive(gnd):
    benchmark = read_ground_truth(gnd / "gnd_roxford5k.pkl")
    by_group = {}
    for group, easy, hard in zip(benchmark.groups, benchmark.easy, benchmark.hard, strict=True):
        by_group.setdefault(group, set()).update(easy.tolist(), hard.tolist())
    total = sum(len(ids) for ids in by_group.values())
    assert total == len(set().union(*by_group.values()))


def test_published_file_with_one_byte_changed_is_refused_by_name(gnd, tmp_path):
    data = bytearray((gnd / "gnd_roxford5k.pkl").read_bytes())
    place = data.index(b"ashmolean_000283")
    data[place] = ord("b")
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"gnd_roxford5k\.pkl is not the published .*subset=True"):
        read_ground_truth(tmp_path / "gnd_roxford5k.pkl")


# ---- cut-down files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_cut_down_file_of_every_protocol_is_read_when_said_to_be_one(tmp_path, protocol):
    path = write(tmp_path, protocol=protocol)
    with pytest.raises(ValueError, match="not the published"):
        read_ground_truth(path)
    benchmark = read_ground_truth(path, subset=True)
    assert benchmark.name == "cut (cut down)" and benchmark.boxes[0] == (10.5, 0, 60.2, 40)
    assert [ids.tolist() for ids in benchmark.hard] == [[1], []] and benchmark.groups == ["tower_q", "bridge_q"]


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_arrays_and_numbers_are_admitted(tmp_path, protocol):
    truth = {"easy": np.array([0, 2]), "hard": np.array([], dtype=np.int32), "junk": [np.int64(3)]}
    truth["bbx"] = np.array([10.5, 0, 60.2, 40])
    benchmark = read_ground_truth(write(tmp_path, changed(gnd=[truth, truth]), protocol), subset=True)
    assert benchmark.easy[0].tolist() == [0, 2] and benchmark.junk[1].tolist() == [3]
    assert benchmark.boxes[0] == (10.5, 0.0, 60.2, 40.0)


def test_benchmark_survives_json(tmp_path):
    benchmark = read_ground_truth(write(tmp_path), subset=True)
    benchmark.save(tmp_path / "cut.json")
    again = Benchmark.load(tmp_path / "cut.json")
    assert again.boxes == benchmark.boxes and again.groups == benchmark.groups and again.queries == benchmark.queries


def test_query_that_is_a_database_image_is_known_as_such(tmp_path):
    itself = {**RECORD["gnd"][1], "easy": [3], "junk": [2]}
    own = changed(qimlist=["tower_q", "bridge_1"], gnd=[RECORD["gnd"][0], itself])
    assert read_ground_truth(write(tmp_path, own), subset=True).query_ids == [-1, 2]
    with pytest.raises(ValueError, match="query 1: bridge_1 is a database image and a positive of itself"):
        read_ground_truth(write(tmp_path, changed(qimlist=["tower_q", "bridge_1"])), subset=True)


def test_query_without_box_is_used_whole(tmp_path):
    truths = [{k: v for k, v in truth.items() if k != "bbx"} for truth in RECORD["gnd"]]
    assert read_ground_truth(write(tmp_path, changed(gnd=truths)), subset=True).boxes == [None, None]


def test_groups_are_joined_through_shared_positives():
    assert shared_positives([{1, 2}, {3}, {2, 4}, {5}, {4, 3}, set()]) == [0, 0, 0, 3, 0, 5]


# ---- pictures ------------------------------------------------------------------------------------------------------


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
    assert all((benchmark.root / name).is_file() for name in FILES)


def test_missing_pictures_are_all_named(tmp_path):
    draw(tmp_path, *FILES)
    (tmp_path / "hill.jpeg").unlink()
    (tmp_path / "tower_q.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 6 pictures are not in .*: hill, tower_q"):
        read_ground_truth(write(tmp_path), tmp_path, subset=True)


def test_box_outside_its_picture_is_found_before_anything_is_described(tmp_path):
    draw(tmp_path, *FILES)
    record = changed(gnd=[{**RECORD["gnd"][0], "bbx": [10, 10, 640, 480]}, RECORD["gnd"][1]])
    file = write(tmp_path, record)
    with pytest.raises(
        ValueError, match=r"1 queries cannot be cropped: tower_q\.jpg: box .* in a picture of 64 x 48 px"
    ):
        read_ground_truth(file, tmp_path, subset=True)
    benchmark = read_ground_truth(file, subset=True)  # without pictures it is found when one is opened
    with pytest.raises(ImageError, match=r"tower_q\.jpg: box .* does not lie in a picture of 64 x 48 px"):
        load_tensors(tmp_path / benchmark.queries[0], PRESETS["senet"], benchmark.boxes[0])


def test_a_box_may_fit_a_picture_on_its_side_or_upright(tmp_path):
    draw(tmp_path, *FILES)
    record = changed(gnd=[{**RECORD["gnd"][0], "bbx": [0, 0, 40, 60]}, RECORD["gnd"][1]])
    with pytest.raises(ValueError, match="cannot be cropped"):
        read_ground_truth(write(tmp_path, record), tmp_path, subset=True)
    name = f"{RECORD['qimlist'][0]}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(next(tmp_path.rglob(name)), exif=exif)
    assert read_ground_truth(write(tmp_path, record), tmp_path, subset=True).boxes[0] == (0, 0, 40, 60)


def test_a_query_that_is_no_picture_is_named(tmp_path):
    draw(tmp_path, *FILES)
    next(tmp_path.rglob(f"{RECORD['qimlist'][0]}.jpg")).write_bytes(b"text")
    with pytest.raises(ImageError, match=r"tower_q\.jpg: its size cannot be read"):
        read_ground_truth(write(tmp_path), tmp_path, subset=True)


# ---- contradictions ------------------------------------------------------------------------------------------------

Q0, Q1 = RECORD["gnd"]


@pytest.mark.parametrize(
    "record,words",
    [
        ([1, 2], "a dictionary of gnd, imlist, qimlist is wanted, it is a list"),
        ({"gnd": [], "imlist": []}, "a dictionary of gnd, imlist, qimlist"),
        (changed(gnd=[Q0]), "1 entries in gnd for 2 queries"),
        (changed(gnd=[], qimlist=[]), "0 entries in gnd"),
        (changed(imlist="tower"), "imlist is a str"),
        (changed(imlist=["tower_1", 2, "a", "b"]), "imlist holds something that is not a name"),
        (changed(imlist=["../../etc/passwd", "a", "b", "c"]), "not the name of a picture inside"),
        (changed(qimlist=["/etc/passwd", "a"]), "not the name of a picture inside"),
        (changed(gnd=[{**Q0, "easy": [4]}, Q1]), "outside the database of 4 images"),
        (changed(gnd=[{**Q0, "easy": [-1]}, Q1]), "outside the database"),
        (changed(gnd=[{**Q0, "junk": [0]}, Q1]), "more than once, in easy and junk"),
        (changed(gnd=[{**Q0, "easy": [0, 0]}, Q1]), "more than once"),
        (changed(gnd=[{**Q0, "easy": [0.5]}, Q1]), "query 0: easy holds something that is no whole number"),
        (changed(gnd=[{**Q0, "easy": [[0]]}, Q1]), "no whole number"),
        (changed(gnd=[{**Q0, "easy": {0}}, Q1]), "easy is a set"),
        (changed(gnd=[{"ok": [0]}, Q1]), "query 0: easy, hard and junk are wanted"),
        (changed(gnd=[{**Q0, "bbx": [0, 0, 9]}, Q1]), "four numbers are wanted"),
        (changed(gnd=[{**Q0, "bbx": ["a", 0, 9, 9]}, Q1]), "four numbers are wanted"),
        (changed(gnd=[{**Q0, "bbx": [9, 0, 3, 9]}, Q1]), "x0 < x1"),
        (changed(gnd=[{**Q0, "bbx": [0, 0, float("nan"), 9]}, Q1]), "x0 < x1"),
    ],
)
def test_ground_truth_that_contradicts_itself_is_refused(tmp_path, record, words):
    with pytest.raises(ValueError, match=words):
        read_ground_truth(write(tmp_path, record), subset=True)


# ---- hostile files -------------------------------------------------------------------------------------------------


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested(levels):
    """A pickle of tuples in tuples, each twice in the next: short, and 2^levels long to hash, compare or print."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * levels


def hostile(marker):
    return {
        "os.system": pickle.dumps(Runs(os.system, f"touch {marker}")),
        "eval": pickle.dumps(Runs(eval, f"open({str(marker)!r}, 'w')")),
        "exec": pickle.dumps(changed(gnd=Runs(exec, f"open({str(marker)!r}, 'w')"))),
        "getattr": b"cbuiltins\ngetattr\n(cos\nS'system'\ntR.",
        "import": b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.",
        "numpy.load": b"cnumpy\nload\n(S'x.npy'\ntR.",
        "numpy dotted": b"\x80\x04\x8c\x05numpy\x8c\x0df2py.os.system\x93\x8c\x04true\x85R.",
        "bytearray bomb": b"cbuiltins\nbytearray\n(L1000000000000L\ntR.",
        "array bomb": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000000L\ntS'b'\ntR.",
        "array called": b"cnumpy\nndarray\n((L1000000000000L\ntS'b'\ntR.",
        "array of pointers": b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        "scalar bomb": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V1000000000'\nI0\nI1\ntRS''\ntR.",
        "bytes bomb": b"c__builtin__\nbytes\n(L1000000000000L\ntR.",
        "bytearray claimed": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        "nested keys": nested(60) + b"q\x01}h\x01Ns.",
        "nested in a set": nested(60) + b"q\x01cbuiltins\nset\nh\x01\x85R.",
        "persistent id": b"Pgo\n.",
        "extension": b"\x80\x02\x82\x01.",
    }


@pytest.mark.parametrize("kind", list(hostile("x")))
def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path, kind):
    marker = tmp_path / "it-ran"
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(hostile(marker)[kind])
    with pytest.raises(ValueError, match=r"gnd_roxford5k\.pkl is refused"):
        read_ground_truth(path, subset=True)
    assert not marker.exists()


def test_claims_of_memory_and_time_cost_neither(tmp_path):
    (tmp_path / "memo.pkl").write_bytes(b"\x80\x02Nr" + (2**31).to_bytes(4, "little") + b".")
    with pytest.raises(ValueError, match="it is a NoneType"):
        read_ground_truth(tmp_path / "memo.pkl", subset=True)
    endless = [0]
    for _ in range(60):
        endless = [endless, endless]
    for truth in (endless, {**RECORD["gnd"][0], "easy": endless}, {**RECORD["gnd"][0], "bbx": [endless] * 4}):
        with pytest.raises(ValueError, match=r"gnd_cut\.pkl, query 0"):
            read_ground_truth(write(tmp_path, changed(gnd=[truth, RECORD["gnd"][1]])), subset=True)


def test_truncated_and_damaged_pickles_are_refused(tmp_path):
    data = pickle.dumps(RECORD, protocol=2)
    rng = np.random.default_rng(0)
    path = tmp_path / "gnd.pkl"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"gnd\.pkl"):
            read_ground_truth(path, subset=True)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(read_ground_truth(path, subset=True), Benchmark)
        except ValueError:
            continue  # the only kind of error there may be


def test_enormous_file_is_not_even_read(tmp_path):
    with open(tmp_path / "gnd.pkl", "wb") as file:
        file.truncate(revisited.MAX_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(ValueError, match="bytes; 1 to"):
        read_ground_truth(tmp_path / "gnd.pkl", subset=True)


def test_unpickler_of_the_tests_is_the_one_in_use():
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system|nt\.system"):
        unpickle(pickle.dumps(os.system))


# ---- distractors ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("content", ["", "../../etc/passwd\n", "/etc/passwd\n"])
def test_bad_list_of_distractors_is_refused(tmp_path, content):
    (tmp_path / "revisitop1m.txt").write_text(content)
    with pytest.raises(ValueError, match=r"revisitop1m\.txt"):
        read_distractors(tmp_path)
