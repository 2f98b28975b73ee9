"""A data set asked for by name becomes a folder the project reads; what cannot be had is said with where to put it."""

import dataclasses
import functools
import hashlib
import io
import pickle
import random
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ssr_lib.benchmark import Benchmark
from ssr_lib.commands.main import main
from ssr_lib.datasets import fetch, revisited
from ssr_lib.datasets.fetch import DATA_SETS, GLDV2, Source, bring, unpack
from ssr_lib.datasets.folder import read_labels
from ssr_lib.files import FolderBusyError, locked, write_atomic

LINKS = {f"t/link{i}.jpg": (kind,) for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE))}
DATA = random.Random(0).randbytes(300_000)
NOBODY = "http://127.0.0.1:9/file.bin"  # the discard port: nobody listens
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
FLAT, WHOLE = DATA_SETS["roxford5k"]["entries"], DATA_SETS[GLDV2]["entries"]


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/busy/") and self.server.asked.count(self.path) == 1:
            self.send_error(503)
        else:
            self.path = self.path.removeprefix("/busy")
            super().do_GET()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server on 127.0.0.1 with its folder, its address and what it was asked for."""
    monkeypatch.setattr(fetch, "WAIT", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "site").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "site"))) as server:
        server.folder, server.asked = tmp_path / "site", []
        server.address = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def make_tar(path, files, mode="w:gz"):
    """An archive of files by name: their bytes, or the kind of a link or a device."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content[0], "/etc/passwd"
                content = b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def ask(site, tmp_path, *ways):
    (site.folder / "file.bin").write_bytes(DATA)
    write_atomic(site.folder / "wrong" / "file.bin", DATA[::-1])
    urls = tuple(way if "://" in way else f"{site.address}{way}file.bin" for way in ways)
    return bring(Source("file.bin", urls, CHECKSUM), tmp_path / "to", progress=False)


@pytest.mark.parametrize("ways", [("",), ("nowhere/", ""), ("wrong/", ""), ("busy/",), (NOBODY, "")])
def test_a_file_arrives_whole_from_the_first_address_that_gives_it_and_is_not_asked_for_again(site, tmp_path, ways):
    path = ask(site, tmp_path, *ways)
    assert path.read_bytes() == DATA and list(path.parent.iterdir()) == [path]
    site.asked.clear()
    assert ask(site, tmp_path, *ways) == path and not site.asked
    path.write_bytes(DATA[::-1])  # put there by hand, and another one
    assert ask(site, tmp_path, "").read_bytes() == DATA


@pytest.mark.parametrize("way,problem", [("nowhere/", "404"), ("wrong/", CHECKSUM), (NOBODY, f"{NOBODY}: .*refused")])
def test_what_no_address_gives_is_said_with_where_to_put_it_and_leaves_nothing(site, tmp_path, way, problem):
    path = tmp_path / "to" / "file.bin"
    with pytest.raises(ConnectionError, match=rf"{problem}.*Fetch it \({CHECKSUM}\) by other means, put it at {path}"):
        ask(site, tmp_path, way)
    assert list(path.parent.iterdir()) == []
    path.write_bytes(DATA[:9])
    with pytest.raises(ConnectionError, match=rf"put it at {path}, where another file is now, and run the same again"):
        ask(site, tmp_path, way)
    path.write_bytes(DATA)  # put there by hand
    assert ask(site, tmp_path, way) == path


@pytest.mark.parametrize("entry", ["../evil.jpg", "a/../../evil.jpg", "../../evil.jpg", "a/../../../../evil.jpg"])
def test_entries_that_leave_the_folder_are_refused(tmp_path, entry):
    with pytest.raises(ValueError, match=r"x is damaged, dangerous or no archive; .*outside the destination"):
        unpack(make_tar(tmp_path / "x", {entry: b"evil"}), tmp_path / "deep" / "out", WHOLE)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_bombs_are_refused(tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "x", {"b.jpg": bytes(2_000_000)})
    monkeypatch.setattr(fetch, "BOMB", (1_000_000 - 10**9) / archive.stat().st_size)  # 1 MB may be unpacked
    with pytest.raises(ValueError, match="refused as a bomb"):
        unpack(archive, tmp_path / "out", FLAT)
    assert not list(tmp_path.rglob("b.jpg"))


def test_what_is_damaged_or_no_archive_is_one_line_that_names_it(tmp_path):
    archive = make_tar(tmp_path / "x", {"a.jpg": b"a", "noise.jpg": DATA})
    whole = archive.read_bytes()
    one_byte = whole[:100_000] + bytes([whole[100_000] ^ 255]) + whole[100_001:]
    for damaged in (whole[:100_000], whole[:-99], one_byte, b"", b"<html>" * 99):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x is damaged, dangerous or no archive; delete it and try again: .+"):
            unpack(archive, tmp_path / "out", FLAT)


