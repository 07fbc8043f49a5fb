"""The script that tests the range of versions: what it did not run must never look like a pass."""

import json
import os
import sys

import pytest

from scripts import compat
from tests.conftest import run

NAMES = [combination.name for combination in compat.COMBINATIONS]


@pytest.fixture
def compat_of(monkeypatch, tmp_path):
    """`make compat` with other words, whose combinations install nothing, and have one check, which passes."""
    monkeypatch.setattr(compat, "BUILD", tmp_path / "build")
    for name in ("_wheel", "_data_set"):
        monkeypatch.setattr(compat, name, lambda: None)
    monkeypatch.setattr(compat, "_checks", lambda *places: {"train": [["yolo"]]})
    monkeypatch.setattr(compat, "_run", lambda command, cwd, log: {"passed": True, "seconds": 1.0})
    monkeypatch.setattr(compat.subprocess, "check_output", lambda *command, **settings: "{}")

    def main(*words, stopped_at=None):
        def find(version, given):
            if version == stopped_at:
                raise KeyboardInterrupt
            return sys.executable

        monkeypatch.setattr(compat, "_find_python", find)
        monkeypatch.setattr(sys, "argv", ["compat", *words, "--keep", "--out", str(tmp_path)])
        with pytest.raises((SystemExit, KeyboardInterrupt)) as stopped:
            compat.main()
        return getattr(stopped.value, "code", None)

    return main


def table(folder):
    lines = (folder / "compat.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    return lines[0], {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}


def test_combinations_that_were_not_reached_are_shown_as_not_run(compat_of, tmp_path):
    compat_of(stopped_at="3.12")
    first, rows = table(tmp_path)
    assert first.startswith(f"3 of {len(NAMES)} combinations passed every check.")
    assert rows["train"] == [*["pass, 1 s"] * 3, *["not run"] * (len(NAMES) - 3)]


@pytest.mark.parametrize(("step", "cell"), [("yolo", "**fail**: why"), ("install", "install failed: why")])
def test_a_step_that_fails_is_no_pass(step, cell, compat_of, tmp_path, monkeypatch):
    failing = {"passed": False, "seconds": 1.0, "why": "why"}
    passing = {"passed": True, "seconds": 1.0}
    monkeypatch.setattr(compat, "_run", lambda command, cwd, log: failing if step in command else passing)
    assert compat_of() == 1
    first, rows = table(tmp_path)
    assert first.startswith(f"0 of {len(NAMES)} combinations passed every check.")
    assert rows.get("train", [cell] * len(NAMES)) == [cell] * len(NAMES)


def test_a_command_passes_by_its_exit_status_alone(tmp_path):
    for status in (0, 3):
        command = [sys.executable, "-c", f"print('all is well'); raise SystemExit({status})"]
        found = compat._run(command, tmp_path, tmp_path / "log")
        assert found["passed"] is (status == 0)
    assert found["why"] == "all is well"


def test_each_combination_says_where_and_of_what_it_was_run(compat_of, tmp_path):
    assert compat_of() == 0
    record = tmp_path / "compat.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    for entry in content["combinations"]:
        entry |= {"date": "2001-02-03T04:05:06", "revision": "0123456789ab"}
        entry["machine"] |= {"system": "Plan9 vax", "cores": 64}
    record.write_text(json.dumps(content), encoding="utf-8")
    assert compat_of("--only", NAMES[0]) == 0
    first, rows = table(tmp_path)
    assert first.startswith(f"{len(NAMES)} of {len(NAMES)} combinations passed every check.")
    for name, old in (("date", "2001-02-03"), ("revision", "0123456789ab"), ("machine", "Plan9 vax, 64 cores")):
        assert rows[name][1:] == [old] * (len(NAMES) - 1)
        assert rows[name][0] not in ("", old)


def test_a_name_that_it_does_not_know_is_refused(compat_of, tmp_path, capsys):
    assert compat_of("--only", NAMES[0], "latest") == 2
    assert f"--only must be of '{NAMES[0]}', " in (said := capsys.readouterr().err)
    assert said.rstrip().endswith("got 'latest'")
    assert not (tmp_path / "compat.json").exists()


def test_an_interpreter_may_be_named_from_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    here = ".".join(map(str, sys.version_info[:2]))
    given = os.path.join("py", "python")
    assert compat._find_python(here, ["no-such-python", given]) == str(tmp_path / "py" / "python")


WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "ultralytics", "filelock", "yaml"))
from scripts import compat
print(compat.environment_record()["machine"]["gpu"])
"""


def test_it_runs_where_only_what_makes_the_data_set_is_installed():
    assert run(sys.executable, "-c", WITHOUT_TORCH, cwd=compat.ROOT).strip() == "None"
