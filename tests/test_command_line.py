"""The command `yolov10-dysample` as a whole: how it is reached, what it says of itself, what it loads, and how it reads
`key=value` arguments and refuses others before it begins.
"""

import importlib
import os
import signal
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import clean_environ, run
from yolov10_dysample import __version__
from yolov10_dysample.commands.keys import Command, Key, UsageError, flag, number, one_of, several, whole
from yolov10_dysample.commands.main import COMMANDS, main

main_module = importlib.import_module("yolov10_dysample.commands.main")


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


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_failure(words, unbuffered, python, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [python, "-m", "yolov10_dysample", *words]
    env = clean_environ() | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="a process is not asked to end there")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_the_screen_is_one_line(unbuffered, python, tmp_path):
    command = [python, "-m", "yolov10_dysample", "--help"]
    env = {**clean_environ(), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "yolov10-dysample: cannot write: [Errno 28]" in done.stderr


def test_without_a_screen_a_conversion_asks_for_a_file(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)
    assert main(["convert", "model=yolov10n.yaml"]) == 2
    assert "out is missing, and there is no screen to write to; write out=model.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["plot", "weights=~/a", "source=~/b", "other=~/c", "out=~/d"],
        ["convert", "model=~/a", "out=~/b"],
        ["benchmark", "model=~/a", "out=~/b.json"],
        ["compare", "data=~/a", "model=~/b", "warm_start=~/c", "out=~/d"],
        ["compare", "report=~/a,~/b"],
    ],
    ids=lambda words: words[0],
)
def test_a_tilde_is_the_home_folder_in_every_shell(words, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path))
    name, *words = words
    values = importlib.import_module(f"yolov10_dysample.commands.{name}").COMMAND.values(words)
    given = [value for word in words for value in _listed(values[word.partition("=")[0]])]
    assert given
    assert {Path(value).parent for value in given} == {tmp_path}


def _listed(value):
    return value if isinstance(value, list) else [value]


def test_a_command_that_is_told_to_end_cleans_up_as_after_ctrl_c(python, tmp_path):
    code = """
import os, signal, sys
from yolov10_dysample.commands import main
def run(arguments):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned up")
main._status = run
sys.exit(main.main())
"""
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("cleaned up\n", 128 + signal.SIGTERM)


def test_a_terminal_without_an_arrow_shows_the_rest(python, tmp_path):
    code = "from yolov10_dysample.commands import main; main._status = lambda words: print('1 → 2'); main.main([])"
    assert run(python, "-c", code, cwd=tmp_path, env={"PYTHONIOENCODING": "cp1252"}) == "1 ? 2\n"


def test_a_library_that_cannot_be_imported_is_one_line(monkeypatch, capfd):
    def run_it(values):
        raise ImportError("libtorch_cpu.so: cannot open shared object file")

    keys = (Key("device", "", run_it),)
    monkeypatch.setattr(main_module, "_load", lambda name: Command(name, "", "", keys, "", run_it))
    for words in (["plot"], ["plot", "device=0"]):  # in what it does; and to read what it was given
        assert main(words) == 2
        said = "yolov10-dysample plot: libtorch_cpu.so: cannot open shared object file\n"
        assert capfd.readouterr() == ("", said)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_a_screen_with_examples_and_its_exit_status(name, capfd):
    assert main([name, "--help"]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith(f"usage: yolov10-dysample {name}")
    assert f"examples:\n  yolov10-dysample {name}" in out
    assert "exit status" in out
    assert max(map(len, out.splitlines())) <= 120


# Keys


def setting(name, text):
    if name != "epochs":
        raise UsageError(f"there is no training setting {name!r}")
    return int(text)


KEYS = (
    Key("model", "the model", required=True, example="mine.yaml"),
    Key("rows", "rows", several(whole(0))),
    Key("imgsz", "size", whole(32, multiple=32), 640),
    Key("conf", "confidence", number(0, 1), 0.25),
    Key("force", "write over", flag, False),
    Key("kind", "one of two", one_of(("lp", "pl")), "lp"),
)
COMMAND = Command("try", "tries", "Tries.", KEYS, "yolov10-dysample try model=mine.yaml", lambda values: 0)
DEFAULTS = {"rows": None, "imgsz": 640, "conf": 0.25, "force": False, "kind": "lp"}


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["model=a=b.yaml"], {"model": "a=b.yaml"}),
        (["conf=0.5", "model=x", "force=true"], {"model": "x", "conf": 0.5, "force": True}),
        (
            ["model=x", "rows=14, 11,14", "imgsz=64", "kind=pl"],
            {"model": "x", "rows": [14, 11], "imgsz": 64, "kind": "pl"},
        ),
        (["model=--odd"], {"model": "--odd"}),
    ],
    ids=str,
)
def test_values_are_read_in_any_order_and_the_rest_is_default(words, given):
    assert COMMAND.values(words) == {**DEFAULTS, **given}


