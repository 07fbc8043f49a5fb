"""DySample put into model YAMLs: what changes, what stays, and what is refused; and `yolov10-dysample convert`: what it
prints, what it writes, and how it ends.
"""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ultralytics.utils import ROOT as HOST

from tests.conftest import clean_environ, run
from yolov10_dysample import convert_rows, convert_yaml
from yolov10_dysample.commands.main import main
from yolov10_dysample.model_files import find_stock

UP = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
SMALL = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]],
    "head": [UP, [[-1, 0], 1, "Concat", [1]], UP, [-1, 1, "Conv", [8, 1, 1]]],
}


def rows(model):
    return [*model["backbone"], *model["head"]]


# Parsed model YAMLs


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, [2, "lp", 4]),
        ({"style": "pl", "groups": 8}, [2, "pl", 8]),
        ({"dyscope": True}, [2, "lp", 4, True]),
        ({"init": "nearest"}, [2, "lp", 4, False, "nearest"]),
        ({"style": "pl", "groups": 2, "dyscope": True, "init": "nearest"}, [2, "pl", 2, True, "nearest"]),
    ],
    ids=str,
)
def test_upsampling_rows_become_dysample_rows_in_their_places(options, arguments):
    before = copy.deepcopy(SMALL)
    model, swapped = convert_rows(SMALL, **options)
    assert before == SMALL
    assert swapped == [2, 4]
    for i, (old, new) in enumerate(zip(rows(SMALL), rows(model), strict=True)):
        assert new == ([-1, 1, "DySample", arguments] if i in swapped else old)
    assert {**model, "head": None} == {**SMALL, "head": None}


@pytest.mark.parametrize("chosen", [[4], (4, 4), {4}, range(4, 5)], ids=str)
def test_only_the_rows_asked_for_are_replaced(chosen):
    model, swapped = convert_rows(SMALL, rows=chosen)
    assert swapped == [4]
    assert rows(model)[2] == UP
    assert rows(model)[4][2] == "DySample"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 1, "nn.Upsample", ["None", 3, "bilinear"]], [0, 1, "DySample", [3, "lp", 4]]),
        ([-2, 1, "nn.Upsample", [None, 4.0]], [-2, 1, "DySample", [4, "lp", 4]]),
    ],
    ids=str,
)
def test_source_and_scale_are_the_rows_own(row, expected):
    model, _ = convert_rows({"backbone": SMALL["backbone"], "head": [row]})
    assert model["head"] == [expected]


def with_row(row):
    return {"backbone": SMALL["backbone"], "head": [row], "yaml_file": "mine.yaml"}


def up(*arguments, repeats=1):
    return with_row([-1, repeats, "nn.Upsample", list(arguments)])


BAD_CONVERSIONS = [
    ({"rows": [3]}, SMALL, r"row 3 of the model is Concat, not nn\.Upsample: nn\.Upsample is in rows 2, 4$"),
    ({"rows": [6]}, SMALL, r"indices from 0 to 5 in the model, got 6: nn\.Upsample is in rows 2, 4"),
    ({"rows": [-1]}, SMALL, "indices from 0 to 5 .* got -1"),
    ({"rows": ["2"]}, SMALL, "indices from 0 to 5 .* got '2'"),
    ({"rows": [True]}, SMALL, "indices from 0 to 5 .* got True"),
    ({"rows": [2.0]}, SMALL, r"indices from 0 to 5 .* got 2\.0"),
    ({"rows": 2}, SMALL, "rows must be a list of row indices, got 2"),
    ({"rows": {2: 1}}, SMALL, r"rows must be a list of row indices, got \{2: 1\}: nn\.Upsample is in rows 2, 4$"),
    ({"rows": "24"}, SMALL, "rows must be a list of row indices, got '24': "),
    ({"rows": b"\x02"}, SMALL, r"rows must be a list of row indices, got b'\\x02'"),
    ({"rows": [[2]]}, SMALL, r"rows must be a list of row indices, got \[\[2\]\]"),
    ({"rows": []}, SMALL, "rows must name at least one row"),
    ({"style": "lpp"}, SMALL, "style must be one of 'lp', 'pl', got 'lpp'"),
    ({"init": "bicubic"}, SMALL, "init must be one of 'bilinear', 'nearest', got 'bicubic'"),
    ({"groups": 0}, SMALL, "groups must be a whole number of at least 1, got 0"),
    ({"groups": "4"}, SMALL, "groups must be .* got '4'"),
    ({"dyscope": "yes"}, SMALL, "dyscope must be True or False, got 'yes'"),
    (
        {},
        up(None, 1.5, "nearest"),
        r"^row 2 of mine\.yaml: .* whole number from 2 to 8, .* got \[None, 1\.5, 'nearest'\]",
    ),
    ({}, up(None, 9), "whole number from 2 to 8"),
    ({}, up(None, 1), "whole number from 2 to 8"),
    ({}, up(None, -2), "whole number from 2 to 8"),
    ({}, up(None, float("nan")), "whole number from 2 to 8"),
    ({}, up(None, "1.5"), "whole number from 2 to 8"),
    ({}, up(None, [2, 2]), "whole number from 2 to 8"),
    ({}, up([40, 40], None, "nearest"), r"whole number from 2 to 8, .*got \[\[40, 40\]"),
    ({}, up(40), "whole number from 2 to 8"),
    ({}, up(), "whole number from 2 to 8"),
    ({}, with_row([-1, 1, "nn.Upsample", None]), "whole number from 2 to 8"),
    ({}, up(None, 2, repeats=2), "`repeats` 1 .* got 2"),
    ({}, {**SMALL, "head": []}, r"nothing to swap in the model: there is no nn\.Upsample row; its 2 rows are Conv$"),
    ({}, {"backbone": [], "head": []}, "its 0 rows are no layers"),
    ({}, convert_rows(SMALL)[0], "no nn.Upsample row, and DySample already in rows 2, 4"),
    ({}, {"backbone": SMALL["backbone"]}, "is not a model YAML: it needs `backbone` and `head`"),
    ({}, {"names": ["person"]}, "is not a model YAML"),
    ({}, {"backbone": "x", "head": 3}, "is not a model YAML"),
    ({}, None, "is not a model YAML"),
    ({}, [UP], "is not a model YAML"),
    ({}, "head: []", "is not a model YAML"),
    ({}, with_row("nn.Upsample"), r"there is no nn\.Upsample row"),
    ({}, with_row([-1, 1, "nn.Upsample"]), r"there is no nn\.Upsample row"),
]


