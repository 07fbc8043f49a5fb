"""YOLOv10 with DySample upsampling, as a plugin of Ultralytics.

Importing this package makes DySample known to Ultralytics: at once if Ultralytics' model parser is already loaded,
else as soon as it is. It must stay cheap: neither torch nor Ultralytics is imported until a name below needs it.
"""

import importlib

from yolov10_dysample.version import __version__

try:
    import _yolov10_dysample_autoload as _autoload  # where an install puts autoload.py; see there
except ModuleNotFoundError:  # a checkout on sys.path that was never installed
    from yolov10_dysample import autoload as _autoload

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


_autoload.watch()
