"""The folder of a comparison: what it is about, its runs, and what is known of them.

All of it is in ``records.jsonl``: first what all runs share, then what came of each run, one line when it is trained
and one more when it is scored, and the latency of the arms. It must never mix runs of other settings, nor forget a run
that was trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from yolov10_dysample.study.json_files import append_line, append_once, read_lines

__all__ = [
    "EPOCH_MARK",
    "MAP",
    "MAP50",
    "PAIRS",
    "RECORDS",
    "SIZES",
    "Comparison",
    "Known",
    "Run",
    "by_comparison",
    "default_folder",
    "device_kind",
    "is_scored",
    "known_of",
    "on_record_elsewhere",
    "require_same_settings",
    "same_as_its_pair",
    "slug",
]

MAP, MAP50 = "mAP50-95", "mAP50"
SIZES = ("small", "medium", "large")
#: The file of a comparison that is worth keeping.
RECORDS = "records.jsonl"
#: What the first run of each seed started from and saw.
PAIRS = "pairs.jsonl"
#: Begins the line that a training prints after each epoch: epochs done, epochs in all, mAP50-95.
EPOCH_MARK = "@epoch"


class Comparison(NamedTuple):
    """What a folder of records is about; runs that differ in any of it belong in another folder.

    Attributes:
        model (str): The stock model YAML.
        data (str): The data set YAML.
        settings (dict): Training settings.
        warm_start (str | None): The first 16 digits of the SHA-256 of the weights that all runs start from.
        shard (str | None): Which part of the runs is meant to be here, as ``2/4``; None if it is all of them.
        device (str | None): ``cpu`` or ``gpu``; None in records from before it was noted, which go with either.
    """

    model: str
    data: str
    settings: dict[str, Any]
    warm_start: str | None
    shard: str | None = None
    device: str | None = None


def device_kind(device: str) -> str:
    """What a :class:`Comparison` says of the device of its runs.

    Example:
        >>> device_kind("cpu"), device_kind("1")
        ('cpu', 'gpu')
    """
    return "cpu" if device == "cpu" else "gpu"


class Run(NamedTuple):
    """One arm trained with one seed: all that a process of its own has to be told.

    Attributes:
        arm (str): The arm's name.
        seed (int): The seed.
        model (str): The model YAML, or the weights to start from.
        warm_start (bool): Whether ``model`` is weights.
        data (str): The data set YAML.
        settings (dict): Training settings.
        device (str): ``cpu``, the index of a GPU, or nothing: the GPU that its process was given.
        threads (int): Threads of PyTorch.
        out (str): The folder of the comparison.
    """

    arm: str
    seed: int
    model: str
    warm_start: bool
    data: str
    settings: dict[str, Any]
    device: str
    threads: int
    out: str

    @property
    def name(self) -> str:
        """The run in the names of files."""
        return f"{slug(self.arm)}-seed{self.seed}"

    @property
    def title(self) -> str:
        """The run as it is printed."""
        return f"{self.arm}, seed {self.seed}"

    @property
    def records(self) -> Path:
        """Where its record goes, beside those of all other runs."""
        return Path(self.out) / RECORDS

    @property
    def weights(self) -> Path:
        """The trained weights, of the last epoch."""
        return Path(self.out) / "weights" / f"{self.name}.pt"

    @property
    def unfinished(self) -> Path:
        """Ultralytics' own folder of the training, removed when the run is recorded."""
        return Path(self.out) / "unfinished" / self.name

    def lock(self) -> filelock.FileLock:
        """Held by who is at the run."""
        self.unfinished.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(f"{self.unfinished}.lock")

    @property
    def log(self) -> Path:
        """What its process prints."""
        return Path(self.out) / "logs" / f"{self.name}.txt"

    def note(self, **facts: Any) -> None:
        """Append what is now known of the run.

        Raises:
            RuntimeError: If the folder has become that of another comparison.
        """
        self.check_folder()
        append_line(self.records, {"arm": self.arm, "seed": self.seed, **facts})

    def check_folder(self) -> None:
        """See whether the folder is still about this run.

        Raises:
            RuntimeError: If it has become that of another comparison.
        """
        about = known_of(Path(self.out)).comparison
        if about and not self._belongs_to(about):
            raise RuntimeError(f"{self.title}: {self.out} is about other settings by now, and the run is not recorded")

    def _belongs_to(self, about: dict[str, Any]) -> bool:
        mine = {"data": self.data, "settings": self.settings}
        if not self.warm_start:
            mine["model"] = self.model
        return (
            json.loads(json.dumps(mine)) == {key: about[key] for key in mine}
            and self.warm_start is bool(about["warm_start"])
            and about.get("device") in (None, device_kind(self.device))
        )

    def record(self) -> dict[str, Any]:
        """All that is known of the run; empty if it was not trained yet."""
        return known_of(Path(self.out)).runs.get((self.arm, self.seed), {})

    @property
    def is_trained(self) -> bool:
        """Whether nothing is left to train: it is scored, or can be from its weights."""
        record = self.record()
        return is_scored(record) or bool("epochs" in record and self.weights.is_file())