@pytest.mark.parametrize(("options", "model", "message"), BAD_CONVERSIONS, ids=[m for _, _, m in BAD_CONVERSIONS])
def test_a_refused_conversion_says_what_it_looked_for_and_what_is_there(options, model, message):
    with pytest.raises(ValueError, match=message):
        convert_rows(model, **options)


# The text of model YAMLs

LAYOUTS = {
    "comments": """\
# Ærø's model 日本
nc: 1
backbone:
  - [-1, 1, Conv, [16, 3, 2]] # nn.Upsample, [None, 2, nearest] is not here
  # - [-1, 1, nn.Upsample, [None, 2, nearest]]
head:
  - [-1, 1,   nn.Upsample, [ None,2 , "nearest"] ]   # 1: kept
  - [-1, 1, 'nn.Upsample', ['None', 2]]
""",
    "several lines": """\
backbone: [[-1, 1, Conv, [16, 3, 2]]]
head:
  - [-1, 1,
     nn.Upsample, # the layer
     [None,
      2, nearest]] # its arguments
  - - -1
    - 1
    - nn.Upsample
    - [None, 2, nearest]
""",
    "head first": """\
head: [[-1, 1, nn.Upsample, [None, 2, nearest]], [-1, 1, Conv, [8, 1, 1]]]
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, nn.Upsample, [None, 4, nearest]]]
""",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_text_says_what_the_converted_model_says_and_keeps_its_layout(layout, newline, recwarn):
    text = LAYOUTS[layout].replace("\n", newline)
    converted = convert_yaml(text, groups=8)
    assert yaml.safe_load(converted) == convert_rows(yaml.safe_load(text), groups=8)[0]
    assert re.findall("#.*?\n", converted)[-1:] == re.findall("#.*?\n", text)[-1:]
    assert not recwarn.list
    rest = r"'?(nn\.Upsample|DySample)'?,?[^\[]*\[[^\]]*\]"
    if layout != "several lines":
        assert re.sub(rest, "", converted) == re.sub(rest, "", text)


def test_a_stock_yaml_changes_in_its_upsampling_rows_only():
    stock = find_stock("yolov10n.yaml").read_text()
    changed = [
        (old, new) for old, new in zip(stock.splitlines(), convert_yaml(stock).splitlines(), strict=True) if old != new
    ]
    assert changed == [('  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]', "  - [-1, 1, DySample, [2, lp, 4]]")] * 2


@pytest.mark.parametrize(
    "text",
    [
        "backbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [&up [-1, 1, nn.Upsample, [None, 2]], *up] # lost\n",
        "backbone: []\nhead: [[-1, 1, nn.Upsample, &b [None, 2]], [-1, 1, nn.Upsample, *b]]\n",
        "base: &base\n  head: [[-1, 1, nn.Upsample, [None, 2]]]\n<<: *base\nbackbone: []\n",
    ],
    ids=["shared row", "shared arguments", "merged"],
)
def test_an_unusual_layout_is_written_anew_and_said(text):
    expected = convert_rows(yaml.safe_load(text), rows=[len(yaml.safe_load(text)["backbone"])])[0]
    with pytest.warns(UserWarning, match="layout of the original could not be kept"):
        converted = convert_yaml(text, rows=[len(yaml.safe_load(text)["backbone"])])
    assert yaml.safe_load(converted) == expected
    assert converted.startswith("# Converted to DySample; the comments and the layout of the original could not")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head: [", "this is not YAML: .*line 1"),
        ("[" * 5000, "this is not YAML"),
        ("!!python/object:os.system {}", "this is not YAML"),
        ("\0", "this is not YAML"),
        (None, "this is not YAML"),
        ("", "is not a model YAML"),
        ("just words", "is not a model YAML"),
    ],
    ids=["open bracket", "deep", "python tag", "control character", "no text", "empty", "words"],
)
def test_text_that_is_no_model_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        convert_yaml(text)
    assert "\n" not in str(error.value)


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


