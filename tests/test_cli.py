"""The command yolov10-dysample, as a user runs it: what it prints, what it writes, and how it ends."""

import os
import sysconfig
from pathlib import Path

import pytest
import torch
import ultralytics
import yaml
from ultralytics.utils import ROOT as HOST

from tests.conftest import ROOT, run
from yolov10_dysample import __version__, cli, convert_rows

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
        try:
            status = cli.main(["convert", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        return (status, *capfd.readouterr())

    return call


# Real processes


def test_it_is_installed_as_a_command_and_as_a_module(python, tmp_path):
    script = Path(sysconfig.get_path("scripts")) / "yolov10-dysample"
    for command in ([script], [python, "-m", "yolov10_dysample"]):
        assert run(*command, "--version", cwd=tmp_path) == f"yolov10-dysample {__version__}\n"


BUILD = """
from ultralytics.nn.tasks import DetectionModel
print(DetectionModel("mine-dysample.yaml", verbose=False).model[2])
"""


def test_a_converted_file_builds_in_a_process_that_imports_ultralytics_only(python, folder):
    output = run(python, "-m", "yolov10_dysample", "convert", "mine.yaml", "-o", "mine-dysample.yaml", cwd=folder)
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
        "mine.yaml",
        cwd=folder,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert output == CONVERTED


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(python, folder):
    (folder / "mine.yaml").write_text(MINE + "# long\n" * 100_000)
    command = f"set -o pipefail; '{python}' -m yolov10_dysample convert mine.yaml | head -n 1"
    assert run("bash", "-c", command, cwd=folder) == "nc: 1 # Ærø\n"


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_status_2(python, folder):
    status = "; echo status $?"
    output = run("bash", "-c", f"'{python}' -m yolov10_dysample convert none.yaml{status}", cwd=folder)
    assert output == (
        "yolov10-dysample convert: none.yaml is neither a file nor the name of a stock Ultralytics model, such as "
        "yolo11n.yaml\nstatus 2\n"
    )


# convert


def test_help_teaches_with_commands_that_work(convert):
    status, out, _ = convert("--help")
    assert status == 0
    assert "yolov10-dysample convert mine.yaml --rows 14" in out
    assert "exit status" in out


@pytest.mark.parametrize(
    ("name", "file"), [("yolov10n.yaml", "v10/yolov10n.yaml"), ("yolo11s-seg.yaml", "11/yolo11-seg.yaml")]
)
def test_a_stock_model_is_taken_by_its_bare_name(name, file, convert):
    status, out, err = convert(name)
    assert (status, err) == (0, "")
    assert yaml.safe_load(out) == convert_rows(yaml.safe_load((HOST / "cfg/models" / file).read_text()))[0]


def test_a_file_in_the_folder_comes_before_a_stock_model(convert, folder):
    (folder / "yolov10n.yaml").write_text(MINE)
    assert convert("yolov10n.yaml") == (0, CONVERTED, "")


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--style", "pl", "--groups", "2"], "[2, pl, 2]"),
        (["--dyscope"], "[2, lp, 4, True]"),
        (["--init", "nearest", "--rows", "2"], "[2, lp, 4, False, nearest]"),
    ],
    ids=str,
)
def test_options_are_the_layers_arguments(options, arguments, convert):
    assert convert("mine.yaml", *options) == (0, CONVERTED.replace("[2, lp, 4]", arguments), "")


def test_an_existing_file_is_kept_unless_forced(convert, folder):
    (folder / "out.yaml").write_text("mine")
    assert convert("mine.yaml", "-o", "out.yaml")[2].endswith("out.yaml exists; write it again with --force\n")
    assert (folder / "out.yaml").read_text() == "mine"
    assert convert("mine.yaml", "-o", "out.yaml", "--force") == (0, "", "")
    assert (folder / "out.yaml").read_text() == CONVERTED


