"""A data set asked for by name becomes a folder the project reads; what cannot be had is said with where to put it."""

import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import pickle
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from test_archives import make_tar, make_zip

from ssr_lib.benchmark import Benchmark
from ssr_lib.commands.main import main
from ssr_lib.datasets import fetch as download
from ssr_lib.datasets.archives import ArchiveError
from ssr_lib.datasets.fetch import DATA_SETS, DataSet, Source, fetch
from ssr_lib.datasets.folder import read_labels
from ssr_lib.datasets.revisited import read_distractors, read_ground_truth
from ssr_lib.datasets.transfer import Patience, TransferError, WrongFileError
from ssr_lib.files import FolderBusyError, folder_lock

QUICK = Patience(attempts=2, wait=0.001, timeout=5)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder that is served on 127.0.0.1: (folder, its address)."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def jpeg(seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def get(name, tmp_path):
    return fetch(name, tmp_path / "data", patience=QUICK, progress=False)


def rows_of(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- a whole fetch, on a small benchmark of the revisited form -----------------------------------------------------

GROUND_TRUTH = pickle.dumps(
    {
        "imlist": ["t1", "t2"],
        "qimlist": ["q1"],
        "gnd": [{"easy": [0], "hard": [], "junk": [], "bbx": [0, 0, 20, 20]}],
    }
)


@pytest.fixture
def small(site, monkeypatch):
    """ "small": ground truth and two archives, one with its pictures in subfolders, as Paris has them."""
    folder, url = site
    (folder / "gnd_small.pkl").write_bytes(GROUND_TRUTH)
    make_tar(folder / "part_1.tgz", {"paris/t/t1.jpg": jpeg(1), "paris/readme": b"read me"})
    make_tar(folder / "part_2.tgz", {"t2.jpg": jpeg(2), "q1.jpg": jpeg(3)})
    sources = (
        Source((f"{url}gnd_small.pkl",), sha256=hashlib.sha256(GROUND_TRUTH).hexdigest()),
        Source((f"{url}nowhere/part_1.tgz", f"{url}part_1.tgz"), archive=True),
        Source((f"{url}part_2.tgz",), archive=True),
    )
    finish = lambda place: read_ground_truth(place / "gnd_small.pkl", place, subset=True)
    monkeypatch.setitem(DATA_SETS, "small", DataSet("for tests", 0, sources, download._flat, finish))
    return folder


def test_benchmark_is_downloaded_verified_unpacked_and_checked(small, tmp_path):
    folder = get("small", tmp_path)
    assert folder == tmp_path / "data" / "small"
    assert sorted(p.name for p in (folder / "jpg").iterdir()) == ["q1.jpg", "t1.jpg", "t2.jpg"]
    assert (folder / "jpg" / "t1.jpg").read_bytes() == jpeg(1)
    assert not list(folder.glob("*.tgz")) and not list(folder.rglob("*.part"))


def test_second_call_needs_no_network(small, tmp_path):
    folder = get("small", tmp_path)
    for path in small.iterdir():
        path.unlink()
    assert get("small", tmp_path) == folder


def test_interrupted_fetch_goes_on_with_what_is_missing(small, tmp_path):
    archive = (small / "part_2.tgz").read_bytes()
    (small / "part_2.tgz").unlink()
    with pytest.raises(TransferError, match=r"404.*put it at .*part_2\.tgz, and run the same again"):
        get("small", tmp_path)
    (small / "part_1.tgz").unlink()  # unpacked already: not asked for again
    (small / "part_2.tgz").write_bytes(archive)
    assert len(list((get("small", tmp_path) / "jpg").iterdir())) == 3


def test_archive_put_there_by_hand_is_used(small, tmp_path):
    (tmp_path / "data" / "small").mkdir(parents=True)
    (small / "part_2.tgz").rename(tmp_path / "data" / "small" / "part_2.tgz")
    assert len(list((get("small", tmp_path) / "jpg").iterdir())) == 3


def test_ground_truth_with_other_bytes_is_refused(small, tmp_path):
    (small / "gnd_small.pkl").write_bytes(GROUND_TRUTH + b" ")
    with pytest.raises(WrongFileError, match=r"gnd_small\.pkl has SHA-256"):
        get("small", tmp_path)


def test_page_of_a_hotel_network_in_place_of_an_archive_is_refused_with_its_address(small, tmp_path):
    (small / "part_2.tgz").write_bytes(b"<!DOCTYPE html><html>Please sign in</html>")
    with pytest.raises(ArchiveError, match=r"part_2\.tgz is no archive .* it came from http://127.*\.refused"):
        get("small", tmp_path)
    make_tar(small / "part_2.tgz", {"t2.jpg": jpeg(2), "q1.jpg": jpeg(3)})
    assert len(list((get("small", tmp_path) / "jpg").iterdir())) == 3  # the right file is not refused for the wrong one


def test_hostile_archive_leaves_nothing_outside(small, tmp_path):
    make_tar(small / "part_2.tgz", {"../../../evil.jpg": b"evil", "t2.jpg": jpeg()})
    with pytest.raises(ArchiveError, match="would leave the folder"):
        get("small", tmp_path)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_pictures_missing_in_the_end_are_named(small, tmp_path):
    make_tar(small / "part_2.tgz", {"t2.jpg": jpeg(2)})
    with pytest.raises(FileNotFoundError, match=r"1 of 3 pictures .*q1; delete .*unpacked\.json"):
        get("small", tmp_path)
    (tmp_path / "data" / "small" / "unpacked.json").unlink()
    make_tar(small / "part_2.tgz", {"t2.jpg": jpeg(2), "q1.jpg": jpeg(3)})
    get("small", tmp_path)  # another archive of that name is no longer held against the first


@pytest.mark.parametrize("damage", ["header", "boundary", "no end", "checksum"])
def test_a_tar_that_ends_before_its_end_is_refused(small, tmp_path, damage):
    data = bytearray(gzip.decompress((small / "part_1.tgz").read_bytes()))
    second = data.index(b"ustar", 600) - 257  # where the header of a later entry begins
    if damage == "header":
        data[second : second + 8] = b"\xff" * 8
    elif damage == "boundary":
        data = data[:second]
    elif damage == "no end":
        data = data.rstrip(b"\0")
        data += b"\0" * (-len(data) % 512)
    packed = bytearray(gzip.compress(bytes(data)))
    if damage == "checksum":
        packed[-8] ^= 1
    (small / "part_1.tgz").write_bytes(packed)
    with pytest.raises(ArchiveError, match=r"part_1\.tgz .*damaged"):
        get("small", tmp_path)


def test_two_fetches_at_once_are_refused(small, tmp_path):
    with folder_lock(tmp_path / "data" / "small"), pytest.raises(FolderBusyError):
        get("small", tmp_path)


# ---- the other kinds -----------------------------------------------------------------------------------------------


def serve(monkeypatch, name, sources):
    old = DATA_SETS[name]
    monkeypatch.setitem(
        DATA_SETS, name, DataSet(old.about, old.gigabytes, tuple(sources), old.place, old.finish, old.wanted)
    )


def test_grocery_becomes_training_labels(site, tmp_path, monkeypatch):
    folder, url = site
    top = "GroceryStoreDataset-abc/dataset"
    files = {f"{top}/train/Fruit/Apple/Golden/g1.jpg": jpeg(1), f"{top}/val/Fruit/Apple/Golden/g1.jpg": jpeg(2)}
    files |= {f"{top}/train/Packages/Milk/m.jpg": jpeg(3), f"{top}/iconic-images-and-descriptions/x.jpg": jpeg(4)}
    files |= {f"{top}/test/Fruit/Apple/Golden/t.jpg": jpeg(5), "GroceryStoreDataset-abc/README.md": b"read me"}
    make_zip(folder / "abc.zip", files)
    serve(monkeypatch, "grocery", [Source((f"{url}abc.zip",), archive=True)])
    place = get("grocery", tmp_path)
    assert [tuple(row.values()) for row in rows_of(place)] == [
        ("images/train/Fruit/Apple/Golden/g1.jpg", "Golden", "train"),
        ("images/train/Packages/Milk/m.jpg", "Milk", "train"),
        ("images/val/Fruit/Apple/Golden/g1.jpg", "Golden", "train"),
    ]
    assert all((place / row["file"]).is_file() for row in rows_of(place))


def test_holidays_numbers_become_scenes_and_queries(tmp_path, monkeypatch):
    place = tmp_path / "holidays"
    (place / "jpg").mkdir(parents=True)
    numbers = [100000 + 100 * scene + view for scene in range(500) for view in range(3)][:1491]
    for number in numbers:
        (place / "jpg" / f"{number}.jpg").touch()
    download._label_holidays(place)
    benchmark = read_labels(place / "labels.csv")
    assert len(benchmark) == 497 and benchmark.queries[1] == "jpg/100100.jpg"
    assert [benchmark.database[i] for i in benchmark.easy[1]] == ["jpg/100101.jpg", "jpg/100102.jpg"]
    (place / "jpg" / "100000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="holds 1490 numbered pictures; INRIA Holidays has 1,491"):
        download._label_holidays(place)


def test_of_google_landmarks_only_the_clean_pictures_are_kept_and_md5_is_checked(site, tmp_path, monkeypatch):
    folder, url = site
    kept, noise = "0a1b2c", "0a1fff"
    (folder / "train_clean.csv").write_text(f"landmark_id,images\n17,{kept} 9z9z9z\n")
    files = {f"{i[0]}/{i[1]}/{i[2]}/{i}.jpg": jpeg(n) for n, i in enumerate((kept, noise, "9z9z9z"))}
    make_tar(folder / "images_000.tar", files, mode="w")
    (folder / "md5.txt").write_text("0" * 32 + "  images_000.tar\n")
    archive = Source((f"{url}images_000.tar",), archive=True, md5_url=f"{url}md5.txt")
    serve(monkeypatch, "google-landmarks-v2-clean", [Source((f"{url}train_clean.csv",)), archive])
    with pytest.raises(WrongFileError, match=r"images_000\.tar has MD5"):
        get("google-landmarks-v2-clean", tmp_path)
    md5 = hashlib.md5((folder / "images_000.tar").read_bytes()).hexdigest()
    (folder / "md5.txt").write_text(f"{md5}  images_000.tar\n")
    (tmp_path / "data" / "google-landmarks-v2-clean" / "md5" / "md5.txt").unlink()
    (tmp_path / "data" / "google-landmarks-v2-clean" / "md5" / "checksums.json").unlink()
    place = get("google-landmarks-v2-clean", tmp_path)
    assert [tuple(row.values()) for row in rows_of(place)] == [
        ("jpg/0/a/1/0a1b2c.jpg", "17", "train"),
        ("jpg/9/z/9/9z9z9z.jpg", "17", "train"),
    ]
    assert not list(place.rglob(f"{noise}.jpg"))


def test_distractors_are_checked_against_their_list(site, tmp_path, monkeypatch):
    folder, url = site
    (folder / "revisitop1m.txt").write_text("0d3/x.jpg\n0d4/y.jpg\n")
    make_tar(folder / "revisitop1m.1.tar.gz", {"0d3/x.jpg": jpeg(), "0d4/y.jpg": jpeg()})
    files = ("revisitop1m.txt", "revisitop1m.1.tar.gz")
    serve(monkeypatch, "revisitop1m", [Source((url + f,), archive=f.endswith("gz")) for f in files])
    place = get("revisitop1m", tmp_path)
    (place / "jpg" / "0d4" / "y.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the distractors"):
        get("revisitop1m", tmp_path)


# ---- the table and the command -------------------------------------------------------------------------------------


def test_table_names_every_file_once_and_knows_the_ground_truth_by_its_checksum():
    assert set(DATA_SETS) == {
        "roxford5k", "rparis6k", "revisitop1m", "google-landmarks-v2-clean", "holidays", "grocery",
    }  # fmt: skip
    for name, data_set in DATA_SETS.items():
        files = [source.file for source in data_set.sources]
        assert len(set(files)) == len(files) and all(files)
        for source in data_set.sources:
            assert all(url.startswith(("https://", "http://")) and url.endswith(source.file) for url in source.urls)
        if name in ("roxford5k", "rparis6k"):
            assert data_set.sources[0].file == f"gnd_{name}.pkl" and len(data_set.sources[0].sha256) == 64


@pytest.mark.parametrize(
    "name,entry,place",
    [
        ("roxford5k", "all_souls_000013.jpg", "jpg/all_souls_000013.jpg"),
        ("rparis6k", "paris/eiffel/paris_eiffel_000001.jpg", "jpg/paris_eiffel_000001.jpg"),
        ("rparis6k", "paris/eiffel/._paris_eiffel_000001.jpg", None),
        ("revisitop1m", "0d3/0d3abc.jpg", "jpg/0d3/0d3abc.jpg"),
        ("holidays", "jpg/100000.jpg", "jpg/100000.jpg"),
        ("grocery", "GroceryStoreDataset-fc80/dataset/test/a/b.jpg", None),
        ("grocery", "GroceryStoreDataset-fc80/sample_images/natural/b.jpg", None),
    ],
)
def test_entries_go_where_the_project_looks_for_them(name, entry, place):
    assert DATA_SETS[name].place(PurePosixPath(entry)) == place


def test_command_lists_fetches_and_refuses_in_one_line(small, tmp_path, capsys):
    assert main(["fetch"]) == 0
    assert "roxford5k" in capsys.readouterr().out
    assert main(["fetch", "small", "--to", str(tmp_path / "here")]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "here" / "small")
    assert "to download in 2 archives" in captured.err and "GB are free" in captured.err
    assert main(["fetch", "imagenet"]) == 2
    assert capsys.readouterr().err == f"ssr: no data set 'imagenet'; there are {', '.join(DATA_SETS)}\n"
    (small / "part_2.tgz").write_bytes(b"no archive")
    assert main(["fetch", "small", "--to", str(tmp_path / "again")]) == 2
    err = capsys.readouterr().err
    told, problem = err.strip().splitlines()
    assert "to download" in told and "part_2.tgz is no archive" in problem


def test_a_text_that_is_something_else_is_set_aside_and_fetched_anew(site, tmp_path, monkeypatch):
    folder, url = site
    (folder / "revisitop1m.txt").write_bytes(b"")
    source = Source((f"{url}revisitop1m.txt",), check=lambda path: read_distractors(path.parent))
    monkeypatch.setitem(DATA_SETS, "lists", DataSet("for tests", 0, (source,), download._flat, lambda place: None))
    with pytest.raises(WrongFileError, match=r"is empty; .* is now revisitop1m\.txt\.refused: run the same again"):
        fetch("lists", tmp_path, progress=False)
    (folder / "revisitop1m.txt").write_text("0/a.jpg\n")
    assert (fetch("lists", tmp_path, progress=False) / "revisitop1m.txt").read_text() == "0/a.jpg\n"


@pytest.mark.parametrize("record", ["unpacked.json", "checksums.json"])
def test_a_damaged_record_is_named_and_not_passed_over(small, tmp_path, record):
    fetch("small", tmp_path, progress=False)
    (tmp_path / "small" / record).write_text('{"part_1.tgz": ')
    (tmp_path / "small" / "gnd_small.pkl").touch()
    with pytest.raises(ValueError, match=rf"{record} is damaged; delete it"):
        fetch("small", tmp_path, progress=False)


def test_a_set_that_cannot_fit_is_refused_before_anything_is_fetched(small, tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "small", dataclasses.replace(DATA_SETS["small"], gigabytes=1e6))
    with pytest.raises(OSError, match=r"small needs about 1,000,000\.0 GB more of disk, .* GB are free"):
        get("small", tmp_path)
    assert not list((tmp_path / "data" / "small").glob("part*"))


def test_lists_that_were_cut_off_are_refused(tmp_path):
    (tmp_path / "revisitop1m.txt").write_text("0/a.jpg\n0/b.jpg\n")
    with pytest.raises(ValueError, match=r"revisitop1m\.txt names 2 distractors; 1,001,001 are published"):
        download._check_list(tmp_path / "revisitop1m.txt")
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n1,aaa bbb\n")
    with pytest.raises(ValueError, match=r"train_clean\.csv has 1 landmarks; 81,313 are published"):
        download._check_clean(tmp_path / "train_clean.csv")


def test_a_fetched_ground_truth_is_stored_as_json_too(tmp_path):
    (tmp_path / "jpg").mkdir()
    for name in ("q", "a", "b"):
        (tmp_path / "jpg" / f"{name}.jpg").write_bytes(jpeg())
    record = {
        "imlist": ["a", "b"],
        "qimlist": ["q"],
        "gnd": [{"easy": [0], "hard": [], "junk": [1], "bbx": [0, 0, 9, 9]}],
    }
    (tmp_path / "gnd_mini.pkl").write_bytes(pickle.dumps(record))
    download.store_ground_truth("mini", subset=True)(tmp_path)
    stored, read = (
        Benchmark.load(tmp_path / "mini.json"),
        read_ground_truth(tmp_path / "gnd_mini.pkl", tmp_path, subset=True),
    )
    assert (stored.database, stored.boxes) == (read.database, read.boxes) and stored.root.samefile(read.root)
    assert [ids.tolist() for ids in stored.junk] == [[1]]
