"""One writer in a folder at a time, and a killed writer leaves it free and clean."""

import os
import platform
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from ssr_lib import files
from ssr_lib.files import FolderBusyError, folder_lock, write_atomic
from ssr_lib.resume import load_state, save_state
from ssr_lib.store import save_npy

HOLD = """
import sys, time
from ssr_lib.files import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_by_name_and_a_killed_one_frees_the_folder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with (
            pytest.raises(FolderBusyError, match=rf"{tmp_path}: another run .*process {holder.pid}"),
            folder_lock(tmp_path),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with folder_lock(tmp_path):
        pass


FORK = """
import os, sys, time
from ssr_lib.files import folder_lock
with folder_lock(sys.argv[1]):
    if not os.fork():
        print(os.getpid(), flush=True)  # from the child: it has let go of what it inherited by now
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_worker_does_not_hold_the_folder_of_its_killed_parent(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path)], stdout=subprocess.PIPE)
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(FolderBusyError), folder_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with folder_lock(tmp_path):
            os.kill(worker, 0)  # it is still there
    finally:
        holder.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    with folder_lock(tmp_path):
        pass  # .lock is there, and may be opened
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop the superuser
    with pytest.raises(PermissionError, match=f"Permission denied: '{tmp_path}'"), folder_lock(tmp_path):
        pass


WRITE = """
import os, signal, sys
from ssr_lib import files
files.os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomic(sys.argv[1], "half")
"""


def state_of_a_run():
    net = torch.nn.Linear(1, 1)
    return {"net": net}, torch.optim.SGD(net.parameters())


WRITERS = {
    "save_npy": lambda path: save_npy(path, (2,), np.dtype(np.float32), [np.zeros(2)]),
    "save_state": lambda path: save_state(path, *state_of_a_run(), {}),
}


@pytest.mark.skipif(sys.platform == "win32", reason="does not ask for a process there")
@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_writer_left_is_removed_when_its_file_is_written_again(tmp_path, writer, monkeypatch):
    path = tmp_path / "rows[1]"
    killed = subprocess.run([sys.executable, "-c", WRITE, str(path)])
    left = [found.name for found in tmp_path.iterdir()]
    assert killed.returncode == -signal.SIGKILL and len(left) == 1 and left[0].endswith(".part")
    write_atomic(tmp_path / "rows1", "another file")
    WRITERS[writer](path)
    assert (tmp_path / left[0]).exists(), "touched a moment ago: whoever has that process number may be writing"
    monkeypatch.setattr(files, "IDLE", -1)
    WRITERS[writer](path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["rows1", "rows[1]"]


def leftover_name(pid, machine=None):
    return f".rows.{machine or platform.node()}.{pid}.part"


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_that_goes_on_from_its_last_state_leaves_no_other(tmp_path, gone, monkeypatch):
    monkeypatch.setattr(files, "IDLE", -1)
    save_state(tmp_path / "rows", *state_of_a_run(), {"made_by": {}})
    (tmp_path / leftover_name(gone)).write_text("half")
    load_state(tmp_path / "rows", *state_of_a_run(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_a_living_process_or_another_machine_is_writing_stays(tmp_path, gone, monkeypatch):
    monkeypatch.setattr(files, "IDLE", -1)
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    elsewhere = leftover_name(gone, "another." + platform.node())
    kept = [leftover_name(living.pid), elsewhere, leftover_name("x"), ".rows.part"]
    for name in (*kept, leftover_name(gone)):
        (tmp_path / name).write_text("half")
    WRITERS["save_npy"](tmp_path / "rows")
    living.communicate(b"\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "rows"])


def test_folder_is_made_and_can_be_locked_again(tmp_path):
    for _ in range(2):
        with folder_lock(tmp_path / "new" / "folder"):
            assert (tmp_path / "new" / "folder").is_dir()
