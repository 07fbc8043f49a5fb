"""YOLOv10 with DySample upsampling, as a plugin of Ultralytics.

Importing this package makes DySample known to Ultralytics: at once if Ultralytics' model parser is already loaded,
else as soon as it is. It must stay cheap: neither torch nor Ultralytics is imported until a name below needs it.
"""

import contextlib
import importlib
import sys

with contextlib.suppress(ImportError):  # the command `doctor` runs without it, and says that it is missing
    from yolov10_dysample.version import __version__

_HOMES = {
    "DySample": "dysample",
    "convert_rows": "convert",
    "convert_yaml": "convert",
    "register": "registration",
    "use_dysample": "swap",
}
# The function dysample() is imported from the module of its name, which hides it here.
__all__ = ["DySample", "__version__", "convert_rows", "convert_yaml", "register", "use_dysample"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _watch() -> None:
    # An install puts autoload.py beside the package; a checkout on sys.path that was never installed has it inside.
    for module in ("_yolov10_dysample_autoload", f"{__name__}.autoload"):
        with contextlib.suppress(Exception):  # missing, empty or cut off
            importlib.import_module(module).watch()
            return
    print(  # and no more: the command `doctor` comes this way, too
        "yolov10_dysample: the start-up file _yolov10_dysample_autoload.py is missing or damaged, so that DySample is "
        "not registered; `yolov10-dysample doctor` says what to do",
        file=sys.stderr,
    )


_watch()
