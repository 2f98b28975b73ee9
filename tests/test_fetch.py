"""A data set asked for by name becomes a folder the project reads; what cannot be had is said with where to put it."""

import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import pickle
import random
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets import fetch, revisited
from ssr_lib.datasets.catalogue import DATA_SETS, Source
from ssr_lib.datasets.fetch import bring, unpack
from ssr_lib.datasets.folder import read_labels
from ssr_lib.files import FolderBusyError, locked


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/cut/"):  # the connection closes after half of what was promised
            data = (self.server.folder / self.path.removeprefix("/cut/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
        elif self.path.startswith("/busy/") and self.server.asked.count(self.path) == 1:
            self.send_error(503)
        else:
            self.path = self.path.removeprefix("/busy")
            super().do_GET()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server on 127.0.0.1 with its folder, its address and what it was asked for."""
    monkeypatch.setattr(fetch, "WAIT", 0)
    (tmp_path / "site").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "site")))
    server.folder, server.asked = tmp_path / "site", []
    server.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def make_tar(path, files, mode="w:gz", kind=tarfile.SYMTYPE):
    """An archive of `files`; one without content becomes a link or what `kind` says."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(content or b""))
    return path


DATA = np.random.default_rng(0).bytes(300_000)
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def ask(site, tmp_path, *ways):
    (site.folder / "file.bin").write_bytes(DATA)
    (site.folder / "wrong").mkdir(exist_ok=True)
    (site.folder / "wrong" / "file.bin").write_bytes(DATA[::-1])
    (tmp_path / "to").mkdir(exist_ok=True)
    urls = tuple(way if "://" in way else f"{site.address}{way}file.bin" for way in ways)
    return bring(Source(urls, CHECKSUM), tmp_path / "to", progress=False)


@pytest.mark.parametrize(
    "ways", [("",), ("nowhere/", ""), ("cut/", ""), ("wrong/", ""), ("busy/",), (f"{NOBODY}/file.bin", "")]
)
def test_a_file_arrives_whole_from_the_first_address_that_gives_it_and_is_not_asked_for_again(site, tmp_path, ways):
    path = ask(site, tmp_path, *ways)
    assert path.read_bytes() == DATA and list(path.parent.iterdir()) == [path]
    asked = len(site.asked)
    assert ask(site, tmp_path, *ways) == path and len(site.asked) == asked
    path.write_bytes(DATA[::-1])  # put there by hand, and another one
    assert ask(site, tmp_path, "").read_bytes() == DATA


@pytest.mark.parametrize("way,problem", [
    ("nowhere/", "404 Client Error"), ("cut/", "150000 bytes read"), ("file:///etc/file.bin", "No connection adapters"),
    ("wrong/", f"does not match the known hash: expected {CHECKSUM}"), (f"{NOBODY}/file.bin", f"{NOBODY}/file.bin: .*refused"),
])  # fmt: skip
def test_what_no_address_gives_is_said_with_where_to_put_it_and_leaves_nothing(site, tmp_path, way, problem):
    path = tmp_path / "to" / "file.bin"
    with pytest.raises(ConnectionError, match=rf"{problem}.*Fetch it \({CHECKSUM}\) by other means, put it at {path}"):
        ask(site, tmp_path, way)
    assert list(path.parent.iterdir()) == []
    path.write_bytes(DATA)  # put there by hand
    assert ask(site, tmp_path, way) == path


FILES = {"top/a.jpg": b"a" * 100, "top/sub/b.jpg": b"b" * 5000, "top/readme.txt": b"no picture"}
PLAIN = functools.partial(make_tar, mode="w")
pictures = DATA_SETS["holidays"].place


@pytest.mark.parametrize("make", [make_tar, PLAIN])
def test_wanted_files_are_written_and_counted_over_what_a_killed_run_left(tmp_path, make):
    (tmp_path / "out" / "jpg").mkdir(parents=True)
    (tmp_path / "out" / "jpg" / "a.jpg").write_bytes(b"half")
    assert unpack(make(tmp_path / "x", FILES), tmp_path / "out", pictures) == 2
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"jpg/a.jpg": b"a" * 100, "jpg/b.jpg": b"b" * 5000}


@pytest.mark.parametrize("entry,words", [
    *((path, "would leave the folder") for path in ("../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:/evil.jpg")),
    ("two/a.jpg", r"two entries would become jpg/a\.jpg"),
])  # fmt: skip
def test_entries_that_leave_the_folder_or_share_a_name_are_refused(tmp_path, entry, words):
    with pytest.raises(ValueError, match=words):
        unpack(make_tar(tmp_path / "x", {**FILES, entry: b"evil"}), tmp_path / "deep" / "out", pictures)
    assert not [path for path in tmp_path.rglob("*.jpg") if path.read_bytes() == b"evil"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"'top/link\.jpg' is a link or a device"):
        unpack(make_tar(tmp_path / "x", {**FILES, "top/link.jpg": None}, kind=kind), tmp_path / "out", pictures)
    assert not (tmp_path / "out" / "jpg" / "link.jpg").exists()


def test_bombs_are_refused(tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "x", {"b.jpg": bytes(2_000_000)})
    monkeypatch.setattr(fetch, "BOMB", (1_000_000 - 10**9) / archive.stat().st_size)  # 1 MB may be unpacked
    with pytest.raises(ValueError, match="refused as a bomb"):
        unpack(archive, tmp_path / "out", pictures)
    assert not list(tmp_path.rglob("b.jpg"))


def test_a_tar_that_ends_early_inside_a_whole_compression_is_refused(tmp_path):
    data = PLAIN(tmp_path / "x.tar", FILES).read_bytes()
    for end in (1024, 1536, 1800):  # where the second header should begin, behind it, and in its file
        (tmp_path / "x.tgz").write_bytes(gzip.compress(data[:end]))
        with pytest.raises(ValueError, match=r"x\.tgz is refused: .*(ends early|unexpected end of data)"):
            unpack(tmp_path / "x.tgz", tmp_path / "out", pictures)


@pytest.mark.parametrize("damage", [
    lambda data: data[: len(data) // 3], lambda data: data[: 9 * len(data) // 10], lambda data: b"",
    lambda data: data[:100_000] + bytes([data[100_000] ^ 255]) + data[100_001:], lambda data: b"<html>Please sign in" * 60,
])  # fmt: skip
def test_what_is_damaged_or_no_archive_is_one_line_that_names_it(tmp_path, damage):
    archive = make_tar(tmp_path / "x", {**FILES, "noise.jpg": random.Random(0).randbytes(200_000)})
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"x is refused: it is no archive, damaged or dangerous \(.+\)$"):
        unpack(archive, tmp_path / "out", pictures)


GROUND_TRUTH = pickle.dumps({"imlist": ["t1", "t2"], "qimlist": ["q1"],
                             "gnd": [{"easy": [0], "hard": [], "junk": [1], "bbx": [0, 0, 20, 20]}]})  # fmt: skip


@pytest.fixture
def small(site, monkeypatch):
    """The site of "small": ground truth and two archives, one with its pictures in subfolders, as Paris has them."""
    (site.folder / "gnd_small.pkl").write_bytes(GROUND_TRUTH)
    make_tar(site.folder / "part_1.tgz", {"paris/t/t1.jpg": b"1", "paris/t/._t1.jpg": b"", "paris/readme": b"read me"})
    make_tar(site.folder / "part_2.tgz", {"t2.jpg": b"2", "q1.jpg": b"3"})
    sha256 = hashlib.sha256(GROUND_TRUTH).hexdigest()
    sources = (
        Source((f"{site.address}gnd_small.pkl",), f"sha256:{sha256}"),
        Source((f"{site.address}nowhere/part_1.tgz", f"{site.address}part_1.tgz")),
        Source((f"{site.address}part_2.tgz",)),
    )
    monkeypatch.setattr(revisited, "OFFICIAL", {"small": sha256})
    monkeypatch.setitem(DATA_SETS, "small", dataclasses.replace(DATA_SETS["rparis6k"], kept=0, sources=sources))
    return site


def get(name, tmp_path):
    return fetch.fetch(name, tmp_path / "data", progress=False)


def pictures_of(folder):
    return sorted(path.name for path in (folder / "jpg").iterdir())


def test_a_benchmark_is_downloaded_verified_unpacked_and_stored_as_json_too(small, tmp_path):
    told = []
    folder = fetch.fetch("small", tmp_path / "data", progress=False, tell=told.append)
    assert len(told) == 1 and "about 2.5 GB to download, 0 GB on disk afterwards" in told[0]
    assert pictures_of(folder) == ["q1.jpg", "t1.jpg", "t2.jpg"] and (folder / "jpg" / "t1.jpg").read_bytes() == b"1"
    names = [path.name for path in folder.iterdir() if path.name != "jpg"]
    assert sorted(names) == [".lock", "gnd_small.pkl", "small.json", "unpacked.json"]
    stored = Benchmark.load(folder / "small.json")
    assert stored.database == ["t1.jpg", "t2.jpg"] and stored.root.samefile(folder / "jpg")
    small.asked.clear()
    assert get("small", tmp_path) == folder and not small.asked, "a second call needs no network"


def test_an_interrupted_fetch_goes_on_with_what_is_missing(small, tmp_path):
    archive = (small.folder / "part_2.tgz").read_bytes()
    (small.folder / "part_2.tgz").unlink()
    with pytest.raises(ConnectionError, match=r"404.*put it at .*part_2\.tgz, and run the same again"):
        get("small", tmp_path)
    (small.folder / "part_1.tgz").unlink()  # unpacked already: not asked for again
    (tmp_path / "data" / "small" / "tmpabcd1234").write_bytes(b"left by a killed download")
    (tmp_path / "data" / "small" / "part_2.tgz").write_bytes(archive)  # put there by hand
    assert len(pictures_of(get("small", tmp_path))) == 3
    assert not list((tmp_path / "data" / "small").glob("tmp*"))


def test_what_cannot_be_put_there_is_refused_before_anything_is_asked_for(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no data set 'imagenet'; there are roxford5k, rparis6k"):
        get("imagenet", tmp_path)
    with locked(tmp_path / "data" / "small"), pytest.raises(FolderBusyError):
        get("small", tmp_path)
    monkeypatch.setitem(DATA_SETS, "small", dataclasses.replace(DATA_SETS["small"], kept=1e6))
    with pytest.raises(OSError, match=r"small: .*, 1e\+06 GB on disk afterwards; .* GB are free"):
        get("small", tmp_path)
    assert small.asked == []


def serve(site, monkeypatch, name, *files, **changes):
    """Have the site give the data set: those of its sources whose names are `files`."""
    sources = []
    for source in DATA_SETS[name].sources:
        if source.file in files:
            md5_url = source.md5_url and f"{site.address}md5.txt"
            sources.append(dataclasses.replace(source, urls=(f"{site.address}{source.file}",), md5_url=md5_url))
    changed = dataclasses.replace(DATA_SETS[name], sources=tuple(sources), kept=None, **changes)
    monkeypatch.setitem(DATA_SETS, name, changed)


def rows_of(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.reader(file))[1:]


def test_groceries_become_training_labels(site, tmp_path, monkeypatch):
    names = ["train/Fruit/Apple/Golden/g1.jpg", "val/Fruit/Apple/Golden/g1.jpg", "train/Packages/Milk/m.jpg",
             "test/Fruit/Apple/Golden/t.jpg", "iconic-images-and-descriptions/x.jpg", "train/README.md"]  # fmt: skip
    archive = DATA_SETS["grocery"].sources[0].file
    make_tar(site.folder / archive, {f"GroceryStoreDataset-abc/dataset/{name}": name.encode() for name in names})
    serve(site, monkeypatch, "grocery", archive)
    place = get("grocery", tmp_path)
    assert rows_of(place) == [
        ["images/train/Fruit/Apple/Golden/g1.jpg", "Golden", "train"],
        ["images/train/Packages/Milk/m.jpg", "Milk", "train"],
        ["images/val/Fruit/Apple/Golden/g1.jpg", "Golden", "train"],
    ]
    assert all((place / row[0]).read_text() == row[0].removeprefix("images/") for row in rows_of(place))


def test_holidays_numbers_become_scenes_and_queries(tmp_path):
    (tmp_path / "jpg").mkdir(parents=True)
    for number in [100000 + 100 * scene + view for scene in range(500) for view in range(3)][:1491]:
        (tmp_path / "jpg" / f"{number}.jpg").touch()
    DATA_SETS["holidays"].finish(tmp_path)
    benchmark = read_labels(tmp_path / "labels.csv")
    assert len(benchmark) == 497 and benchmark.queries[1] == "jpg/100100.jpg"
    assert [benchmark.database[i] for i in benchmark.easy[1]] == ["jpg/100101.jpg", "jpg/100102.jpg"]
    (tmp_path / "jpg" / "100000.jpg").unlink()
    with pytest.raises(ValueError, match="has, or lists, 1,490 pictures; 1,491 are published"):
        DATA_SETS["holidays"].finish(tmp_path)


@pytest.mark.parametrize("name,listing,archive,text,rows", [
    ("google-landmarks-v2-clean", "train_clean.csv", "images_000.tar", "landmark_id,images\n17,0a1b2c\n5,0a1b2d",
     [["jpg/0/a/1/0a1b2c.jpg", "17", "train"], ["jpg/0/a/1/0a1b2d.jpg", "5", "train"]]),
    ("revisitop1m", "revisitop1m.txt", "revisitop1m.1.tar.gz", "0d3/x.jpg\n0d4/y.jpg\n",
     [["jpg/0d3/x.jpg", "", "distractor"], ["jpg/0d4/y.jpg", "", "distractor"]]),
])  # fmt: skip
def test_what_a_list_of_the_published_length_names_is_kept(
    site, tmp_path, monkeypatch, name, listing, archive, text, rows
):
    (site.folder / listing).write_text(text)
    files = {row[0].replace("jpg", ".", 1): row[0].encode() for row in rows}
    mode = "w" if archive.endswith(".tar") else "w:gz"
    data = make_tar(site.folder / archive, {**files, "0/a/1/0a1fff.jpg": b"not listed"}, mode).read_bytes()
    serve(site, monkeypatch, name, listing, archive)
    with pytest.raises(ValueError, match=rf"lists, 2 pictures; [\d,]+ are published; .* is now {listing}\.refused"):
        get(name, tmp_path)
    serve(site, monkeypatch, name, listing, archive, pictures=2)
    if DATA_SETS[name].sources[1].md5_url:
        for md5 in ("no sum", "0" * 32):
            (site.folder / "md5.txt").write_text(md5)
            with pytest.raises(ConnectionError, match=f"does not match the known hash: expected md5:{md5}"):
                get(name, tmp_path)
        (site.folder / "md5.txt").write_text(f"{hashlib.md5(data).hexdigest()}  {archive}\n")
    folder = get(name, tmp_path)
    assert rows_of(folder) == rows and not list(folder.rglob("0a1fff.jpg"))
    assert all((folder / row[0]).read_text() == row[0] for row in rows)
    (folder / rows[1][0]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 2 pictures \({rows[1][0]}\) are not in .*unpacked\.json"):
        get(name, tmp_path)