def serve(site, monkeypatch, name, **changes):
    sources = []
    for source in DATA_SETS[name]["sources"]:
        if (site.folder / source.file).exists():
            md5_url = source.md5_url and f"{site.address}{source.file}.md5"
            changed = {"urls": (f"{site.address}{source.file}",), "md5_url": md5_url, "checksum": None}
            sources.append(dataclasses.replace(source, **changed))
    monkeypatch.setitem(DATA_SETS, name, {**DATA_SETS[name], "sources": sources, "kept": 0, **changes})


def get(name, tmp_path, **options):
    return fetch.fetch(name, tmp_path / "data", progress=False, **options)


@pytest.fixture
def paris(site, monkeypatch):
    """The site of RParis6k in miniature: its ground truth and two archives, one with its pictures in subfolders."""
    truth = pickle.dumps({"imlist": ["t1", "t2"], "qimlist": ["q1"], "gnd": [{"easy": [0], "hard": [], "junk": [1]}]})
    (site.folder / "gnd_rparis6k.pkl").write_bytes(truth)
    make_tar(site.folder / "paris_1-v1.tgz", {"t/t1.jpg": b"1", "t/._t1.jpg": b"", "t/readme": b"x", **LINKS})
    make_tar(site.folder / "paris_2-v1.tgz", {"t2.jpg": b"2", "q1.jpg": b"3"})
    monkeypatch.setattr(revisited, "OFFICIAL", {"rparis6k": hashlib.sha256(truth).hexdigest()})
    serve(site, monkeypatch, "rparis6k")
    return site


def test_a_benchmark_is_downloaded_unpacked_verified_and_stored_as_json_too(paris, tmp_path):
    told = []
    folder = get("rparis6k", tmp_path, tell=told.append)
    assert "3 of 3 files, all together about 2.5 GB to download" in told.pop() and not told
    assert sorted(path.read_bytes() for path in (folder / "jpg").iterdir()) == [b"1", b"2", b"3"]
    assert {path.name for path in folder.iterdir()} == {".lock", "gnd_rparis6k.pkl", "jpg", "rparis6k.json", "unpacked"}
    assert Benchmark.load(folder / "rparis6k.json").database == ["t1.jpg", "t2.jpg"]
    paris.asked.clear()
    assert get("rparis6k", tmp_path) == folder and not paris.asked, "a second call needs no network"
    for content in ("", "[]"):
        (folder / "unpacked" / "paris_2-v1.tgz.json").write_text(content)
        assert get("rparis6k", tmp_path) == folder and paris.asked.pop() == "/paris_2-v1.tgz"


def test_an_interrupted_fetch_goes_on_with_what_is_missing(paris, tmp_path):
    archive = (paris.folder / "paris_2-v1.tgz").rename(tmp_path / "away")
    with pytest.raises(ConnectionError, match=r"404.*put it at .*paris_2-v1\.tgz, and run the same again"):
        get("rparis6k", tmp_path)
    folder = tmp_path / "data" / "rparis6k"
    (paris.folder / "paris_1-v1.tgz").unlink()  # unpacked already: not asked for again
    (folder / "tmpabcd1234").write_bytes(b"left by a killed download")
    (folder / "jpg" / "t2.jpg").write_bytes(b"half")
    archive.rename(folder / "paris_2-v1.tgz")  # put there by hand
    get("rparis6k", tmp_path)
    assert sorted(path.read_bytes() for path in (folder / "jpg").iterdir()) == [b"1", b"2", b"3"]
    assert not list(folder.glob("tmp*"))


def test_what_cannot_be_put_there_is_refused_before_anything_is_asked_for(paris, tmp_path, monkeypatch):
    with locked(tmp_path / "data" / "rparis6k"), pytest.raises(FolderBusyError):
        get("rparis6k", tmp_path)
    monkeypatch.setitem(DATA_SETS["rparis6k"], "kept", 1e6)
    with pytest.raises(OSError, match=r"rparis6k: .* and 1000000.0 GB on disk afterwards; .* GB are free"):
        get("rparis6k", tmp_path)
    assert paris.asked == []


def rows_of(folder):
    return (folder / "labels.csv").read_text().splitlines()[1:]


def test_groceries_become_training_labels(site, tmp_path, monkeypatch):
    labels = {"train/Fruit/Kiwi/a.jpg": "Kiwi", "train/Packages/Milk/m.jpg": "Milk", "val/Fruit/Kiwi/a.jpg": "Kiwi"}
    names = [*labels, "train/README.md", "test/Fruit/Kiwi/t.jpg", "iconic-images-and-descriptions/x.jpg"]
    archive = DATA_SETS["grocery"]["sources"][0].file
    make_tar(site.folder / archive, {f"GroceryStoreDataset-abc/dataset/{name}": b"x" for name in names})
    serve(site, monkeypatch, "grocery")
    assert rows_of(get("grocery", tmp_path)) == [f"jpg/{name},{label},train" for name, label in labels.items()]