class Known(NamedTuple):
    """What a folder's records say.

    Attributes:
        comparison (dict | None): What the folder is about, as of :class:`Comparison`; None if it is not a comparison's.
        runs (dict): What is known of every run, by arm and seed.
        latency (dict | None): What :func:`~yolov10_dysample.study.scoring.measure_latency` found last.
    """

    comparison: dict[str, Any] | None
    runs: dict[tuple[str, int], dict[str, Any]]
    latency: dict[str, Any] | None


def known_of(*folders: Path) -> Known:
    """What the records of a folder, or of all shards of a comparison, say; later lines add to those before.

    Of a run that is in several folders, the first scored one stands, whole.
    """
    comparison = latency = None
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for folder in folders:
        here: dict[tuple[str, int], dict[str, Any]] = {}
        for line in read_lines(folder / RECORDS):
            comparison = line.get("comparison", comparison)
            latency = line.get("latency", latency)
            if "arm" in line:
                here.setdefault((line["arm"], line["seed"]), {}).update(line)
        runs.update({run: record for run, record in here.items() if not is_scored(runs.get(run, {}))})
    return Known(comparison, runs, latency)


def by_comparison(folders: Sequence[Path]) -> list[list[Path]]:
    """The folders of each comparison: one, or those of its shards, which may also be named by the folder they are in.

    Raises:
        ValueError: If a folder is not a comparison's, or shards ran on different kinds of devices.
    """
    groups: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for named in folders:
        shards = [file.parent for file in sorted(named.glob(f"shard-*/{RECORDS}"))]
        if shards and (named / RECORDS).is_file():
            raise ValueError(
                f"must be comparisons or their shards, got '{named}', which has records of its own and of shards; "
                f"name the shards: {','.join(map(str, shards))}"
            )
        for folder in shards or [named]:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            about = known_of(folder).comparison
            if about is None:
                raise ValueError(f"must be folders of comparisons, got '{folder}', which has no {RECORDS} of one")
            shard = about.get("shard")
            # Whatever the parts are of: their number may change while a comparison goes on.
            alike = {**about, "shard": None, "device": None} if shard else str(folder)
            groups.setdefault(json.dumps(alike, sort_keys=True), []).append(folder)
    for group in groups.values():
        devices = {(known_of(folder).comparison or {}).get("device") for folder in group} - {None}
        if len(devices) > 1:
            raise ValueError(
                f"must be shards that ran on CPUs alone, or on GPUs alone, got both in '{group[0].parent}'"
            )
    return list(groups.values())


