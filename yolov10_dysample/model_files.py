"""Where model YAMLs are found: those this package ships, and those of the installed Ultralytics.

It knows the standard library only: commands ask it where torch or Ultralytics may be broken.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

__all__ = ["SUFFIX", "config_dir", "find_config", "find_lower_case", "find_stock", "means_dysample"]

#: What the name of a stock model gets at its end to mean that model with DySample.
SUFFIX = "-dysample"


def means_dysample(name: str | Path) -> bool:
    """Whether the name of a model YAML asks for DySample: it has :data:`SUFFIX` at its end, also in capitals.

    Example:
        >>> means_dysample("runs/yolov10n-DySample.yaml"), means_dysample("yolov10n.yaml")
        (True, False)
    """
    return Path(name).stem.lower().endswith(SUFFIX)


def find_config(name: str | Path) -> Path | None:
    """The shipped model YAML of that bare file name, or None.

    Example:
        >>> find_config("yolov10n-dysample.yaml").name
        'yolov10n-dysample.yaml'
        >>> find_config("elsewhere/yolov10n-dysample.yaml")
    """
    file = config_dir() / Path(name).name
    return file if str(name) == file.name and file.is_file() else None


def config_dir() -> Path:
    """The folder of the shipped model YAMLs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def find_stock(name: str | Path) -> Path | None:
    """The model YAML of the installed Ultralytics that a bare name means, or None. Ultralytics is not imported.

    Example:
        >>> find_stock("yolo11s-seg.yaml").name  # one file for all sizes
        'yolo11-seg.yaml'
        >>> find_stock("elsewhere/yolo11s-seg.yaml")
    """
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None or Path(name).name != str(name):
        return None
    stock = {file.name: file for file in Path(spec.origin).parent.glob("cfg/models/**/*.yaml")}
    without_size = re.sub(r"(\d)[nslmx](?=[-.])", r"\1", str(name))
    return stock.get(str(name)) or stock.get(without_size)


def find_lower_case(name: str | Path) -> str | None:
    """The bare name of a DySample model in small letters, if it is a model in that form only, or None.

    Example:
        >>> find_lower_case("YOLO11n-DySample.yaml"), find_lower_case("yolo11n-dysample.yaml")
        ('yolo11n-dysample.yaml', None)
    """
    lower = str(name).lower()
    if lower == str(name):
        return None
    return lower if find_config(lower) or find_stock(lower.replace(f"{SUFFIX}.", ".")) else None
