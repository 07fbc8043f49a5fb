"""The autoload: there when Ultralytics is, absent from everything else, and unable to break `import torch`."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, Environment, StubEnvironment, run

BUILD = "from ultralytics import YOLO; YOLO('yolov10n-dysample.yaml'); print('built')"
STOCK = "import torch; from ultralytics import YOLO; YOLO('yolov10n.yaml'); print('built')"
OFF = {"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
TORCH_OFF = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def test_importing_torch_imports_neither_ultralytics_nor_the_operator(python, tmp_path):
    # importtime does not list what an entry point imports, so the loaded modules are asked too.
    check = "import torch, sys; print(sorted(m for m in sys.modules if 'ultralytics' in m or 'dysample' in m))"
    output = run(python, "-X", "importtime", "-c", check, cwd=tmp_path)
    assert output.splitlines()[-1] == "['_yolov10_dysample_autoload']"
    assert "ultralytics" not in output


def test_importing_the_package_imports_neither_torch_nor_ultralytics(python, tmp_path):
    check = "import yolov10_dysample, sys; print({'torch', 'ultralytics', 'yaml'} & set(sys.modules))"
    assert run(python, "-c", check, cwd=tmp_path).strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "env"),
    [
        (BUILD, {}),
        (f"import ultralytics; {BUILD}", {}),
        (f"import ultralytics.nn.tasks; import yolov10_dysample; {BUILD}", OFF),
        (f"import yolov10_dysample; {BUILD}", OFF),
        (f"import yolov10_dysample; {BUILD}", TORCH_OFF),
        (f"import ultralytics.engine.model; import yolov10_dysample; {BUILD}", TORCH_OFF),
        (f"import yolov10_dysample; yolov10_dysample.register(); {BUILD}", OFF),
        (f"import ultralytics.engine.model as m; import yolov10_dysample as y; y.register(); {BUILD}", OFF),
        (f"import yolov10_dysample.dysample; {BUILD}", OFF),
        (f"import ultralytics.nn.tasks as t, importlib; importlib.reload(t); {BUILD}", {}),
    ],
    ids=[
        "no import",
        "ultralytics first",
        "import after the host",
        "import before the host",
        "import with torch's own switch off",
        "import after the host with torch's own switch off",
        "register before the host",
        "register after the host",
        "import of the operator, as unpickling does",
        "a host that is loaded again",
    ],
)
def test_it_registers_with(code, env, python, tmp_path):
    assert run(python, "-c", code, cwd=tmp_path, env=env).endswith("built\n")


@pytest.mark.slow
@pytest.mark.parametrize("env", [OFF, TORCH_OFF], ids=["our switch", "torch's switch"])
def test_switched_off_nothing_is_registered(env, python, tmp_path):
    assert "FileNotFoundError: 'yolov10-dysample.yaml' does not exist" in run(
        python, "-c", BUILD, cwd=tmp_path, env=env, ok=False
    )


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


@pytest.fixture
def editable(tmp_path: Path, light_environment: Environment):
    """A checkout of its own, installed in editable form."""
    checkout = tmp_path / "checkout"
    for part in ("yolov10_dysample", "configs", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (checkout).mkdir(exist_ok=True)
        copy(ROOT / part, checkout / part)
    light_environment.pip("install", "--no-deps", "--no-build-isolation", "--editable", checkout)
    yield checkout
    light_environment.pip("uninstall", "--yes", "yolov10-dysample")


@pytest.fixture(scope="module")
def light_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment to break."""
    return Environment.build(tmp_path_factory.mktemp("broken") / "venv")


@pytest.mark.slow
def test_an_editable_install_works(editable, light_environment, tmp_path):
    assert run(light_environment.python, "-c", BUILD, cwd=tmp_path).endswith("built\n")


@pytest.mark.slow
@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_torch_and_stock_models_survive(breakage, kind, request, light_environment, tmp_path):
    if kind == "editable":
        package = request.getfixturevalue("editable") / "yolov10_dysample"
    else:
        wheel = request.getfixturevalue("wheel")
        light_environment.pip("install", "--no-deps", "--no-index", "--force-reinstall", wheel)
        package = light_environment.site / "yolov10_dysample"
    breakage(package)
    output = run(light_environment.python, "-W", "error::ImportWarning", "-c", STOCK, cwd=tmp_path)
    assert output.endswith("built\n")
    assert output.count("yolov10_dysample: DySample is not available in this process") == 1
    assert "Traceback" not in output


@pytest.mark.slow
def test_torch_survives_a_deleted_editable_checkout(editable, light_environment, tmp_path):
    shutil.rmtree(editable)
    output = run(light_environment.python, "-c", STOCK, cwd=tmp_path)
    assert output.endswith("built\n")
    assert "No module named 'yolov10_dysample'" in output


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


@pytest.mark.slow
def test_uninstalling_leaves_nothing_behind(light_environment, wheel):
    light_environment.pip("uninstall", "--yes", "yolov10-dysample")
    before = light_environment.files()
    light_environment.pip("install", "--no-deps", "--no-index", wheel)
    run(light_environment.python, "-c", BUILD, cwd=light_environment.path)
    assert light_environment.files() > before
    light_environment.pip("uninstall", "--yes", "yolov10-dysample")
    assert light_environment.files() == before
    assert not list(light_environment.site.glob("*yolov10_dysample*"))