def test_a_link_is_written_through_and_the_source_may_be_the_target(convert, folder):
    (folder / "link.yaml").symlink_to("mine.yaml")
    assert convert("mine.yaml", "-o", "link.yaml", "--force")[0] == 0
    assert (folder / "link.yaml").is_symlink()
    assert (folder / "mine.yaml").read_text() == CONVERTED


def test_names_and_line_endings_are_kept(convert, folder):
    (folder / "模型 ü.yaml").write_bytes(MINE.replace("\n", "\r\n").encode())
    assert convert("模型 ü.yaml", "-o", "模型-dysample.yaml") == (0, "", "")
    assert (folder / "模型-dysample.yaml").read_bytes() == CONVERTED.replace("\n", "\r\n").encode()


def test_a_model_that_cannot_be_built_here_is_converted_with_a_note(convert, folder):
    (folder / "mine.yaml").write_text(MINE.replace("Conv, [24", "ForksConv, [24"))
    status, out, err = convert("mine.yaml")
    assert (status, out) == (0, CONVERTED.replace("Conv, [24", "ForksConv, [24"))
    assert err == (
        "yolov10-dysample convert: note: not tried out, since the model cannot be built here (KeyError: 'ForksConv')\n"
    )


@pytest.mark.parametrize(("out", "said"), [("mine2.yaml", True), ("yolo11s-dysample.yaml", False)])
def test_a_name_that_would_lose_the_size_asked_for_gets_a_note(out, said, convert):
    status, _, err = convert("yolo11s.yaml", "-o", out)
    assert status == 0
    assert ("name it yolo11s-dysample.yaml for the size of yolo11s.yaml\n" in err) is said


def test_a_layout_that_is_lost_is_said(convert, folder):
    (folder / "mine.yaml").write_text(MINE.replace("[-1, 1, nn.U", "&up [-1, 1, nn.U") + "again: *up\n")
    status, out, err = convert("mine.yaml")
    assert status == 0
    assert out.startswith("# Converted to DySample; the comments and the layout")
    assert err == "yolov10-dysample convert: note: the comments and the layout of the original could not be kept\n"