# The command in real processes


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
def test_stdout_gets_the_file_and_nothing_else_in_any_locale_and_where_ultralytics_begins_its_settings(python, folder):
    fresh = {"YOLO_CONFIG_DIR": str(folder), "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [python, "-m", "yolov10_dysample", "convert", "model=mine.yaml"]
    done = subprocess.run(command, cwd=folder, env={**clean_environ(), **fresh}, capture_output=True, text=True)
    assert done.stdout == CONVERTED
    assert "Creating new Ultralytics Settings" in done.stderr


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(warm_shell, folder):
    (folder / "mine.yaml").write_text(MINE + "# long\n" * 100_000)
    command = "set -o pipefail; yolov10-dysample convert model=mine.yaml | head -n 1"
    assert warm_shell(command, cwd=folder) == "nc: 1 # Ærø\n"


def test_arguments_that_ultralytics_reads_out_of_text_are_read_so():
    model = {"backbone": [], "head": [[-1, 1, "nn.Upsample", ["None", "2", "nearest"]]]}
    assert convert_rows(model)[0]["head"] == [[-1, 1, "DySample", [2, "lp", 4]]]


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_status_2(python, folder):
    status = "; echo status $?"
    output = run("bash", "-c", f"'{python}' -m yolov10_dysample convert model=none.yaml{status}", cwd=folder)
    assert output == (
        "yolov10-dysample convert: model must be a YAML file, or the name of a stock Ultralytics model such as "
        "yolo11n.yaml, got none.yaml\nstatus 2\n"
    )


# The command


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
    (["model=yolo11q.yaml"], "or the name of a stock Ultralytics model such as yolo11n.yaml, got yolo11q.yaml"),
    (["model=coco8.yaml"], "such as yolo11n.yaml, got coco8.yaml"),
    (["model=nowhere/yolo11n.yaml"], "such as yolo11n.yaml, got nowhere/yolo11n.yaml"),
    (["model=模型.yaml"], "such as yolo11n.yaml, got 模型.yaml"),
    (["model="], "arguments are key=value, got 'model='"),
    (["model=yolo11n-dysample.yaml"], "a name that ends so means the converted model already, and needs no file"),
    (["model=best.pt"], "model must be a YAML file, got best.pt: weights are swapped in Python, by use_dysample(YOLO("),
    (["model=folder.yaml"], "model must be a YAML file, and folder.yaml is a folder"),
    (["model=data.yaml"], "data.yaml: the model is not a model YAML: it needs `backbone` and `head`"),
    (["model=empty.yaml"], "empty.yaml: the model is not a model YAML"),
    (["model=broken.yaml"], "broken.yaml: this is not YAML: while parsing a flow sequence"),
    (["model=picture.yaml"], "model must be a YAML file, and picture.yaml is not UTF-8 text"),
    (["model=half.yaml"], "row 2 of the model: DySample upsamples by a whole number from 2 to 8"),
    (["model=done.yaml"], "there is no nn.Upsample row, and DySample already in row 2"),
    ([MINE_YAML, "out=folder.yaml"], "folder.yaml is a folder"),
    ([MINE_YAML, "out=folder.yaml", "force=True"], "folder.yaml is a folder"),
    ([MINE_YAML, "out=none/out.yaml"], f"{Path('none/out.yaml')} cannot be written: there is no folder"),
    ([MINE_YAML, "out=mine.yaml/out.yaml"], "out.yaml cannot be written: there is no folder"),
    ([MINE_YAML, "out=mine.yaml"], "mine.yaml exists; write it again with force=True"),
    ([MINE_YAML, "out=out.txt"], "out.txt must end in .yaml"),
    *([([MINE_YAML, "out=/proc/out.yaml"], "/proc/out.yaml")] if sys.platform == "linux" else []),
    *([([MINE_YAML, f"out={'x' * 300}.yaml"], "File name too long")] if os.name == "posix" else []),
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
