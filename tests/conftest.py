"""What several test files share: the embedded data set, and environments of their own for what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A home for this session alone, set before any test imports anything: the user's settings are neither used nor changed,
# and what runtimes and launchers leave in a home or among temporary files goes when the session ends. Caches stay.
HOME = tempfile.TemporaryDirectory(prefix="dysample-", ignore_cleanup_errors=True)
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
os.environ |= dict.fromkeys(("HOME", "TMPDIR", "YOLO_CONFIG_DIR", "TORCHINDUCTOR_CACHE_DIR"), HOME.name)


def pytest_unconfigure() -> None:
    """Leave nothing behind, also where a worker process ends without Python's own end."""
    HOME.cleanup()


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
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data.yaml of a small embedded data set: 24 + 8 images of 64 px."""
    out = tmp_path_factory.mktemp("data") / "digits"
    sizes = ("--train", "24", "--val", "8", "--imgsz", "64")
    run(sys.executable, ROOT / "scripts/make_digits.py", "--out", out, *sizes, cwd=out.parent)
    return out / "data.yaml"


class Environment:
    """A virtual environment that shares this one's packages as hard links, but for yolov10_dysample."""

    def __init__(self, path: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", path, cwd=path.parent)
        self.path = path
        self.python = path / "bin" / "python"
        self.site = Path(run(self.python, "-c", "import site; print(site.getsitepackages()[0])", cwd=path).strip())
        shutil.copytree(
            sysconfig.get_path("purelib"),
            self.site,
            copy_function=_link,
            ignore=shutil.ignore_patterns("*yolov10_dysample*", "__pycache__"),
            dirs_exist_ok=True,
        )
        yolo = Path(sysconfig.get_path("scripts")) / "yolo"
        self.yolo = path / "bin" / "yolo"
        self.yolo.write_text(yolo.read_text().replace(str(yolo.parent), str(self.yolo.parent)))
        self.yolo.chmod(0o755)

    def pip(self, *arguments: str | Path) -> str:
        """Run pip for this environment only."""
        return run(self.python, "-m", "pip", *arguments, cwd=self.path)

    def files(self) -> set[str]:
        """Every installed file, but for byte code, which Python writes when it likes."""
        return {str(f.relative_to(self.path)) for f in self.path.rglob("*") if f.suffix != ".pyc" and f.is_file()}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """An environment with the wheel installed and no sight of the checkout."""
    environment = Environment(tmp_path_factory.mktemp("wheel") / "venv")
    environment.pip("install", "--no-deps", "--no-index", wheel)
    return environment
