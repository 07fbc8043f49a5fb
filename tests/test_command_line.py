"""The command `yolov10-dysample` as a whole: how it is reached, what it says of itself, and what it loads."""

import sysconfig
from pathlib import Path

import pytest

from tests.conftest import run
from yolov10_dysample import __version__
from yolov10_dysample.commands.main import COMMANDS, main


def test_it_is_installed_as_a_command_and_as_a_module(python, tmp_path):
    script = Path(sysconfig.get_path("scripts")) / "yolov10-dysample"
    for command in ([script], [python, "-m", "yolov10_dysample"]):
        assert run(*command, "--version", cwd=tmp_path) == f"yolov10-dysample {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["doktor"],
            "yolov10-dysample: there is no command 'doktor'; did you mean doctor? (see yolov10-dysample --help)",
        ),
        (["--fix"], "yolov10-dysample: there is no command '--fix'; there are doctor, convert, plot"),
        (["doctor", "now"], "yolov10-dysample doctor: arguments are key=value, got 'now' (see yolov10-dysample doctor"),
        (["doctor", "fix=True"], "yolov10-dysample doctor: there is no key 'fix' (see yolov10-dysample doctor --help)"),
    ],
    ids=str,
)
def test_a_wrong_command_is_one_line_and_exit_status_2(arguments, message, capfd):
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(message)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_without_a_command_it_lists_them_with_what_each_does(arguments, capfd):
    assert main(arguments) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "yolo detect train model=yolov10n-dysample.yaml data=coco8.yaml\n" in out
    for name in COMMANDS:
        assert f"\n  {name} " in out


def test_the_command_line_loads_neither_torch_nor_ultralytics(python, tmp_path):
    code = (
        "import sys; from yolov10_dysample.commands.main import COMMANDS, main; main([]); "
        "[main([name, '--help']) for name in COMMANDS]; print({'torch', 'ultralytics', 'numpy'} & {*sys.modules})"
    )
    assert run(python, "-c", code, cwd=tmp_path).endswith("\nset()\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_a_screen_with_examples_and_its_exit_status(name, capfd):
    assert main([name, "--help"]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith(f"usage: yolov10-dysample {name}")
    assert f"examples:\n  yolov10-dysample {name}" in out
    assert "exit status" in out
    assert max(map(len, out.splitlines())) <= 120
