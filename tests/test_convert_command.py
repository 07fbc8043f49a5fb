"""`yolov10-dysample convert`, as a user runs it: what it prints, what it writes, and how it ends."""

import os
from pathlib import Path

import pytest
import yaml
from ultralytics.utils import ROOT as HOST

from tests.conftest import run
from yolov10_dysample import convert_rows
from yolov10_dysample.commands.main import main

MINE = """\
nc: 1 # Ærø
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [24, 3, 2]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]] # up
  - [[2], 1, Detect, [nc]]
"""
CONVERTED = MINE.replace('nn.Upsample, [None, 2, "nearest"]', "DySample, [2, lp, 4]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path


@pytest.fixture
def convert(capfd, folder):
    """Run `yolov10-dysample convert` here: its exit status, standard output and standard error."""

    def call(*arguments):
        return (main(["convert", *arguments]), *capfd.readouterr())

    return call


# Real processes


BUILD = """
from ultralytics.nn.tasks import DetectionModel
print(DetectionModel("mine-dysample.yaml", verbose=False).model[2])
"""


@pytest.mark.slow
def test_a_converted_file_builds_in_a_process_that_imports_ultralytics_only(python, folder):
    output = run(python, "-m", "yolov10_dysample", "convert", "model=mine.yaml", "out=mine-dysample.yaml", cwd=folder)
    assert output == ""
    assert (folder / "mine-dysample.yaml").read_text() == CONVERTED
    assert "DySample(\n  24, scale=2, style='lp', groups=4" in run(python, "-c", BUILD, cwd=folder)


@pytest.mark.slow
def test_the_screen_gets_the_file_and_nothing_else_in_any_locale(python, folder):
    output = run(
        python,
        "-m",
        "yolov10_dysample",
        "convert",
        "model=mine.yaml",
        cwd=folder,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert output == CONVERTED


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(python, folder):
    (folder / "mine.yaml").write_text(MINE + "# long\n" * 100_000)
    command = f"set -o pipefail; '{python}' -m yolov10_dysample convert model=mine.yaml | head -n 1"
    assert run("bash", "-c", command, cwd=folder) == "nc: 1 # Ærø\n"


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_status_2(python, folder):
    status = "; echo status $?"
    output = run("bash", "-c", f"'{python}' -m yolov10_dysample convert model=none.yaml{status}", cwd=folder)
    assert output == (
        "yolov10-dysample convert: none.yaml is neither a file nor the name of a stock Ultralytics model, such as "
        "yolo11n.yaml\nstatus 2\n"
    )


# convert


def test_help_teaches_with_commands_that_work(convert):
    status, out, _ = convert("--help")
    assert status == 0
    assert "yolov10-dysample convert model=mine.yaml rows=14" in out
    assert "exit status" in out


@pytest.mark.parametrize(
    ("name", "file"), [("yolov10n.yaml", "v10/yolov10n.yaml"), ("yolo11s-seg.yaml", "11/yolo11-seg.yaml")]
)
def test_a_stock_model_is_taken_by_its_bare_name(name, file, convert):
    status, out, err = convert(f"model={name}")
    assert (status, err) == (0, "")
    assert yaml.safe_load(out) == convert_rows(yaml.safe_load((HOST / "cfg/models" / file).read_text()))[0]


def test_a_file_in_the_folder_comes_before_a_stock_model(convert, folder):
    (folder / "yolov10n.yaml").write_text(MINE)
    assert convert("model=yolov10n.yaml") == (0, CONVERTED, "")


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["style=pl", "groups=2"], "[2, pl, 2]"),
        (["dyscope=True"], "[2, lp, 4, True]"),
        (["init=nearest", "rows=2"], "[2, lp, 4, False, nearest]"),
    ],
    ids=str,
)
def test_options_are_the_layers_arguments(options, arguments, convert):
    assert convert("model=mine.yaml", *options) == (0, CONVERTED.replace("[2, lp, 4]", arguments), "")


def test_an_existing_file_is_kept_unless_forced(convert, folder):
    (folder / "out.yaml").write_text("mine")
    assert convert("model=mine.yaml", "out=out.yaml")[2].endswith("out.yaml exists; write it again with force=True\n")
    assert (folder / "out.yaml").read_text() == "mine"
    assert convert("model=mine.yaml", "out=out.yaml", "force=True") == (0, "", "")
    assert (folder / "out.yaml").read_text() == CONVERTED