def test_holidays_become_scenes_and_another_number_than_the_published_one_is_refused(site, tmp_path, monkeypatch):
    names = [f"jpg/{number}.jpg" for number in (100000, 100001, 100100, 100101, 100102)]  # the first of a scene asks
    make_tar(site.folder / "jpg1.tar.gz", dict.fromkeys(names, b"x"))
    serve(site, monkeypatch, "holidays")
    with pytest.raises(FileNotFoundError, match=r"has 5 pictures; 1,491 are published; delete .*unpacked to have"):
        get("holidays", tmp_path)
    serve(site, monkeypatch, "holidays", pictures=5)
    benchmark = read_labels(get("holidays", tmp_path) / "labels.csv")
    assert benchmark.queries == [names[0], names[2]] and [benchmark.database[i] for i in benchmark.easy[1]] == names[3:]


@pytest.fixture
def landmarks(site, monkeypatch):
    """The site of Google Landmarks: three archives, each of two pictures that count and one that does not."""
    pictures = ["0a0", "0a1", "0a2", "0a3", "0a4", "0a5"]
    (site.folder / "train_clean.csv").write_text(f"landmark_id,images\n17,{' '.join(pictures[::2])}\n5,0a1 0a3 0a5\n")
    for i in range(3):
        name, held = f"images_{i:03d}.tar", [*pictures[2 * i : 2 * i + 2], f"0af{i}"]
        files = {f"./{p[0]}/{p[1]}/{p[2]}/{p}.jpg": p.encode() for p in held}
        data = make_tar(site.folder / name, files, "w").read_bytes()
        (site.folder / f"{name}.md5").write_text(f"{hashlib.md5(data).hexdigest()}  {name}\n")
    serve(site, monkeypatch, GLDV2, pictures=6)
    return site


def test_landmarks_that_the_published_list_names_are_kept(landmarks, tmp_path, monkeypatch):
    md5 = landmarks.folder / "images_001.tar.md5"
    right = md5.read_text()
    md5.write_text("0" * 32)
    with pytest.raises(ConnectionError, match=f"does not match the known hash: expected md5:{'0' * 32}"):
        get("gldv2", tmp_path)
    md5.write_text(right)
    folder = get("gldv2", tmp_path)
    assert folder.name == GLDV2 and len(rows_of(folder)) == 6 and not list(folder.rglob("0af*"))
    assert rows_of(folder)[:2] == ["jpg/0/a/0/0a0.jpg,17,train", "jpg/0/a/1/0a1.jpg,5,train"]
    (folder / "jpg" / "0" / "a" / "0" / "0a0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 pictures \(jpg/0/a/0/0a0\.jpg\) .*; delete .*unpacked"):
        get(GLDV2, tmp_path)
    monkeypatch.setitem(DATA_SETS[GLDV2], "pictures", 7)
    with pytest.raises(ValueError, match=r"train_clean\.csv lists 6 pictures; 7 are published; delete it"):
        get(GLDV2, tmp_path)


def test_shards_that_are_asked_for_are_fetched_and_labelled_and_no_others(landmarks, tmp_path):
    def shards(asked, status=0):
        landmarks.asked.clear()
        assert main(["fetch", "gldv2", "--to", str(tmp_path), "--shards", asked]) == status
        held = [line[10:13] for line in rows_of(tmp_path / GLDV2)]
        return held, [path for path in landmarks.asked if path.endswith(".tar")]

    assert shards("2") == (["0a4", "0a5"], ["/images_002.tar"])
    archive = (landmarks.folder / "images_001.tar").rename(landmarks.folder / "away")
    shards("0-1", status=2)
    archive.rename(landmarks.folder / "images_001.tar")
    assert shards("0-1") == (["0a0", "0a1", "0a2", "0a3"], ["/images_001.tar"]), "it goes on where it stopped"
    assert shards("0,2") == (["0a0", "0a1", "0a4", "0a5"], [])
    assert len(rows_of(fetch.fetch("gldv2", tmp_path, progress=False))) == 6, "and to the whole set"


@pytest.mark.parametrize("shards", ["500", "3-500", "4-3", "", "0,,1", "-1", "a", "0-99999999999", [-1]])
def test_sets_and_shards_that_there_are_not_are_refused_in_one_line(tmp_path, shards):
    words = {GLDV2: "0 to 499 are wanted, as 0-4", "roxford5k": "no shards", "imagenet": "there are roxford5k"}
    for name, refusal in words.items():
        with pytest.raises(ValueError, match=refusal):
            get(name, tmp_path, shards=shards)
    assert not list(tmp_path.iterdir())
