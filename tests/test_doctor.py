"""`yolov10-dysample doctor` tells the truth, whatever is broken.

Most cases run beside stand-ins for torch and Ultralytics (`tests/stubs.py`), which makes them quick enough to break
every file in turn; each promise has a case beside the real ones, too.
"""

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
import ultralytics

from tests.conftest import ROOT, Environment, StubEnvironment, clean_environ, run
from tests.stubs import ULTRALYTICS, write_files
from yolov10_dysample import __version__
from yolov10_dysample.commands.doctor import RUNTIMES
from yolov10_dysample.exporting import SAMPLINGS

REINSTALL = "pip install --force-reinstall --no-deps . in the clone (or the wheel in place of the dot)"


class Doctor:
    """Runs doctor in a folder of its own; files given by name come first on Python's path."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.folder = folder

    def __call__(self, files=None, ok=True, cwd=None, **env) -> str:
        first = self.folder / "first"
        write_files(first, files or {})
        command = (self.python, "-m", "yolov10_dysample", "doctor")
        output = run(*command, cwd=cwd or self.folder, env={"PYTHONPATH": str(first), **env}, ok=ok)
        assert "Traceback" not in output
        return output


@pytest.fixture
def installed(python, tmp_path):
    """Doctor in this environment."""
    return Doctor(python, tmp_path)


@pytest.fixture(scope="session")
def real_environment(once, wheel):
    """The wheel beside the real torch and Ultralytics. Nobody changes it."""
    return Environment(once("doctor", lambda folder: without_runtimes(folder, wheel)) / "venv")


def without_runtimes(folder, wheel):
    """An environment with the wheel and all else but the runtimes of exported models: importing each takes its time."""
    environment = Environment.build(folder / "venv")
    environment.pip("install", "--no-deps", "--no-index", wheel)
    runtimes = {name.replace("-", "_").lower() for names in RUNTIMES.values() for name in names}
    for link in environment.site.glob("*.dist-info"):
        if link.name.split("-")[0].lower() in runtimes:
            link.unlink()
    return environment


@pytest.fixture
def real(real_environment, tmp_path):
    """Doctor there."""
    return Doctor(real_environment.python, tmp_path)


@pytest.fixture
def stubbed(stub_environment, tmp_path):
    """Doctor in an environment with stand-ins."""
    return Doctor(stub_environment.python, tmp_path)


@pytest.fixture(
    params=[
        pytest.param("stubbed", id="beside stand-ins"),
        pytest.param("real", id="beside the real ones", marks=pytest.mark.slow),
    ]
)
def doctor(request):
    """Doctor in both."""
    return request.getfixturevalue(request.param)


# A healthy installation


def facts(output):
    return [" ".join(line.split()) for line in output.splitlines()]


@pytest.mark.slow
def test_a_healthy_installation_is_described(installed):
    found = facts(installed())
    assert found[-1] == "healthy"
    assert f"yolov10-dysample {__version__} {ROOT / 'yolov10_dysample'}" in found
    assert f"torch {torch.__version__} {torch.__file__}" in found
    assert f"ultralytics {ultralytics.__version__} {ultralytics.__file__}" in found
    assert "registered yes, by itself" in found
    assert any(fact.startswith("autoload on, entry point found once: yolov10-dysample ") for fact in found)
    assert f"configs 6 in {ROOT / 'configs'}" in found
    assert any(fact.startswith("export ONNX: ") for fact in found)


def test_an_installed_wheel_is_described(stubbed, stub_environment):
    site = stub_environment.site
    assert facts(stubbed())[:7] == [
        f"yolov10-dysample {__version__} {site / 'yolov10_dysample'}",
        f"python {'.'.join(map(str, sys.version_info[:3]))} {stub_environment.python}",
        f"torch 2.99.0 {site / 'torch/__init__.py'}",
        f"ultralytics 8.99.0 {site / 'ultralytics/__init__.py'}",
        "registered yes, by itself",
        f"autoload on, entry point found once: yolov10-dysample {__version__} in {site}",
        f"configs 6 in {site / 'yolov10_dysample/configs'}",
    ]
    assert stubbed().endswith("export       RKNN: not installed\nhealthy\n")


# torch, Ultralytics and the environment

UNFIT = {**ULTRALYTICS, "ultralytics/__init__.py": "__version__ = '99.0'"}
TWICE = {
    "yolov10_dysample-0.0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: yolov10-dysample\nVersion: 0.0.1\n",
    "yolov10_dysample-0.0.1.dist-info/entry_points.txt": (
        "[torch.backends]\nyolov10_dysample = _yolov10_dysample_autoload:autoload\n"
    ),
}
FAILED = "Failed to load the backend extension: {}. You can disable extension auto-loading"
BROKEN = {
    "torch missing": (
        {"torch.py": "raise ModuleNotFoundError(\"No module named 'torch'\")"},
        [
            "torch cannot be imported: ModuleNotFoundError: No module named 'torch'",
            "ultralytics cannot be imported: it needs torch",
            "problem: torch cannot be imported: install it again (pip install --force-reinstall torch)",
        ],
    ),
    "torch broken": (
        {"torch.py": "raise ImportError('libcudart.so.13: cannot open\\nshared object file')"},
        ["torch cannot be imported: ImportError: libcudart.so.13: cannot open shared object file"],
    ),
    "torch crashes": (
        {"torch.py": "import os; os.abort()"},
        ["torch cannot be imported: a Python process that imports torch and Ultralytics does not end well"],
    ),
    "torch has another plugin that is broken": (
        {"torch.py": f"raise RuntimeError('{FAILED.format('torch_moon')}') from OSError('no moon')"},
        [
            "extension auto-loading (from OSError: no moon)",
            "problem: torch cannot be imported: it cannot load its plugin torch_moon: install that again",
        ],
    ),
    "ultralytics missing": (
        {"ultralytics.py": "raise ModuleNotFoundError(\"No module named 'ultralytics'\")"},
        [
            "ultralytics cannot be imported: ModuleNotFoundError: No module named 'ultralytics'",
            "problem: ultralytics cannot be imported: install it again (pip install --force-reinstall ultralytics)",
        ],
    ),
    "ultralytics does not fit": (
        {**UNFIT, "ultralytics/nn/tasks.py": "def parse_model(config): pass"},
        [
            "registered no",
            "problem: yolov10_dysample",
            "does not fit Ultralytics 99.0: ultralytics.nn.tasks has no",
        ],
    ),
    "another DySample": (
        {**ULTRALYTICS, "ultralytics/nn/modules.py": "class DySample: pass"},
        ["registered no", "ultralytics.nn.modules.DySample is already there, from ultralytics.nn.modules"],
    ),
    "installed twice": (
        TWICE,
        ["on, entry point found twice: ", "problem: installed more than once (yolov10-dysample 0.0.1 in "],
    ),
}
REAL = ("torch crashes", "installed twice")


@pytest.mark.parametrize(
    ("case", "where"),
    [(case, "stubbed") for case in BROKEN] + [pytest.param(case, "real", marks=pytest.mark.slow) for case in REAL],
)
def test_what_is_wrong_is_said_without_a_traceback_and_the_exit_status_is_1(case, where, request):
    files, expected = BROKEN[case]
    output = request.getfixturevalue(where)(files, ok=False)
    words = " ".join(output.split())
    for message in expected:
        assert message in words
    assert output.splitlines()[-1].startswith("not healthy: 1 problem")


@pytest.mark.parametrize(
    ("switch", "value", "where"),
    [
        ("YOLOV10_DYSAMPLE_AUTOLOAD", "0", "stubbed"),
        ("TORCH_DEVICE_BACKEND_AUTOLOAD", "0", "stubbed"),
        ("TORCH_DEVICE_BACKEND_AUTOLOAD", "off", "stubbed"),
        pytest.param("TORCH_DEVICE_BACKEND_AUTOLOAD", "", "real", marks=pytest.mark.slow),
    ],
)
def test_a_switch_that_turns_it_off_is_named(switch, value, where, request):
    output = request.getfixturevalue(where)(ok=False, **{switch: value})
    assert f"off: {switch}={value} in the environment" in output
    assert "not by itself, but `import yolov10_dysample` does it" in output
    assert f"problem: autoload is off: unset {switch}\n" in output


def test_another_ultralytics_in_the_folder_is_a_warning_and_is_not_imported(doctor, tmp_path):
    write_files(tmp_path / "here", {"ultralytics/__init__.py": "raise OSError('the wrong one')"})
    output = doctor(cwd=tmp_path / "here")
    assert f"warning: another ultralytics lies in {tmp_path / 'here'}; Python started there" in output
    assert "the wrong one" not in output
    assert output.endswith("healthy\n")


def test_a_folder_on_the_path_that_was_never_installed_is_named(tmp_path):
    shutil.copytree(ROOT / "yolov10_dysample", tmp_path / "clone/yolov10_dysample")
    shutil.copytree(ROOT / "configs", tmp_path / "clone/configs")
    with_stubs_only = StubEnvironment.build(tmp_path / "venv")
    output = Doctor(with_stubs_only.python, tmp_path)(ok=False, PYTHONPATH=str(tmp_path / "clone"))
    assert "not by itself, but `import yolov10_dysample` does it" in output
    assert "problem: the autoload entry point is not installed: pip install . in the clone, not only a folder" in output
    assert output.endswith("not healthy: 1 problem\n")


# Runtimes of exported models


def test_a_runtime_that_cannot_be_imported_is_not_called_installed(doctor):
    broken = {
        "onnx.py": "raise TypeError('Descriptors cannot be created\\ndirectly')",
        "onnx-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: onnx\nVersion: 1.2\n",
        "tensorrt.py": "import os; os.abort()",
        "tensorrt-3.4.dist-info/METADATA": "Metadata-Version: 2.1\nName: tensorrt\nVersion: 3.4\n",
        "coremltools.py": "print('import yolov10_dysample says hello')",
        "coremltools-5.6.dist-info/METADATA": "Metadata-Version: 2.1\nName: coremltools\nVersion: 5.6\n",
    }
    output = doctor(broken)
    reason = "installed, cannot be imported"
    assert f"ONNX: onnx 1.2 ({reason}: TypeError: Descriptors cannot be created directly)" in output
    assert f"TensorRT: tensorrt 3.4 ({reason}: a Python process that imports tensorrt does not end well (" in output
    assert "CoreML: coremltools 5.6\n" in output
    assert "warning: onnx cannot be imported: exports that need it fail until it is installed again\n" in output
    assert "warning: coremltools" not in output
    assert output.endswith("healthy\n")


def test_a_runtime_that_only_lacks_torch_gets_no_warning_of_its_own(stubbed):
    broken = {
        "torch.py": "raise OSError('no libtorch')",
        "pnnx.py": "import torch",
        "pnnx-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: pnnx\nVersion: 1.2\n",
    }
    output = stubbed(broken, ok=False)
    assert "pnnx 1.2 (installed, cannot be imported: OSError: no libtorch)" in output
    assert "warning" not in output
    assert output.endswith("not healthy: 1 problem\n")


def test_a_runtime_that_takes_too_long_does_not_hold_up_the_rest(stubbed, tmp_path):
    slow = {
        "openvino.py": "import time; time.sleep(60)",
        "openvino-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: openvino\nVersion: 1.2\n",
    }
    write_files(tmp_path / "first", slow)
    code = (
        "import sys; from yolov10_dysample.commands import doctor, main; doctor.RUNTIME_SECONDS = 0.5; "
        "sys.exit(main.main(['doctor']))"
    )
    output = run(stubbed.python, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "first")})
    assert "openvino 1.2 (installed, cannot be imported: a Python process that imports openvino takes more" in output
    assert output.endswith("healthy\n")


# Files of this package that are missing or empty


def damage(file: Path, how: str) -> None:
    if how == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().rpartition(b",sha256=")[0] if how == "cut short" else b"")


def installed_files(site: Path) -> dict[str, Path]:
    """The files that pip wrote and that have something in them, by their name in RECORD; not the byte code."""
    (record,) = site.glob("yolov10_dysample-*.dist-info/RECORD")
    names = [name for name, *_ in csv.reader(record.read_text().splitlines()) if not name.endswith(".pyc")]
    return {name: site / name for name in names if (site / name).stat().st_size}


#: Without these there is no doctor; what the command says instead.
NO_DOCTOR = {
    "yolov10_dysample/commands/doctor.py": "yolov10-dysample doctor: the installation is damaged (.*doctor.*): ",
    "yolov10_dysample/commands/installation.py": "yolov10-dysample doctor: the installation is damaged (.*install.*): ",
    "yolov10_dysample/commands/keys.py": "yolov10-dysample: the installation is damaged (.*keys.*): ",
}
#: Without this the script that pip wrote finds nothing to call. Python's own last line names it.
NO_COMMAND = {"yolov10_dysample/commands/main.py": r"(ModuleNotFound|Import)Error: .*yolov10_dysample\.commands\.main"}


def surprises(names: list[str], how: str, output: str, status: int) -> list[str]:
    """What doctor says and should not, or does not say and should, about damaged files."""
    (name, *others) = names
    if name in NO_COMMAND:
        return [] if re.search(NO_COMMAND[name], output.splitlines()[-1]) else [output]
    if "Traceback" in output:
        return [output]
    if name in NO_DOCTOR:
        fits = status and output.count("\n") == 1 and re.match(NO_DOCTOR[name], output)
        return [] if fits and REINSTALL in output else [output]
    pip = REINSTALL
    if name.endswith("/RECORD"):
        name = "RECORD"
        pip = pip.replace("--force-reinstall", "--ignore-installed") if how == "removed" else pip
    fault = "is missing" if how == "removed" else "is empty"
    expected = [
        f"problem: damaged: {', '.join(f'{one} {fault}' for one in (name, *others))}: {pip}",
        "not healthy: 1 problem",
    ]
    said = [line for line in output.splitlines() if re.match(r"problem|warning|not healthy|healthy", line)]
    return [] if said == expected and status == 1 else [output]


def damaged_together(files: Iterable[str]) -> Iterator[list[str]]:
    """The files to damage at once: as many as doctor lists, of those that it and Ultralytics only look at; else one."""
    looked_at = [name for name in files if name.startswith(("yolov10_dysample/study/", "yolov10_dysample/configs/"))]
    yield from ([name] for name in files if name not in looked_at)
    for first in range(0, len(looked_at), 5):
        yield looked_at[first : first + 5]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_it_names_the_file_that_is_missing_whichever_it_is_and_the_command_that_mends_it(
    how, stub_environment, tmp_path
):
    script = stub_environment.scripts / f"yolov10-dysample{stub_environment.python.suffix}"
    files = installed_files(stub_environment.site)
    assert len(files) > 30
    wrong = {}
    for names in damaged_together(files):
        before = {files[name]: (files[name].read_bytes(), files[name].stat().st_mode) for name in names}
        for file in before:
            damage(file, how)
        is_script = any(file.resolve() == script.resolve() for file in before)
        command = [stub_environment.python, "-m", "yolov10_dysample"] if is_script else [script]
        try:
            done = subprocess.run(
                [*command, "doctor"],
                cwd=tmp_path,
                env=clean_environ(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
        finally:
            for file, (content, mode) in before.items():
                file.write_bytes(content)
                file.chmod(mode)
        if found := surprises(names, how, done.stdout, done.returncode):
            wrong[", ".join(names)] = found
    assert wrong == {}


@pytest.fixture(scope="module")
def linked_environment(tmp_path_factory, wheel):
    """The wheel beside the real torch and Ultralytics, to break."""
    return without_runtimes(tmp_path_factory.mktemp("linked"), wheel)


DAMAGE = {
    "yolov10_dysample/registration.py": "registered   no",
    "yolov10_dysample/dysample.py": "registered   no",
    "yolov10_dysample/figures.py": "registered   yes, by itself",
    "_yolov10_dysample_autoload.py": "torch        cannot be imported: RuntimeError: Failed to load the backend exten",
}


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, "stub_environment") for name in DAMAGE]
    + [pytest.param("_yolov10_dysample_autoload.py", "linked_environment", marks=pytest.mark.slow)],
)
def test_it_says_what_else_a_missing_file_stops(name, where, request, tmp_path):
    environment = request.getfixturevalue(where)
    file = environment.site / name
    content = file.read_bytes()
    file.unlink()
    try:
        output = Doctor(environment.python, tmp_path)(ok=False)
    finally:
        file.write_bytes(content)
    assert DAMAGE[name] in output
    assert surprises([name], "removed", output[output.index("\nexport ") + 1 :], 1) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("RECORD", "removed"),
        ("RECORD", "emptied"),
        ("RECORD", "cut short"),
        ("METADATA", "removed"),
        ("entry_points.txt", "emptied"),
        ("../_yolov10_dysample_autoload.py", "removed"),
    ],
)
def test_the_command_that_it_names_mends_it(name, how, stub_environment, wheel, tmp_path):
    doctor = Doctor(stub_environment.python, tmp_path)
    (folder,) = stub_environment.site.glob("yolov10_dysample-*.dist-info")
    damage(folder / name, how)
    try:
        (command,) = re.findall(r"pip (install .*) \. in the clone \(or the wheel", doctor(ok=False))
        stub_environment.pip(*command.split(), "--no-index", wheel)
        assert doctor().endswith("\nhealthy\n")
    except BaseException:
        stub_environment.pip("install", "--ignore-installed", "--no-deps", "--no-index", wheel)
        raise


def test_a_list_of_files_that_is_cut_short_is_named(stubbed, stub_environment):
    (record,) = stub_environment.site.glob("yolov10_dysample-*.dist-info/RECORD")
    content = record.read_bytes()
    damage(record, "cut short")
    try:
        output = stubbed(ok=False)
    finally:
        record.write_bytes(content)
    assert f"problem: damaged: RECORD is cut off: {REINSTALL}\n" in output
    assert output.endswith("not healthy: 1 problem\n")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"\xff\xfe.py,sha256=abc,1\n", "damaged: RECORD cannot be read"),
        (b"a\x00b.py,sha256=abc,1\n", "damaged: "),
    ],
    ids=["not UTF-8", "NUL"],
)
def test_a_list_of_files_that_is_no_text_is_named(row, said, stubbed, stub_environment):
    (record,) = stub_environment.site.glob("yolov10_dysample-*.dist-info/RECORD")
    content = record.read_bytes()
    record.write_bytes(content + row)
    try:
        output = stubbed(ok=False)
    finally:
        record.write_bytes(content)
    assert f"problem: {said}" in output
    assert "Traceback" not in output
    assert output.endswith("not healthy: 1 problem\n")


@pytest.mark.parametrize(
    ("switch", "effect"),
    [
        ("SAMPLING", f"must be one of {', '.join(SAMPLINGS)}, got 'off': exports are refused"),
        ("AUTOLOAD", "must be one of 0, 1, got 'off': it switches nothing off"),
        ("PLOTS", "must be one of 0, 1, got 'off': it switches nothing off"),
    ],
)
def test_a_switch_that_is_set_to_what_it_does_not_know_is_a_warning(switch, effect, stubbed):
    output = stubbed(**{f"YOLOV10_DYSAMPLE_{switch}": "off"})
    assert f"\nwarning: YOLOV10_DYSAMPLE_{switch} {effect}\n" in output
    assert "\nhealthy" in output


def test_a_file_that_somebody_changed_is_a_warning(stubbed, stub_environment):
    file = stub_environment.site / "yolov10_dysample/figures.py"
    content = file.read_bytes()
    file.write_bytes(content + b"# mine\n")
    try:
        output = stubbed()
    finally:
        file.write_bytes(content)
    assert (
        f"warning: yolov10_dysample/figures.py was changed after it was installed; this undoes it: {REINSTALL}"
        in output
    )
    assert output.endswith("\nhealthy\n")


# An editable install: pip wrote down next to nothing about it


CHECKOUT_DAMAGE = {
    "yolov10_dysample/registration.py": "yolov10_dysample: DySample is not available in this process (ImportError: ",
    "yolov10_dysample/dysample.py": "yolov10_dysample: DySample is not available in this process (ModuleNotFoundErr",
    "yolov10_dysample/__init__.py": "`import yolov10_dysample` does not work (AttributeError: ",
    "yolov10_dysample/version.py": "yolov10_dysample: DySample is not available in this process (ModuleNotFoundErr",
    "yolov10_dysample/errors.py": "yolov10_dysample: DySample is not available in this process (ModuleNotFoundErr",
    "yolov10_dysample/model_files.py": "yolov10_dysample: DySample is not available in this process (ModuleNotFoundErr",
    "yolov10_dysample/commands/probe.py": "damaged: ",
    "configs": "the shipped model YAMLs are missing: " + REINSTALL,
    "yolov10_dysample/commands/plot.py": None,
}


@pytest.mark.parametrize("name", CHECKOUT_DAMAGE)
def test_a_damaged_checkout_gets_the_reason_that_python_has(name, stub_checkout, tmp_path):
    checkout, environment = stub_checkout
    (checkout / name).rename(tmp_path / "away")
    try:
        output = Doctor(environment.python, tmp_path)(ok=CHECKOUT_DAMAGE[name] is None)
    finally:
        (tmp_path / "away").rename(checkout / name)
    problems = [line for line in output.splitlines() if line.startswith("problem: ")]
    assert len(problems) == (CHECKOUT_DAMAGE[name] is not None)
    assert all(line.startswith(f"problem: {CHECKOUT_DAMAGE[name]}") for line in problems)


def test_a_start_up_file_that_is_older_than_the_checkout_is_a_warning(stub_checkout, tmp_path):
    checkout, environment = stub_checkout
    file = checkout / "yolov10_dysample/autoload.py"
    content = file.read_bytes()
    file.write_bytes(content + b"# pulled\n")
    try:
        output = Doctor(environment.python, tmp_path)()
    finally:
        file.write_bytes(content)
    line = "warning: _yolov10_dysample_autoload.py is not the checkout's, which has changed since; this undoes it: "
    assert line + REINSTALL in output
    assert output.endswith("\nhealthy\n")
    assert "warning" not in Doctor(environment.python, tmp_path)()