def test_a_link_is_written_through_and_the_source_may_be_the_target(convert, folder):
    (folder / "link.yaml").symlink_to("mine.yaml")
    assert convert("model=mine.yaml", "out=link.yaml", "force=True")[0] == 0
    assert (folder / "link.yaml").is_symlink()
    assert (folder / "mine.yaml").read_text() == CONVERTED


def test_names_and_line_endings_are_kept(convert, folder):
    (folder / "模型 ü.yaml").write_bytes(MINE.replace("\n", "\r\n").encode())
    assert convert("model=模型 ü.yaml", "out=模型-dysample.yaml") == (0, "", "")
    assert (folder / "模型-dysample.yaml").read_bytes() == CONVERTED.replace("\n", "\r\n").encode()


def test_a_model_that_cannot_be_built_here_is_converted_with_a_note(convert, folder):
    (folder / "mine.yaml").write_text(MINE.replace("Conv, [24", "ForksConv, [24"))
    status, out, err = convert("model=mine.yaml")
    assert (status, out) == (0, CONVERTED.replace("Conv, [24", "ForksConv, [24"))
    assert err == (
        "yolov10-dysample convert: note: not tried out, since the model cannot be built here (KeyError: 'ForksConv')\n"
    )


@pytest.mark.parametrize(("out", "said"), [("mine2.yaml", True), ("yolo11s-dysample.yaml", False)])
def test_a_name_that_would_lose_the_size_asked_for_gets_a_note(out, said, convert):
    status, _, err = convert("model=yolo11s.yaml", f"out={out}")
    assert status == 0
    assert ("name it yolo11s-dysample.yaml for the size of yolo11s.yaml\n" in err) is said


def test_a_layout_that_is_lost_is_said(convert, folder):
    (folder / "mine.yaml").write_text(MINE.replace("[-1, 1, nn.U", "&up [-1, 1, nn.U") + "again: *up\n")
    status, out, err = convert("model=mine.yaml")
    assert status == 0
    assert out.startswith("# Converted to DySample; the comments and the layout")
    assert err == "yolov10-dysample convert: note: the comments and the layout of the original could not be kept\n"


