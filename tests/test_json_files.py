"""Records survive processes that append at once, one that is killed in the middle, and numbers that JSON lacks."""

import json
import subprocess
import sys

import pytest

from tests.conftest import clean_environ
from yolov10_dysample.study.json_files import append_line, append_once, read_lines, write_json

WRITER = """
import sys
from pathlib import Path
from yolov10_dysample.study.json_files import append_line
for number in range(25):
    append_line(Path(sys.argv[1]), {"writer": sys.argv[2], "number": number, "filling": "x" * 20_000})
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    file = tmp_path / "records.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, file, name], cwd=tmp_path, env=clean_environ())
        for name in ("a", "b", "c", "d")
    ]
    assert [writer.wait(300) for writer in writers] == [0] * 4
    found = sorted((line["writer"], line["number"]) for line in read_lines(file))
    assert found == [(name, number) for name in "abcd" for number in range(25)]


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_line_cut_short_anywhere_is_ignored_and_then_replaced(cut, tmp_path):
    file = tmp_path / "records.jsonl"
    append_line(file, {"seed": 0})
    whole = file.read_bytes()
    append_line(file, {"seed": 100000})
    file.write_bytes(file.read_bytes()[: len(whole) + cut])
    assert read_lines(file) == [{"seed": 0}]
    append_line(file, {"seed": 2})
    assert file.read_bytes() == whole + b'{"seed": 2}\n'


def test_a_whole_line_that_lacks_its_end_is_kept(tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text('{"seed": 0}')
    append_line(file, {"seed": 1})
    assert file.read_text() == '{"seed": 0}\n{"seed": 1}\n'


def test_a_spoilt_line_in_the_middle_is_named(tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text('{"seed": 0}\n{"se\n{"seed": 1}\n')
    with pytest.raises(ValueError, match=r"records.jsonl must have one JSON record a line, got .*se' in line 2"):
        read_lines(file)


def test_what_is_no_number_is_null(tmp_path):
    write_json(tmp_path / "new/one.json", {"losses": [float("nan"), float("inf"), 1.5]})
    assert json.loads((tmp_path / "new/one.json").read_text()) == {"losses": [None, None, 1.5]}


def test_what_was_said_first_stands(tmp_path):
    file = tmp_path / "pairs.jsonl"
    first = {"seed": 1, "what": "weights", "digest": "a"}
    assert append_once(file, first, key=("seed", "what")) == first
    assert append_once(file, {**first, "digest": "b"}, key=("seed", "what")) == first
    other = {**first, "seed": 2, "digest": "b"}
    assert append_once(file, other, key=("seed", "what")) == other
    assert read_lines(file) == [first, other]
