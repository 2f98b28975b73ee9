"""One writer in a folder at a time, whole files or none, and parts found by their names."""

import subprocess
import sys

import pytest

from ssr_lib.files import FolderBusyError, digest, hash_file, load_part, locked, read_json, replacing, write_atomic

HOLD = """
import sys, time
from ssr_lib.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
PART = "from __future__ import annotations\nimport dataclasses as d\n@d.dataclass\nclass Head:\n    value: int = {}\n"


def test_a_second_writer_is_refused_and_a_killed_one_frees_the_folder(tmp_path):
    folder = tmp_path / "new" / "folder"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(FolderBusyError, match=f"{folder}: another run is writing here"), locked(folder):
            pass
        holder.kill()
    with locked(folder), pytest.raises(FolderBusyError), locked(folder):
        pass


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomic(path, "one\n")
    write_atomic(path, b"two\n")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_bytes() == b"two\n" and list(path.parent.iterdir()) == [path]


def test_json_that_is_absent_damaged_or_no_object_is_none_and_digests_are_of_canonical_json_and_of_bytes(tmp_path):
    assert read_json(tmp_path / "record") is None
    for content, found in (('{"a": 1}', {"a": 1}), ('{"a": ', None), ("[1]", None), (b"\xff\xfe{", None)):
        write_atomic(tmp_path / "record", content)
        assert read_json(tmp_path / "record") == found
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "record").write_bytes(b'{"a": [2], "b": 1}')
    assert hash_file(tmp_path / "record") == digest({"b": 1, "a": [2]})


def test_a_part_is_found_by_name_module_path_or_file_and_one_that_is_not_there_names_those_that_are(tmp_path):
    assert load_part("arcface", "losses").__name__ == "ssr_lib.losses.arcface"
    assert load_part("ssr_lib.losses.arcface", "losses") is load_part("arcface", "losses")
    for value in (1, 2):
        write_atomic(tmp_path / str(value) / "mine.py", PART.format(value))
    assert [load_part(str(tmp_path / folder / "mine.py"), "heads").Head().value for folder in "12"] == [1, 2]
    for name in ("gfrr", "ssr_lib.losses.gfrr", "nowhere.at.all", "nowhere/mine.py", "./mine.py", "", ".gfr"):
        refusal = f"no part '{name}' in losses; there are arcface, .*cosface, .* a .py file that is"
        with pytest.raises(ValueError, match=refusal):
            load_part(name, "losses")


@pytest.mark.parametrize("code,words", [
    ("import no_such_library", "No module named 'no_such_library'"), ("raise SystemExit(0)", "SystemExit: 0"),
    ("def (:", "SyntaxError: invalid syntax"),
])  # fmt: skip
def test_a_part_that_lacks_something_itself_says_so(tmp_path, monkeypatch, code, words):
    (tmp_path / "lacking_part.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("lacking_part.again", str(tmp_path / "lacking_part.py")):
        with pytest.raises(ValueError, match=f"losses: {name}: .*{words}"):
            load_part(name, "losses")