MINE_YAML = "model=mine.yaml"
BAD_ARGUMENTS = [
    ([], "model is missing; write model=mine.yaml (see yolov10-dysample convert --help)"),
    (
        [MINE_YAML, "neck=True"],
        "there is no key 'neck'; there are model, out, force, rows, style, groups, dyscope, init",
    ),
    ([MINE_YAML, "row=2"], "there is no key 'row'; did you mean rows?"),
    ([MINE_YAML, "groups=2", "groups=4"], "groups is given twice, the second time as 'groups=4'"),
    ([MINE_YAML, "rows="], "arguments are key=value, got 'rows='; write yolov10-dysample convert model=mine.yaml"),
    ([MINE_YAML, "rows=two"], "rows must be a whole number, at least 0, got 'two'"),
    ([MINE_YAML, "rows=1"], "row 1 of the model is Conv, not nn.Upsample: nn.Upsample is in row 2"),
    ([MINE_YAML, "rows=99"], "rows must be indices from 0 to 3 in the model, got 99: nn.Upsample is in row 2"),
    ([MINE_YAML, "rows=2,-3"], "rows must be a whole number, at least 0, got '-3'"),
    ([MINE_YAML, "rows=2,,3"], "rows must be values with one comma between them, got '2,,3'"),
    ([MINE_YAML, "style=lpp"], "style must be one of 'lp', 'pl', got 'lpp'"),
    ([MINE_YAML, "init=area"], "init must be one of 'bilinear', 'nearest', got 'area'"),
    ([MINE_YAML, "groups=0"], "groups must be a whole number, at least 1, got '0'"),
    ([MINE_YAML, "groups=2.5"], "groups must be a whole number, at least 1, got '2.5'"),
    ([MINE_YAML, "groups=5"], "DySample, row 2 of mine.yaml: groups must be a whole number that divides"),
    ([MINE_YAML, "groups=1000000000"], "DySample, row 2 of mine.yaml: groups must be"),
    ([MINE_YAML, "dyscope=yes"], "dyscope must be True or False, got 'yes'"),
    ([MINE_YAML, "out=out.yaml", "force=1"], "force must be True or False, got '1'"),
    (["model=yolo11.yaml", "groups=48"], "yolo11.yaml: groups must be a whole number that divides in_channels (256)"),
    (
        ["model=yolo11n-cls.yaml"],
        "nothing to swap in the model: there is no nn.Upsample row; its 11 rows are Conv, C3k2",
    ),
    (["model=yolo11q.yaml"], "yolo11q.yaml is neither a file nor the name of a stock Ultralytics model"),
    (["model=coco8.yaml"], "coco8.yaml is neither a file nor the name of a stock"),
    (["model=nowhere/yolo11n.yaml"], "nowhere/yolo11n.yaml is neither a file nor"),
    (["model=模型.yaml"], "模型.yaml is neither a file nor"),
    (["model="], "arguments are key=value, got 'model='"),
    (["model=folder.yaml"], "folder.yaml is not a file"),
    (["model=data.yaml"], "data.yaml: the model is not a model YAML: it needs `backbone` and `head`"),
    (["model=empty.yaml"], "empty.yaml: the model is not a model YAML"),
    (["model=broken.yaml"], "broken.yaml: this is not YAML: while parsing a flow sequence"),
    (["model=picture.yaml"], "picture.yaml is not UTF-8 text"),
    (["model=half.yaml"], "row 2 of the model: DySample upsamples by a whole number from 2 to 8"),
    (["model=done.yaml"], "there is no nn.Upsample row, and DySample already in row 2"),
    ([MINE_YAML, "out=folder.yaml"], "folder.yaml is a folder"),
    ([MINE_YAML, "out=folder.yaml", "force=True"], "folder.yaml is a folder"),
    ([MINE_YAML, "out=none/out.yaml"], "none/out.yaml cannot be written: there is no folder"),
    ([MINE_YAML, "out=mine.yaml/out.yaml"], "out.yaml cannot be written: there is no folder"),
    ([MINE_YAML, "out=mine.yaml"], "mine.yaml exists; write it again with force=True"),
    ([MINE_YAML, "out=out.txt"], "out.txt must end in .yaml"),
    ([MINE_YAML, "out=/proc/out.yaml"], "/proc/out.yaml"),
    ([MINE_YAML, "out=" + "x" * 300 + ".yaml"], "File name too long"),
    ([MINE_YAML, "out=nul\0l.yaml"], "null"),
    # The form of version 0.1.0
    (
        ["mine.yaml", "--init", "nearest", "-o", "out.yaml"],
        "arguments are key=value, got 'mine.yaml'; "
        "write yolov10-dysample convert model=mine.yaml init=nearest out=out.yaml (see",
    ),
    (
        ["--rows", "2", "14", "--dyscope", "mine.yaml", "--force"],
        "write yolov10-dysample convert rows=2,14 dyscope=True model=mine.yaml force=True (see",
    ),
    ([MINE_YAML, "--style=pl"], "write yolov10-dysample convert model=mine.yaml style=pl (see"),
    (["my model.yaml"], "write yolov10-dysample convert 'model=my model.yaml' (see"),
    (
        ["mine.yaml", "--neck"],
        "arguments are key=value, got 'mine.yaml'; write yolov10-dysample convert model=mine.yaml",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[str(a)[:60] for a, _ in BAD_ARGUMENTS])
def test_a_refused_call_says_why_in_one_line_and_writes_nothing(arguments, message, convert, folder):
    (folder / "folder.yaml").mkdir()
    (folder / "data.yaml").write_text("train: images\nnames: [cat]\n")
    (folder / "empty.yaml").write_text("")
    (folder / "broken.yaml").write_text("head: [1, 2")
    (folder / "picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "half.yaml").write_text(MINE.replace("None, 2,", "None, 1.5,"))
    (folder / "done.yaml").write_text(CONVERTED)
    before = {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")}
    status, out, err = convert(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("yolov10-dysample convert: ")
    assert message in err
    assert err.count("\n") == 1
    assert {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")} == before


def test_a_write_that_fails_halfway_leaves_what_was_there(convert, folder, monkeypatch):
    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    (folder / "out.yaml").write_text("mine")
    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = convert("model=mine.yaml", "out=out.yaml", "force=True")
    assert (status, err) == (2, "yolov10-dysample convert: [Errno 28] No space left on device\n")
    assert sorted(os.listdir(folder)) == ["mine.yaml", "out.yaml"]
    assert (folder / "out.yaml").read_text() == "mine"