def on_record_elsewhere(folder: Path, wanted: Comparison) -> set[tuple[str, int]]:
    """The arm and seed of every run that another shard beside this folder has: more arms or parts deal runs out anew.

    Shards with other settings, or of another kind of device, are passed over.
    """
    found: set[tuple[str, int]] = set()
    now = json.loads(json.dumps(wanted._replace(shard=None)._asdict()))
    for file in sorted(folder.parent.glob(f"shard-*/{RECORDS}")):
        known = known_of(file.parent)
        about = {**(known.comparison or {}), "shard": None}
        if file.parent != folder and {**about, "device": about.get("device") or now["device"]} == now:
            found |= {run for run, record in known.runs.items() if is_scored(record)}
    return found


def is_scored(record: dict[str, Any]) -> bool:
    """Whether a run has all that a report shows."""
    return record.keys() >= {"epochs", "sizes"}  # the line of one of them may have been lost


def default_folder(data: str, model: str, warm_start: str | None) -> Path:
    """Where a comparison goes if no folder is named: experiments on other data or from another start do not collide.

    Example:
        >>> default_folder("VisDrone.yaml", "yolov10n.yaml", None).as_posix()
        'runs/compare/VisDrone-yolov10n-scratch'
        >>> default_folder("sets/cats/data.yaml", "yolov10n.yaml", "weights/yolov10n.pt").as_posix()
        'runs/compare/cats-yolov10n-yolov10n'
    """
    named = Path(data).resolve().parent.name if Path(data).stem == "data" else Path(data).stem
    start = Path(warm_start).stem if warm_start else "scratch"
    return Path("runs", "compare", f"{named}-{Path(model).stem}-{start}")


def require_same_settings(folder: Path, wanted: Comparison) -> None:
    """Note what this folder is about; of one without a single run, what it is about now.

    Raises:
        ValueError: If it has runs of something else already, or one under way.
    """
    now = json.loads(json.dumps(wanted._asdict()))
    before = append_once(folder / RECORDS, {"comparison": now}, key=()).get("comparison")  # or the first line, if any
    if before is None:
        raise ValueError(f"{folder / RECORDS} must begin with what the comparison is about: name another out=")
    before = {"device": now["device"], **{key: value for key, value in before.items() if value is not None}}
    changed = [f"{key} was {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key]]
    under_way = _under_way(folder) if changed else []
    if under_way:
        raise ValueError(
            f"out={folder} has trainings with other settings under way ({', '.join(under_way)}; {'; '.join(changed)}): "
            "wait for them, stop them, or name another out="
        )
    if changed and not known_of(folder).runs:
        for file in (RECORDS, PAIRS):
            (folder / file).unlink(missing_ok=True)
        append_once(folder / RECORDS, {"comparison": now}, key=())
    elif changed:
        raise ValueError(f"out={folder} holds runs with other settings ({'; '.join(changed)}): name another out=")


def _under_way(folder: Path) -> list[str]:
    """The runs that a process on this machine is at, perhaps of a comparison that was killed."""
    found = []
    for file in sorted((folder / "unfinished").glob("*.lock")):
        try:
            with filelock.FileLock(file, timeout=0):
                pass
        except filelock.Timeout:
            found.append(file.stem)
    return found


def same_as_its_pair(run: Run, what: str, digest: str) -> str:
    """The digest of what a run starts from or sees, as its record has it.

    Raises:
        RuntimeError: If the first run of this seed noted another one, or the folder has become another comparison's.
    """
    run.check_folder()
    line = {"seed": run.seed, "what": what, "digest": digest, "arm": run.arm}
    first = append_once(Path(run.out) / PAIRS, line, key=("seed", "what"))
    if first["digest"] != digest:
        raise RuntimeError(
            f"seed {run.seed}: {what} of {run.arm} is not that of {first['arm']}, so that they cannot be compared in "
            f"pairs; if the model or the data changed since, write to another folder than {run.out}"
        )
    return digest[:16]


def slug(name: str) -> str:
    """The name of an arm as it may stand in the name of a file on every system.

    Example:
        >>> slug("dysample-s+:init=nearest:rows=11+14")
        'dysample-splus_init-nearest_rows-11plus14'
    """
    return name.replace("+", "plus").replace(":", "_").replace("=", "-")
