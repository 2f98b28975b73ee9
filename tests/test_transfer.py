"""A file arrives whole and right over a bad line, and anything else is refused with a sentence that says what to do."""

import errno
import hashlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ssr_lib.datasets import transfer
from ssr_lib.datasets.transfer import Patience, TransferError, WrongFileError, fetch_file

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
QUICK = Patience(attempts=3, wait=0.001, timeout=5)


class Server(ThreadingHTTPServer):
    """Serves DATA in the manner that the path names, and notes each request as (path, Range)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []

    def url(self, manner):
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}/file.bin"

    def seen(self, manner):
        return [ranges for path, ranges in self.requests if path.startswith(f"/{manner}/")]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        manner = self.path.split("/")[1]
        self.server.requests.append((self.path, self.headers.get("Range")))
        times = len(self.server.seen(manner))
        data, etag, first = DATA, '"one"', 0
        if manner in ("missing", "busy") or (manner == "busy-once" and times == 1):
            self.send_error(404 if manner == "missing" else 503)
            return
        if manner == "wrong":
            data = DATA[::-1]
        if manner == "changing":
            data, etag = (DATA[::-1], '"old"') if times == 1 else (DATA, '"new"')
        ranges = self.headers.get("Range")
        takes_ranges = manner not in ("no-range", "no-range-ever") and self.headers.get("If-Range") == etag
        if ranges and takes_ranges:
            first = int(ranges.removeprefix("bytes=").rstrip("-"))
            if first >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            stated = first + (7 if manner == "shifted" else 0)
            self.send_header("Content-Range", f"bytes {stated}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        length = len(data) - first
        length += {"too-long": 1000, "too-short": -1000}.get(manner, 0)
        if manner != "no-length":
            self.send_header("Content-Length", "9" * 400 if manner == "hostile-length" else str(length))
        if manner != "no-etag":
            self.send_header("ETag", etag)
        self.end_headers()
        body = data[first:]
        breaks = {"dropping": 70_000, "shifted": 70_000, "no-etag": 70_000 if times == 1 else len(data)}
        breaks |= {"changing": 100_000 if times == 1 else len(data), "no-range": 100_000 if times < 3 else len(data)}
        breaks |= {"no-range-ever": 100_000, "dead": 0, "reset": 70_000}
        self.wfile.write(body[: breaks.get(manner, len(body))][:length])
        if manner == "reset" and len(body) > 1000:  # what was sent arrives, and then the connection is torn down
            self.wfile.flush()
            time.sleep(0.05)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


@pytest.fixture(scope="module")
def running():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(running):
    running.requests.clear()
    return running


def fetch(path, *urls, **options):
    return fetch_file(list(urls), path, patience=QUICK, progress=False, **options)


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if p.name not in ("file.bin", "checksums.json"))


# ---- bad lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["good", "dropping", "no-range", "busy-once", "no-etag"])
def test_file_arrives_whole(server, tmp_path, manner):
    path = fetch(tmp_path / "file.bin", server.url(manner), sha256=SHA256)
    assert path.read_bytes() == DATA and leftovers(tmp_path) == []


def test_dropped_connection_is_resumed_at_the_byte_where_it_broke(server, tmp_path):
    fetch(tmp_path / "file.bin", server.url("dropping"))
    assert server.seen("dropping") == [None, *(f"bytes={70_000 * i}-" for i in range(1, 5))]


def test_what_came_before_a_reset_is_kept(server, tmp_path):
    with pytest.raises(TransferError):
        fetch_file([server.url("reset")], tmp_path / "file.bin", patience=Patience(1, 0, 5), progress=False)
    assert (tmp_path / "file.bin.part").stat().st_size == 70_000


def test_a_download_that_was_complete_but_not_yet_verified_is_not_begun_again(server, tmp_path):
    fetch(tmp_path / "file.bin", server.url("good"))
    part, stamp = tmp_path / "file.bin.part", tmp_path / "file.bin.part.json"
    (tmp_path / "file.bin").rename(part)
    stamp.write_text(json.dumps({"url": server.url("good"), "version": '"one"', "total": len(DATA)}))
    assert fetch(tmp_path / "file.bin", server.url("good"), sha256=SHA256).read_bytes() == DATA
    assert len(server.seen("good")) == 1 and leftovers(tmp_path) == []


def test_a_length_beyond_all_disks_counts_as_none(server, tmp_path):
    with pytest.raises(TransferError):
        fetch(tmp_path / "file.bin", server.url("hostile-length"), most=100_000)


def test_a_file_larger_than_it_can_be_is_not_begun(server, tmp_path):
    with pytest.raises(TransferError, match="announces 300,000 bytes; at most 1,000 are taken"):
        fetch(tmp_path / "file.bin", server.url("good"), most=1000)


def test_later_run_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    with pytest.raises(TransferError):
        fetch_file([server.url("dropping")], tmp_path / "file.bin", patience=Patience(1, 0, 5), progress=False)
    assert (tmp_path / "file.bin.part").stat().st_size == 70_000
    fetch(tmp_path / "file.bin", server.url("dropping"), sha256=SHA256)
    assert server.seen("dropping")[1] == "bytes=70000-"


def test_file_that_changes_between_two_attempts_is_begun_again(server, tmp_path):
    assert fetch(tmp_path / "file.bin", server.url("changing")).read_bytes() == DATA


def test_server_without_ranges_that_always_breaks_off_is_given_up(server, tmp_path):
    with pytest.raises(TransferError, match=r"ended after 100,000 of 300,000 bytes"):
        fetch(tmp_path / "file.bin", server.url("no-range-ever"))
    assert not (tmp_path / "file.bin").exists() and len(server.seen("no-range-ever")) == 3


def test_declared_length_that_never_comes_is_not_taken_for_the_file(server, tmp_path):
    with pytest.raises(TransferError, match="bytes"):
        fetch(tmp_path / "file.bin", server.url("too-long"))
    assert not (tmp_path / "file.bin").exists()


def test_declared_length_that_is_too_short_is_found_by_the_checksum(server, tmp_path):
    with pytest.raises(WrongFileError, match="SHA-256"):
        fetch(tmp_path / "file.bin", server.url("too-short"), sha256=SHA256)
    assert not (tmp_path / "file.bin").exists()


def test_without_a_declared_length_the_file_may_not_grow_for_ever(server, tmp_path, monkeypatch):
    assert fetch(tmp_path / "file.bin", server.url("no-length"), sha256=SHA256).read_bytes() == DATA
    monkeypatch.setattr(transfer, "MOST", 100_000)
    with pytest.raises(TransferError, match="does not say how long the file is, and sent over 100,000 bytes"):
        fetch(tmp_path / "other" / "file.bin", server.url("no-length"))
    assert leftovers(tmp_path / "other") == []


def test_server_that_answers_another_range_than_asked_is_given_up(server, tmp_path):
    with pytest.raises(TransferError, match="asked for bytes from 70000, the server sends them from 70007"):
        fetch(tmp_path / "file.bin", server.url("shifted"))


def test_passing_errors_are_tried_again_and_final_ones_are_not(server, tmp_path):
    with pytest.raises(TransferError, match="503"):
        fetch(tmp_path / "a" / "file.bin", server.url("busy"))
    with pytest.raises(TransferError, match="404"):
        fetch(tmp_path / "b" / "file.bin", server.url("missing"))
    assert len(server.seen("busy")) == 3 and len(server.seen("missing")) == 1


# ---- other addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["missing", "dead", "wrong", "busy"])
def test_next_address_is_tried_when_one_fails(server, tmp_path, bad):
    path = fetch(tmp_path / "file.bin", server.url(bad), server.url("good"), sha256=SHA256)
    assert path.read_bytes() == DATA and leftovers(tmp_path) == []


def test_without_network_one_sentence_says_what_to_fetch_and_where_to_put_it(tmp_path):
    url = "http://127.0.0.1:9/file.bin"  # the discard port: nobody listens
    with pytest.raises(TransferError) as caught:
        fetch(tmp_path / "file.bin", url)
    message = str(caught.value)
    assert url in message and "cannot be reached" in message and f"put it at {tmp_path / 'file.bin'}" in message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_other_schemes_are_not_followed(tmp_path, url):
    with pytest.raises(TransferError, match="only http and https"):
        fetch(tmp_path / "file.bin", url)


# ---- checksums -----------------------------------------------------------------------------------------------------


def test_wrong_bytes_are_refused_and_leave_nothing(server, tmp_path):
    with pytest.raises(WrongFileError, match=f"{SHA256} is published"):
        fetch(tmp_path / "file.bin", server.url("wrong"), sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_wrong_md5_is_refused(server, tmp_path):
    with pytest.raises(WrongFileError, match="MD5"):
        fetch(tmp_path / "file.bin", server.url("good"), md5="0" * 32)
    fetch(tmp_path / "file.bin", server.url("good"), md5=hashlib.md5(DATA).hexdigest())


def test_first_sight_is_remembered_and_another_file_refused_later(server, tmp_path):
    fetch(tmp_path / "file.bin", server.url("good"))
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"file.bin": SHA256}
    (tmp_path / "file.bin").unlink()
    with pytest.raises(WrongFileError, match="when it was first seen"):
        fetch(tmp_path / "file.bin", server.url("wrong"))
    (tmp_path / "file.bin").write_bytes(DATA[:-1])
    with pytest.raises(WrongFileError, match="when it was first seen"):
        fetch(tmp_path / "file.bin", server.url("good"))


def test_file_put_there_by_hand_is_verified_and_used_without_network(tmp_path):
    (tmp_path / "file.bin").write_bytes(DATA)
    assert fetch(tmp_path / "file.bin", "http://127.0.0.1:9/file.bin", sha256=SHA256).read_bytes() == DATA
    (tmp_path / "file.bin").write_bytes(DATA[::-1])
    with pytest.raises(WrongFileError, match="delete the one that is wrong"):
        fetch(tmp_path / "file.bin", "http://127.0.0.1:9/file.bin", sha256=SHA256)


# ---- room ----------------------------------------------------------------------------------------------------------


def test_too_small_a_disk_is_found_before_the_download(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 500_000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"GB more of disk") as caught:
        fetch(tmp_path / "file.bin", server.url("good"), room=2.1)
    assert caught.value.errno == errno.ENOSPC and not (tmp_path / "file.bin").exists()
    fetch(tmp_path / "file.bin", server.url("good"), room=1.0)
