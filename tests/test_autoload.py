"""The autoload: there when Ultralytics is, absent from everything else, and unable to break `import torch`.

Most cases run beside stand-ins for torch and Ultralytics (`tests/stubs.py`); each promise has a real case, too.
"""

import shutil

import pytest

from tests.conftest import ROOT, Environment, StubEnvironment, copy_checkout, run
from tests.stubs import PARSER, ULTRALYTICS, write_files

BUILD = "from ultralytics import YOLO; YOLO('yolov10n-dysample.yaml'); print('built')"
STOCK = "import torch; from ultralytics import YOLO; YOLO('yolov10n.yaml'); print('built')"
OFF = {"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
TORCH_OFF = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


@pytest.mark.slow
def test_importing_torch_imports_neither_ultralytics_nor_the_operator(python, tmp_path):
    # importtime does not list what an entry point imports, so the loaded modules are asked too.
    check = "import torch, sys; print(sorted(m for m in sys.modules if 'ultralytics' in m or 'dysample' in m))"
    output = run(python, "-X", "importtime", "-c", check, cwd=tmp_path)
    assert output.splitlines()[-1] == "['_yolov10_dysample_autoload']"
    assert "ultralytics" not in output


def test_importing_the_package_imports_neither_torch_nor_ultralytics(python, tmp_path):
    check = "import yolov10_dysample, sys; print({'torch', 'ultralytics', 'yaml'} & set(sys.modules))"
    assert run(python, "-c", check, cwd=tmp_path).strip() == "set()"


#: Prints where the parser's DySample is from, and whether a module that imported from the parser sees the wrapped one.
LOOK = (
    "import ultralytics.nn.tasks as tasks, ultralytics.engine.model as model; "
    "print(tasks.DySample.__module__, model.yaml_model_load is tasks.yaml_model_load)"
)
WAYS = {
    "no import": ("", {}),
    "ultralytics first": ("import ultralytics", {}),
    "import after the host": ("import ultralytics.nn.tasks; import yolov10_dysample", OFF),
    "import before the host": ("import yolov10_dysample", OFF),
    "import with torch's own switch off": ("import yolov10_dysample", TORCH_OFF),
    "import after the host with torch's own switch off": (
        "import ultralytics.engine.model; import yolov10_dysample",
        TORCH_OFF,
    ),
    "register before the host": ("import yolov10_dysample; yolov10_dysample.register()", OFF),
    "register after the host": (
        "import ultralytics.engine.model as m; import yolov10_dysample as y; y.register()",
        OFF,
    ),
    "import of the operator, as unpickling does": ("import yolov10_dysample.dysample", OFF),
    "a finder in front that is older than find_spec()": (
        "import sys; sys.meta_path.insert(0, type('Old', (), {'find_module': lambda *asked: None})())",
        {},
    ),
    "a host that is loaded again": ("import ultralytics.nn.tasks as t, importlib; importlib.reload(t)", {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_registers_with(way, stub_environment, tmp_path):
    code, env = WAYS[way]
    assert run(stub_environment.python, "-c", f"{code}\n{LOOK}", cwd=tmp_path, env=env) == (
        "yolov10_dysample.dysample True\n"
    )


# A second thread does this while the first one is loading the host, which takes a while.
MEANWHILE = {
    "register": ("import yolov10_dysample.registration", "yolov10_dysample.register()", {}),
    "import the package": ("import torch", "import yolov10_dysample", OFF),
}
WHILE_LOADING = """
import faulthandler, importlib, sys, threading, time
faulthandler.dump_traceback_later(60, exit=True)
{before}
first = threading.Thread(target=importlib.import_module, args=("ultralytics.nn.tasks",))
first.start()
while "ultralytics.nn.tasks" not in sys.modules:
    time.sleep(0.001)
{meanwhile}
first.join()
import ultralytics.nn.tasks as tasks
while not hasattr(tasks, "DySample"):
    time.sleep(0.001)
print("registered")
"""


@pytest.mark.parametrize("what", MEANWHILE)
def test_while_another_thread_loads_the_host_one_may(what, stub_environment, tmp_path):
    slow = f"import time, torch\ntime.sleep(0.5)\n{PARSER}"
    write_files(tmp_path / "slow", {**ULTRALYTICS, "ultralytics/nn/tasks.py": slow})
    before, meanwhile, env = MEANWHILE[what]
    code = WHILE_LOADING.format(before=before, meanwhile=meanwhile)
    env = {**env, "PYTHONPATH": str(tmp_path / "slow")}
    assert run(stub_environment.python, "-c", code, cwd=tmp_path, env=env) == "registered\n"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["import after the host with torch's own switch off", "a host that is loaded again"])
def test_beside_the_real_host_it_registers_with(way, python, tmp_path):
    code, env = WAYS[way]
    assert run(python, "-c", f"{code}\n{BUILD}", cwd=tmp_path, env=env).endswith("built\n")


def test_switched_off_nothing_is_registered(stub_environment, tmp_path):
    look = "import ultralytics.nn.tasks as tasks; print(hasattr(tasks, 'DySample'), tasks.parse_model.__module__)"
    assert run(stub_environment.python, "-c", look, cwd=tmp_path) == "True ultralytics.nn.tasks\n"
    for env in (OFF, TORCH_OFF):
        assert run(stub_environment.python, "-c", look, cwd=tmp_path, env=env).startswith("False ")


@pytest.mark.slow
def test_switched_off_the_real_host_does_not_know_the_models(python, tmp_path):
    output = run(python, "-c", BUILD, cwd=tmp_path, env=TORCH_OFF, ok=False)
    assert "FileNotFoundError: 'yolov10-dysample.yaml' does not exist" in output


@pytest.mark.slow
def test_the_name_of_the_loaded_host_is_still_its_own(python, tmp_path):
    check = (
        "import inspect, ultralytics.nn.tasks as t; print(type(t.__loader__).__name__, vars(t.__loader__).keys(), "
        "t.__spec__.loader is t.__loader__, 'def parse_model' in inspect.getsource(t))"
    )
    output = run(python, "-c", check, cwd=tmp_path)
    assert output.strip() == "SourceFileLoader dict_keys(['name', 'path']) True True"


BREAKAGES = {
    "no operator": lambda package: (package / "dysample.py").unlink(),
    "no registration": lambda package: (package / "registration.py").unlink(),
    "no package": shutil.rmtree,
    "a syntax error": lambda package: (package / "registration.py").write_text("def"),
    "an exception": lambda package: (package / "registration.py").write_text("raise OSError('broken')"),
}


STUB_STOCK = (
    "import torch, ultralytics.nn.tasks as tasks; tasks.yaml_model_load('x'); print(hasattr(tasks, 'DySample'))"
)


def survives(output: str, last_line: str) -> None:
    """See that a process has said once what is wrong, and has done what it was asked."""
    assert output.endswith(f"{last_line}\n")
    assert output.count("yolov10_dysample: DySample is not available in this process") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_torch_and_stock_models_survive(breakage, kind, stub_environment, stub_checkout, tmp_path):
    if kind == "editable":
        checkout, environment = stub_checkout
        package = checkout / "yolov10_dysample"
    else:
        environment = stub_environment
        package = environment.site / "yolov10_dysample"
    shutil.copytree(package, tmp_path / "whole")
    try:
        breakage(package)
        survives(run(environment.python, "-W", "error::ImportWarning", "-c", STUB_STOCK, cwd=tmp_path), "False")
    finally:
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", package)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_the_real_torch_and_stock_models_survive(kind, wheel, tmp_path):
    environment = Environment.build(tmp_path / "venv")
    if kind == "editable":
        checkout = copy_checkout(tmp_path)
        environment.pip("install", "--no-deps", "--no-build-isolation", "--editable", checkout)
        assert run(environment.python, "-c", BUILD, cwd=tmp_path).endswith("built\n"), "it works as long as it is whole"
        shutil.rmtree(checkout)
    else:
        environment.pip("install", "--no-deps", "--no-index", wheel)
        (environment.site / "yolov10_dysample/registration.py").write_text("raise OSError('broken')")
    output = run(environment.python, "-W", "error::ImportWarning", "-c", STOCK, cwd=tmp_path)
    survives(output, "built")
    assert {"editable": "No module named 'yolov10_dysample'", "wheel": "OSError: broken"}[kind] in output


@pytest.fixture(params=["removed", "emptied"])
def without_start_up_file(request, stub_environment):
    """An environment where the one file that torch loads is damaged."""
    file = stub_environment.site / "_yolov10_dysample_autoload.py"
    content = file.read_bytes()
    file.unlink() if request.param == "removed" else file.write_bytes(b"")
    yield stub_environment
    file.write_bytes(content)


def test_without_its_start_up_file_torch_stops_as_the_docs_say(without_start_up_file, tmp_path):
    failure = "Failed to load the backend extension: yolov10_dysample"
    assert f"RuntimeError: {failure}" in run(without_start_up_file.python, "-c", STOCK, cwd=tmp_path, ok=False)
    assert f"`{failure}`" in (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")


def test_without_its_start_up_file_the_package_can_be_imported_and_says_what_to_do(without_start_up_file, tmp_path):
    check = "import yolov10_dysample; print(yolov10_dysample.register())"
    *said, registered = run(without_start_up_file.python, "-c", check, cwd=tmp_path, env=TORCH_OFF).splitlines()
    assert registered == "True"
    (line,) = said
    assert line.startswith("yolov10_dysample: the start-up file _yolov10_dysample_autoload.py is missing or damaged")
    assert line.endswith("`yolov10-dysample doctor` says what to do")


def test_a_checkout_on_the_path_that_was_never_installed_registers_when_it_is_imported(tmp_path):
    only_stubs = StubEnvironment.build(tmp_path / "venv")
    check = "import yolov10_dysample, ultralytics.nn.tasks as tasks; print(tasks.DySample.__module__)"
    output = run(only_stubs.python, "-c", check, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert output == "yolov10_dysample.dysample\n"


def test_uninstalling_leaves_nothing_behind(wheel, tmp_path):
    environment = StubEnvironment.build(tmp_path / "venv")
    before = environment.files()
    environment.pip("install", "--no-deps", "--no-index", wheel)
    run(environment.python, "-c", LOOK, cwd=tmp_path)
    assert environment.files() > before
    environment.pip("uninstall", "--yes", "yolov10-dysample")
    assert environment.files() == before
    assert not list(environment.site.glob("*yolov10_dysample*"))