BAD_ARGUMENTS = [
    ([], "the following arguments are required: MODEL.yaml"),
    (["mine.yaml", "--neck"], "unrecognized arguments: --neck"),
    (["mine.yaml", "--rows"], "argument --rows: expected at least one argument"),
    (["mine.yaml", "--rows", "two"], "argument --rows: invalid int value: 'two'"),
    (["mine.yaml", "--rows", "1"], "row 1 of the model is Conv, not nn.Upsample: nn.Upsample is in row 2"),
    (["mine.yaml", "--rows", "99"], "rows must be indices from 0 to 3 in the model, got 99: nn.Upsample is in row 2"),
    (["mine.yaml", "--rows", "2", "-3"], "rows must be indices from 0 to 3 in the model, got -3"),
    (["mine.yaml", "--style", "lpp"], "style must be one of 'lp', 'pl', got 'lpp'"),
    (["mine.yaml", "--init", "area"], "init must be one of 'bilinear', 'nearest', got 'area'"),
    (["mine.yaml", "--groups", "0"], "groups must be a whole number of at least 1, got 0"),
    (["mine.yaml", "--groups", "2.5"], "argument --groups: invalid int value: '2.5'"),
    (["mine.yaml", "--groups", "5"], "DySample, row 2 of mine.yaml: groups must be a whole number that divides"),
    (["mine.yaml", "--groups", "1000000000"], "DySample, row 2 of mine.yaml: groups must be"),
    (["yolo11.yaml", "--groups", "48"], "yolo11.yaml: groups must be a whole number that divides in_channels (256)"),
    (["yolo11n-cls.yaml"], "nothing to swap in the model: there is no nn.Upsample row; its 11 rows are Conv, C3k2"),
    (["yolo11q.yaml"], "yolo11q.yaml is neither a file nor the name of a stock Ultralytics model"),
    (["coco8.yaml"], "coco8.yaml is neither a file nor the name of a stock"),
    (["nowhere/yolo11n.yaml"], "nowhere/yolo11n.yaml is neither a file nor"),
    (["模型.yaml"], "模型.yaml is neither a file nor"),
    ([""], " is not a file"),
    (["folder.yaml"], "folder.yaml is not a file"),
    (["data.yaml"], "data.yaml: the model is not a model YAML: it needs `backbone` and `head`"),
    (["empty.yaml"], "empty.yaml: the model is not a model YAML"),
    (["broken.yaml"], "broken.yaml: this is not YAML: while parsing a flow sequence"),
    (["picture.yaml"], "picture.yaml is not UTF-8 text"),
    (["half.yaml"], "row 2 of the model: DySample upsamples by a whole number from 2 to 8"),
    (["done.yaml"], "there is no nn.Upsample row, and DySample already in row 2"),
    (["mine.yaml", "-o", "folder.yaml"], "folder.yaml is a folder"),
    (["mine.yaml", "-o", "folder.yaml", "--force"], "folder.yaml is a folder"),
    (["mine.yaml", "-o", "none/out.yaml"], "none/out.yaml cannot be written: there is no folder"),
    (["mine.yaml", "-o", "mine.yaml/out.yaml"], "out.yaml cannot be written: there is no folder"),
    (["mine.yaml", "-o", "mine.yaml"], "mine.yaml exists; write it again with --force"),
    (["mine.yaml", "-o", "out.txt"], "out.txt must end in .yaml"),
    (["mine.yaml", "-o", "/proc/out.yaml"], "/proc/out.yaml"),
    (["mine.yaml", "-o", "x" * 300 + ".yaml"], "File name too long"),
    (["mine.yaml", "-o", "nul\0l.yaml"], "null"),
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
    assert err.startswith(("yolov10-dysample convert: ", "yolov10-dysample: "))
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
    status, _, err = convert("mine.yaml", "-o", "out.yaml", "--force")
    assert (status, err) == (2, "yolov10-dysample convert: [Errno 28] No space left on device\n")
    assert sorted(os.listdir(folder)) == ["mine.yaml", "out.yaml"]
    assert (folder / "out.yaml").read_text() == "mine"


@pytest.mark.parametrize("arguments", [[], ["doktor"], ["doctor", "now"], ["--fix"]], ids=str)
def test_a_wrong_command_is_one_line_too(arguments, capfd):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1


# doctor


@pytest.fixture
def doctor(python, tmp_path):
    """Run `yolov10-dysample doctor` in a folder of its own; files given by name come first on Python's path."""

    def call(files=None, ok=True, cwd=tmp_path, **env):
        path = tmp_path / "first"
        path.mkdir(exist_ok=True)
        for name, text in (files or {}).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        output = run(python, "-m", "yolov10_dysample", "doctor", cwd=cwd, env={"PYTHONPATH": str(path), **env}, ok=ok)
        assert "Traceback" not in output
        return output

    return call


def test_a_healthy_installation_is_described(doctor):
    lines = doctor().splitlines()
    assert lines[-1] == "healthy"
    facts = [" ".join(line.split()) for line in lines]
    assert f"yolov10-dysample {__version__} {ROOT / 'yolov10_dysample'}" in facts
    assert f"torch {torch.__version__} {torch.__file__}" in facts
    assert f"ultralytics {ultralytics.__version__} {ultralytics.__file__}" in facts
    assert "registered yes, by itself" in facts
    assert any(fact.startswith("autoload on, entry point found once: ") for fact in facts)
    assert f"configs 6 in {ROOT / 'configs'}" in facts
    assert any(fact.startswith("export ONNX: ") for fact in facts)


BROKEN = {
    "torch missing": (
        {"torch.py": "raise ModuleNotFoundError(\"No module named 'torch'\")"},
        ["torch cannot be imported: ModuleNotFoundError: No module named 'torch'", "problem: torch cannot be imported"],
    ),
    "torch broken": (
        {"torch.py": "raise ImportError('libcudart.so.13: cannot open\\nshared object file')"},
        ["torch cannot be imported: ImportError: libcudart.so.13: cannot open shared object file"],
    ),
    "torch crashes": (
        {"torch.py": "import os; os.abort()"},
        ["torch cannot be imported: a Python process that imports torch and Ultralytics does not end well"],
    ),
    "ultralytics missing": (
        {"ultralytics.py": "raise ModuleNotFoundError(\"No module named 'ultralytics'\")"},
        ["ultralytics cannot be imported: ModuleNotFoundError: No module named 'ultralytics'"],
    ),
    "ultralytics does not fit": (
        {
            "ultralytics/__init__.py": "__version__ = '99.0'",
            "ultralytics/nn/__init__.py": "",
            "ultralytics/nn/modules.py": "",
            "ultralytics/nn/tasks.py": "def parse_model(config): pass",
            "ultralytics/utils.py": "import logging; LOGGER = logging.getLogger()",
        },
        [
            "registered no",
            "problem: WARNING yolov10_dysample",
            "does not fit Ultralytics 99.0: ultralytics.nn.tasks has no",
        ],
    ),
    "another DySample": (
        {
            "ultralytics/__init__.py": "",
            "ultralytics/nn/__init__.py": "",
            "ultralytics/nn/modules.py": "class DySample: pass",
            "ultralytics/nn/tasks.py": "def parse_model(d, ch): pass\ndef yaml_model_load(path): pass",
            "ultralytics/utils.py": "import logging; LOGGER = logging.getLogger()",
        },
        ["registered no", "ultralytics.nn.modules.DySample is already there, from ultralytics.nn.modules"],
    ),
    "installed twice": (
        {
            "yolov10_dysample-0.0.1.dist-info/METADATA": (
                "Metadata-Version: 2.1\nName: yolov10-dysample\nVersion: 0.0.1\n"
            ),
            "yolov10_dysample-0.0.1.dist-info/entry_points.txt": (
                "[torch.backends]\nyolov10_dysample = _yolov10_dysample_autoload:autoload\n"
            ),
        },
        ["on, entry point found twice: ", "problem: installed more than once (yolov10-dysample 0.0.1 in "],
    ),
}


QUICK = ("torch missing", "torch broken", "torch crashes", "ultralytics does not fit")


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in BROKEN])
def test_what_is_wrong_is_said_without_a_traceback_and_the_exit_status_is_1(case, doctor):
    files, expected = BROKEN[case]
    output = doctor(files, ok=False)
    words = " ".join(output.split())
    for message in expected:
        assert message in words
    assert output.splitlines()[-1].startswith("not healthy: 1 problem")


@pytest.mark.parametrize(
    "switch", ["YOLOV10_DYSAMPLE_AUTOLOAD", pytest.param("TORCH_DEVICE_BACKEND_AUTOLOAD", marks=pytest.mark.slow)]
)
def test_a_switch_that_turns_it_off_is_named(switch, doctor):
    output = doctor(ok=False, **{switch: "0"})
    assert f"off: {switch}=0 in the environment" in output
    assert "not by itself, but `import yolov10_dysample` does it" in output
    assert f"problem: autoload is off: unset {switch}\n" in output


@pytest.mark.slow
def test_another_ultralytics_in_the_folder_is_a_warning(doctor, tmp_path):
    (tmp_path / "here/ultralytics").mkdir(parents=True)
    (tmp_path / "here/ultralytics/__init__.py").write_text("")
    output = doctor(cwd=tmp_path / "here")
    assert f"warning: another ultralytics lies in {tmp_path / 'here'}; Python started there" in output
    assert ultralytics.__file__ in output
    assert output.endswith("healthy\n")
