"""An archive gives the files that are wanted, and none can leave the folder, link, repeat or flood it."""

import gzip
import io
import random
import tarfile
import zipfile

import pytest

from ssr_lib.datasets.archives import ArchiveError, unpack

FILES = {"top/a.jpg": b"a" * 100, "top/sub/b.jpg": b"b" * 5000, "top/readme.txt": b"no picture"}


def keep_pictures(path):
    return f"jpg/{path.name}" if path.suffix == ".jpg" else None


def everything(path):
    return str(path)


def make_tar(path, files=FILES, mode="w:gz", special=()):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, kind, target in special:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return path


def make_zip(path, files=FILES, special=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
        for name, target in special:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16  # a symbolic link
            bundle.writestr(info, target)
    return path


def files_below(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("make,name", [(make_tar, "x.tgz"), (make_zip, "x.zip")])
def test_wanted_files_are_written_and_counted(tmp_path, make, name):
    assert unpack(make(tmp_path / name), tmp_path / "out", keep_pictures) == 2
    assert files_below(tmp_path / "out") == {"jpg/a.jpg": b"a" * 100, "jpg/b.jpg": b"b" * 5000}


def test_plain_tar_is_read_too(tmp_path):
    assert unpack(make_tar(tmp_path / "x.tar", mode="w"), tmp_path / "out", everything) == 3
    assert files_below(tmp_path / "out") == FILES


def test_unpacking_again_replaces_what_a_killed_run_left(tmp_path):
    (tmp_path / "out" / "jpg").mkdir(parents=True)
    (tmp_path / "out" / "jpg" / "a.jpg").write_bytes(b"half")
    unpack(make_tar(tmp_path / "x.tgz"), tmp_path / "out", keep_pictures)
    assert files_below(tmp_path / "out")["jpg/a.jpg"] == b"a" * 100


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:/evil.jpg"])
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_entry_that_would_leave_the_folder_is_refused_even_if_it_is_not_wanted(tmp_path, make, name):
    archive = make(tmp_path / "x", {**FILES, name: b"evil"})
    for wanted in (everything, keep_pictures, lambda path: None):
        with pytest.raises(ArchiveError, match="would leave the folder"):
            unpack(archive, tmp_path / "deep" / "out", wanted)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_name_that_the_caller_chooses_outside_is_refused_too(tmp_path):
    with pytest.raises(ArchiveError, match="would leave"):
        unpack(make_tar(tmp_path / "x.tgz"), tmp_path / "out", lambda path: f"../{path.name}")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "x.tgz", special=[("top/link.jpg", kind, "/etc/passwd")])
    with pytest.raises(ArchiveError, match=r"top/link\.jpg is a link or a device"):
        unpack(archive, tmp_path / "out", keep_pictures)
    assert not (tmp_path / "out" / "jpg" / "link.jpg").exists()


def test_symbolic_link_in_a_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", special=[("top/link.jpg", "/etc/passwd")])
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(archive, tmp_path / "out", keep_pictures)


@pytest.mark.parametrize("make,name", [(make_tar, "x.tgz"), (make_zip, "x.zip")])
def test_bomb_is_refused_before_it_is_unpacked(tmp_path, make, name):
    archive = make(tmp_path / name, {"a.jpg": bytes(3_000_000)})
    with pytest.raises(ArchiveError, match="holds more than 1,000,000 bytes"):
        unpack(archive, tmp_path / "out", everything, max_bytes=1_000_000)
    assert files_below(tmp_path / "out") == {}


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ssr_lib.datasets.archives.MAX_FILES", 2)
    with pytest.raises(ArchiveError, match="more than 2 entries"):
        unpack(make_tar(tmp_path / "x.tgz"), tmp_path / "out", everything)


@pytest.mark.parametrize("make,name", [(make_tar, "x.tgz"), (make_zip, "x.zip")])
def test_two_entries_of_one_name_are_refused(tmp_path, make, name):
    archive = make(tmp_path / name, {"one/a.jpg": b"1", "two/a.jpg": b"2"})
    with pytest.raises(ArchiveError, match=r"two entries would become jpg/a\.jpg"):
        unpack(archive, tmp_path / "out", keep_pictures)


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("make,name,files", [(make_tar, "x.tgz", FILES), (make_zip, "x.zip", FILES)])
def test_truncated_archive_is_refused(tmp_path, make, name, files, kept):
    noise = {"noise.jpg": random.Random(0).randbytes(200_000)}
    data = make(tmp_path / name, {**files, **noise}).read_bytes()
    (tmp_path / name).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ArchiveError, match=f"{name}.*(damaged|cut off)"):
        unpack(tmp_path / name, tmp_path / "out", everything)


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>Please sign in</html>" * 30, gzip.compress(b"no tar at all" * 100, mtime=0)],
    ids=["empty", "page", "compressed text"],  # gzip writes the time of day: bytes are no name that two processes share
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"x\.tgz is (no archive|damaged)"):
        unpack(tmp_path / "x.tgz", tmp_path / "out", everything)


def test_a_header_that_is_too_long_is_refused_unread(tmp_path):
    with tarfile.open(tmp_path / "x.tgz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"comment": "x" * (2 << 20)}
        tar.addfile(info, io.BytesIO(b""))
    with pytest.raises(ArchiveError, match="refused as a bomb"):
        unpack(tmp_path / "x.tgz", tmp_path / "out", everything)


def test_flipped_bit_in_a_compressed_archive_is_noticed(tmp_path):
    data = bytearray(make_zip(tmp_path / "x.zip").read_bytes())
    data[41] ^= 0xFF  # in the first picture: its local header has 30 bytes, its name 9
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "x.zip", tmp_path / "out", everything)
