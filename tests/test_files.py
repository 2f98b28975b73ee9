"""One writer in a folder at a time, and a killed writer leaves it free."""

import signal
import subprocess
import sys

import pytest

from ssr_lib.data.files import FolderBusyError, folder_lock

HOLD = """
import sys, time
from ssr_lib.data.files import folder_lock
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


def test_folder_is_made_and_can_be_locked_again(tmp_path):
    for _ in range(2):
        with folder_lock(tmp_path / "new" / "folder"):
            assert (tmp_path / "new" / "folder").is_dir()
