"""What a fresh Python process, the way ``yolo`` is one, makes of torch, Ultralytics and this package.

``doctor`` runs the text of this file with ``python -c``, since any other part of the package may be missing. It must
know the standard library only, and end with one line of JSON: what was found, and why the rest was not. With names
behind it, it only tries to import these.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any


def main(names: list[str]) -> None:
    """Take every step, whatever the ones before came to, and print the results."""
    sys.path[:] = [entry for entry in sys.path if entry]  # the `yolo` script does not look into the current folder
    found, errors = {}, {}
    for name, step in ({name: functools.partial(load, name) for name in names} or STEPS).items():
        try:
            found[name] = step()
        except BaseException as error:  # an import may also end in SystemExit
            cause = f" (from {_described(error.__cause__)})" if error.__cause__ else ""
            errors[name] = _described(error) + cause
    print()
    print(json.dumps({"found": found, "errors": errors}))


def load(name: str) -> list[str]:
    """Version and file of an imported module."""
    module = importlib.import_module(name)
    return [str(getattr(module, "__version__", "of unknown version")), getattr(module, "__file__", None) or "no file"]


def registered_by_autoload() -> str | None:
    """The module of the DySample that Ultralytics' parser knows, without this package having been imported here."""
    tasks = importlib.import_module("ultralytics.nn.tasks")
    return getattr(getattr(tasks, "DySample", None), "__module__", None)


def registered_on_request() -> bool:
    """Whether this package can register DySample when it is asked to."""
    return importlib.import_module("yolov10_dysample").register()


def configs() -> list[Any]:
    """The folder of the shipped model YAMLs, and how many there are."""
    folder = importlib.import_module("yolov10_dysample.model_files").config_dir()
    return [str(folder), len(list(folder.glob("*-dysample.yaml")))]


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


#: In this order: Ultralytics comes before this package, as in `yolo`.
STEPS: dict[str, Callable[[], Any]] = {
    "torch": functools.partial(load, "torch"),
    "ultralytics": functools.partial(load, "ultralytics"),
    "registered_by_autoload": registered_by_autoload,
    "registered_on_request": registered_on_request,
    "configs": configs,
}

if __name__ == "__main__":
    main(sys.argv[1:])