BAD = [
    (["model=x", "imgsz=100"], "imgsz must be a multiple of 32, at least 32, got '100'; 96 would do"),
    (["model=x", "imgsz=1"], "imgsz must be a multiple of 32, at least 32, got '1'; 32 would do"),
    (["model=x", "imgsz=--64"], "imgsz must be a multiple of 32, at least 32, got '--64'; 32 would do"),
    (["model=x", "imgsz=1e3"], "imgsz must be a multiple of 32, at least 32, got '1e3'; 32 would do"),
    (["model=x", f"imgsz=1{'0' * 400}1"], f"got '1{'0' * 400}1'; 1{'0' * 401} would do"),
    (["model=x", f"imgsz={'9' * 5000}"], "9'; 32 would do"),
    (["model=x", "rows=1,²"], "rows must be a whole number, at least 0, got '²'"),
    (["model=x", "conf=nan"], "conf must be a number from 0 to 1, got 'nan'"),
    (["model=x", "conf=-0.1"], "conf must be a number from 0 to 1, got '-0.1'"),
    (["model=x", "kind=LP"], "kind must be one of lp, pl, got 'LP'"),
    (["model=x", "force=on"], "force must be True or False, got 'on'"),
    (["model=x", "model=x"], "model is given twice, the second time as 'model=x'"),
    (["model=x", "Conf=1"], "there is no key 'Conf'; did you mean conf?"),
    (["conf=1"], "model is missing; write model=mine.yaml"),
    (["model=x", "=1"], "arguments are key=value, got '=1'; write yolov10-dysample try model=mine.yaml"),
    (
        ["x", "--conf", "0.5", "--force", "--rows", "1", "2"],
        "write yolov10-dysample try model=x conf=0.5 force=True rows=1,2",
    ),
    (["x", "y"], "got 'x'; write yolov10-dysample try model=mine.yaml"),
    (["x", "--conf", "2"], "got 'x'; write yolov10-dysample try model=mine.yaml"),
    (["x", "--conf"], "got 'x'; write yolov10-dysample try model=mine.yaml"),
    (["--"], "got '--'; write yolov10-dysample try model=mine.yaml"),
    ([""], "got ''; write yolov10-dysample try model=mine.yaml"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[:60] for words, _ in BAD])
def test_what_does_not_fit_is_refused_with_the_rule_the_value_and_the_fix(words, message):
    with pytest.raises(UsageError) as error:
        COMMAND.values(words)
    assert str(error.value).endswith(message)


def test_a_number_may_have_an_upper_limit():
    with pytest.raises(ValueError, match="must be a whole number, 1 to 8, got '9'"):
        whole(1, most=8)("9")
    with pytest.raises(ValueError, match="must be a multiple of 32, 32 to 64, got '100'; 64 would do"):
        whole(32, multiple=32, most=64)("100")


def test_keys_outside_the_table_are_settings_of_their_own_where_a_command_takes_them():
    command = Command("try", "", "", KEYS, "", lambda values: 0, other=setting)
    assert command.values(["model=x", "epochs=3"]) == {**DEFAULTS, "model": "x", "settings": {"epochs": 3}}
    assert command.values(["model=x"])["settings"] == {}
    with pytest.raises(UsageError, match="there is no training setting 'epoch'"):
        command.values(["model=x", "epoch=3"])
    with pytest.raises(UsageError, match="epochs is given twice"):
        command.values(["model=x", "epochs=3", "epochs=4"])


def test_help_has_the_usage_every_key_and_the_examples():
    lines = COMMAND.help().splitlines()
    assert lines[0] == "usage: yolov10-dysample try model=mine.yaml [key=value ...]"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        *(key.name for key in KEYS),
        "yolov10-dysample",
    ]
    without_keys = Command("try", "", "Tries.", (), "", lambda values: 0)
    assert without_keys.help().startswith("usage: yolov10-dysample try\n")
