"""The commands of a checkout, wherever it lies. Nothing is trained here: the environment holds scripts that note what
they were called with, which must be what the Makefile means.
"""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

NOTE = '#!/bin/sh\nprintf "%s\\n" "$@" >> "$NOTES"\n'


@pytest.fixture(params=["a folder", "Müll", 'it\'s "$HOME" & `more`; #1'], ids=["space", "umlaut", "shell"])
def checkout(request, tmp_path) -> Path:
    """A checkout with the name that a clone has, in a folder of an awkward name, its environment built."""
    folder = tmp_path / request.param / "yolov10_dysample"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("python", "yolo", "yolov10-dysample"):
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    (folder / ".venv" / "installed").touch()
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("target", ["demo", "compare"])
def test_make_saves_its_runs_in_the_checkout_whatever_its_folder_is_called(target, checkout, tmp_path):
    notes = tmp_path / "notes"
    run("make", target, cwd=checkout, env={"NOTES": str(notes)})
    projects = [Path(line.partition("=")[2]) for line in notes.read_text().splitlines() if line.startswith("project=")]
    assert projects
    assert {project.parts[: len(checkout.parts) + 1] for project in projects} == {(checkout / "runs").parts}
