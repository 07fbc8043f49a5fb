"""The house stays a house: imports run one way only, as docs/architecture.md draws them, and the check can fail."""

import ast
import shutil
import sys

import pytest

from tests.conftest import ROOT, run

PACKAGE = ROOT / "yolov10_dysample"


@pytest.fixture
def lint_imports(tmp_path, python):
    """Runs import-linter, with this repository's contracts, over a copy of the package that may be changed."""
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    # Python puts the current folder first on the path: the copy is looked at, not this checkout.
    command = (python, "-c", code, ROOT / "pyproject.toml", "--no-cache")

    def lint(ok=True):
        return run(*command, cwd=tmp_path, ok=ok)

    return copy, lint


def test_the_operator_imports_torch_and_the_standard_library_alone():
    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / "dysample.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0] if not node.level else "of the package")
    assert imported - sys.stdlib_module_names == {"torch"}


def test_imports_run_one_way_only(lint_imports):
    _, lint = lint_imports
    assert ", 0 broken" in lint()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("convert.py", "def late():\n    from yolov10_dysample import registration", "Imports run one way only"),
        ("figures.py", "import yolov10_dysample.plot", "Imports run one way only"),
        ("dysample.py", "import numpy", "The operator can be lifted out"),
        ("files.py", "import torch", "What works in a broken installation"),
        ("rows.py", "import ultralytics", "Ultralytics is not imported"),
        ("new_room.py", "'''A room that nobody placed.'''", "Imports run one way only"),
    ],
)
def test_a_wall_that_is_broken_through_is_seen(module, line, contract, lint_imports):
    package, lint = lint_imports
    with (package / module).open("a") as file:
        file.write(f"\n\n{line}\n")
    assert f"{contract} BROKEN" in lint(ok=False)
