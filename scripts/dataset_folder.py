"""The folder of a data set that a script makes in Ultralytics YOLO format, with the record of the arguments it was made
with. It must never leave a folder half-written, and never delete or change a folder or a file that the script did not
write.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

DATA = "data.yaml"


@dataclass(frozen=True)
class Dataset:
    """A data set on disk. ``made`` is False when the folder was there already, made with the same arguments."""

    root: Path
    name: str
    made: bool

    @property
    def data(self) -> Path:
        """The file to give to Ultralytics as ``data=``."""
        return self.root / DATA

    def manifest(self) -> list[dict[str, str]]:
        """Rows of its CSV file, one a box."""
        with (self.root / f"{self.name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def headline(self) -> str:
        """Where it is, and whether it was made now."""
        return f"{'made' if self.made else 'already there, made with the same arguments; nothing to do:'} {self.root}"


@dataclass(frozen=True)
class Maker:
    """A script that makes data sets.

    Attributes:
        name (str): The data set's name, and that of its record (JSON) and of its list of boxes (CSV).
        script (str): The script's name.
        version (int): Goes up when the same arguments give other images, or an old folder would pass for a new one.
        files (Callable): The files of a data set, by its record.
    """

    name: str
    script: str
    version: int
    files: Callable[[dict[str, Any]], Sequence[str]]

    def make(
        self,
        out: str | Path,
        arguments: dict[str, str | int],
        write: Callable[[Path, Path], dict[str, Any]],
        force: bool,
    ) -> Dataset:
        """Make a data set, or find it already made with the same arguments.

        Args:
            out (str | Path): Its folder; must not exist, or be one that this script wrote.
            arguments (dict): All that decides its bytes.
            write (Callable): Writes everything but the record to its first argument, an empty folder, from where it is
                moved to its second; returns what the record has to say beside the arguments.
            force (bool): Replace a data set that this script made before.

        Raises:
            FileExistsError: If ``out`` is not the script's, or was made with other arguments and ``force`` is False.
        """
        root = Path(out).expanduser().resolve()
        files: Sequence[str] = ()
        wanted: dict[str, Any] = {"made_by": f"{self.script} {self.version}", **arguments}
        if root.exists():
            record, files = self._read_record(root)
            if not force:
                _require_same(root, record, wanted)
                _require_complete(root, files)
                _correct_path(root / DATA)
                return Dataset(root, self.name, made=False)
            self._require_replaceable(root, files)
        root.parent.mkdir(parents=True, exist_ok=True)
        # The temporary folder is private to its maker (mode 0700), so what is moved out of it is a folder inside.
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as work:
            new = Path(work, "new")
            new.mkdir()
            text = json.dumps({**wanted, **write(new, root)}, indent=1)
            (new / f"{self.name}.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")
            if root.exists():
                self._require_replaceable(root, files)  # once more: it may have taken minutes
            _move_in(new, Path(work, "old"), root)
        return Dataset(root, self.name, made=True)

    def _read_record(self, root: Path) -> tuple[dict[str, Any], Sequence[str]]:
        """What the script recorded in a folder that exists, and the files it wrote there."""
        try:
            record = json.loads((root / f"{self.name}.json").read_text(encoding="utf-8"))
            if str(record["made_by"]).startswith(f"{self.script} "):
                return record, [str(name) for name in self.files(record)]
        except (OSError, ValueError, TypeError, LookupError):
            pass
        raise FileExistsError(
            f"out must be new or a folder that {self.script} wrote, got {root}, which is neither; write another out"
        )

    def _require_replaceable(self, root: Path, files: Sequence[str]) -> None:
        """Raise FileExistsError when a folder holds files that a rebuild would lose: not the script's, no cache."""
        folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
        present = {
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if not path.is_dir() or path.is_symlink() or not any(path.iterdir())
        }
        # Ultralytics leaves the first beside images, with cache=disk, and the second beside folders of labels.
        caches = {f"{name[:-4]}.npy" for name in files if name.endswith(".png")}
        caches |= {f"{name.rpartition('/')[0]}.cache" for name in files if name.startswith("labels/")}
        foreign = sorted(present - set(files) - caches - folders)
        if foreign:
            raise FileExistsError(
                f"force replaces only files that {self.script} wrote, {root} also holds {len(foreign)} other "
                f"({foreign[0]}); move them elsewhere or write another out"
            )


def require_whole_number(name: str, value: object, least: int) -> None:
    """Raise ValueError when an argument is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}; write {name}={least} or more"
        )


def encode_png(image: np.ndarray) -> bytes:
    """PNG of an RGB image. ``cv2.imwrite`` is not used: on Windows it cannot open a path that is not ASCII."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def data_yaml(script: str, root: Path, splits: Sequence[str], names: Sequence[str]) -> str:
    """Text of data.yaml for a data set that will live in ``root``."""
    lines = [
        f"# Written by scripts/{script}.py; after a move of the folder, run the script again to correct the path.",
        _path_line(root),
        *(f"{split}: images/{split}" for split in splits),
        f"nc: {len(names)}",
        "names:",
        *(f"  {label}: {json.dumps(name)}" for label, name in enumerate(names)),
    ]
    return "".join(f"{line}\n" for line in lines)


def _path_line(root: Path) -> str:
    """The ``path`` of data.yaml, as JSON, which YAML reads whatever the folder is called.

    It is absolute, since Ultralytics looks for a relative one in its own ``datasets_dir``, and older versions do the
    same with the folder of the YAML when ``path`` is left out.
    """
    return f"path: {json.dumps(root.as_posix(), ensure_ascii=False)}"


def _correct_path(data: Path) -> None:
    """Point data.yaml at its own folder again after the folder was moved; all else in it is left as it is."""
    old = data.read_text(encoding="utf-8")
    new = re.sub(r"^path:.*$", lambda _: _path_line(data.parent), old, count=1, flags=re.MULTILINE)
    if new != old:
        data.write_text(new, encoding="utf-8", newline="\n")


def _require_same(root: Path, record: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise FileExistsError when a data set was made with other arguments."""
    changed = [f"{key}={record.get(key)!r} (now {wanted[key]!r})" for key in wanted if record.get(key) != wanted[key]]
    if changed:
        raise FileExistsError(
            f"an existing data set is kept unless forced, {root} was made with {', '.join(changed)}; "
            "add force=True (--force) or write another out"
        )


def _require_complete(root: Path, files: Sequence[str]) -> None:
    """Raise FileExistsError when files of the data set have gone missing since it was made."""
    missing = [name for name in files if not (root / name).is_file()]
    if missing:
        raise FileExistsError(
            f"a data set must hold all its files, {root} lacks {len(missing)} of {len(files)} ({missing[0]}); "
            "add force=True (--force) to make it again"
        )


def _move_in(new: Path, old: Path, root: Path) -> None:
    """Put the finished folder ``new`` at ``root``; what was there goes to ``old``, and back if that fails."""
    replaced = root.exists()
    if replaced:
        root.rename(old)
    try:
        new.rename(root)
    except OSError:
        if replaced:
            old.rename(root)
        raise
