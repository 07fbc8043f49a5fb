"""Leaves in the folder of a training what its DySample layers learn: their offsets by epoch, as numbers and drawn.

Called by Ultralytics' own trainer and validator (``registration`` puts :data:`CALLBACKS` there). It must never fail a
training or change a number of it, do anything where no layer is a DySample, or load numpy before it looks at offsets
and matplotlib before it draws.
"""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from yolov10_dysample.dysample import DySample
from yolov10_dysample.errors import described
from yolov10_dysample.files import write_whole

if TYPE_CHECKING:
    from yolov10_dysample.offsets import OffsetRecorder

__all__ = ["CALLBACKS", "IMAGES", "SWITCH", "OffsetDiary"]

SWITCH = "YOLOV10_DYSAMPLE_PLOTS"
NAME = "dysample_offsets"  # of the files
IMAGES = 4  # of the first validation batch: the same ones in every epoch

_DIARY = "dysample_diary"  # the attribute of a trainer and of its validator
_logger = logging.getLogger("ultralytics")  # what the user sees of Ultralytics goes through it


class Trainer(Protocol):
    """What is used of Ultralytics' trainer."""

    args: Any
    ema: Any
    epoch: int
    metrics: dict[str, float]
    save_dir: Path
    start_epoch: int
    validator: Any

    def on_plot(self, name: Path) -> None: ...


class Validator(Protocol):
    """What is used of Ultralytics' validator; ``training`` is False where it validates a finished model."""

    training: bool


class OffsetDiary:
    """What one training tells of its DySample layers, kept from its start to its end.

    Each epoch is a row of ``dysample_offsets.csv``: ``epoch``, from 1, and the figures of
    :func:`~yolov10_dysample.offsets.offset_statistics` for each layer, such as ``dysample/layer11_p99``. The loggers
    that are on get them under the same names.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.folder = Path(trainer.save_dir)
        self.network: nn.Module = trainer.ema.ema
        self.is_closed = False
        self.recorder: OffsetRecorder | None = None
        self.last: OffsetRecorder | None = None
        self.diverged: set[int] = set()
        # A resumed training goes on from a checkpoint, and trains the epochs after that again.
        done = _read_rows(self.folder / f"{NAME}.csv") if trainer.start_epoch else []
        self.rows = [row for row in done if row["epoch"] <= trainer.start_epoch]

    def begin_epoch(self, trainer: Trainer) -> None:
        # The figures were there for the loggers. What stays would be written to results.csv by an epoch that is not
        # validated, whose header has no room for it.
        trainer.metrics = {name: value for name, value in trainer.metrics.items() if not name.startswith("dysample/")}
        self.network = trainer.ema.ema  # another one after a recovery from NaN
        setattr(trainer.validator, _DIARY, self)

    def watch(self, validator: Validator) -> None:
        """Have the first validation batch noted as it passes: no forward pass is made for it."""
        from yolov10_dysample.offsets import OffsetRecorder

        if validator.training:
            self.recorder = OffsetRecorder(self.network, IMAGES, once=True, of=_learning(self.network))

    def stop_watching(self, validator: Validator) -> None:
        if self.recorder is not None:  # a validator that runs another network would leave the hooks to the checkpoints
            self.recorder.remove()

    def note_epoch(self, trainer: Trainer) -> None:
        if self.recorder is None:  # not validated, or the final validation, whose epoch is noted already
            return
        self.last, self.recorder = self.recorder, None
        statistics = self.last.statistics()
        figures = {f"dysample/layer{i}_{name}": v for i, named in statistics.items() for name, v in named.items()}
        self.rows.append({"epoch": trainer.epoch + 1, **figures})
        write_whole(self.folder / f"{NAME}.csv", _as_csv(self.rows))
        trainer.metrics = {**trainer.metrics, **{k: value for k, value in figures.items() if math.isfinite(value)}}
        self._tell_divergence({i for i, named in statistics.items() if not all(map(math.isfinite, named.values()))})

    def _tell_divergence(self, layers: set[int]) -> None:
        if layers - self.diverged:
            which = ", ".join(str(i) for i in sorted(layers - self.diverged))
            _logger.warning(f"the offsets of DySample layer {which} are not finite numbers: the model has diverged.")
        self.diverged |= layers

    def draw(self, trainer: Trainer) -> None:
        """Draw the training, in time for the loggers, which collect a run's pictures at its end."""
        self.is_closed = True
        if self.last is None:
            return
        from yolov10_dysample import figures  # loads matplotlib

        # Of the images that were looked at, the one on which the layers do most.
        fields = max(self.last.fields(), key=lambda fields: sum(field.statistics["spread"] for field in fields))
        picture, file = figures.training(fields, self.rows), self.folder / f"{NAME}.png"
        write_whole(file, picture)
        trainer.on_plot(file)
        _send_to_tensorboard(picture, trainer.epoch + 1)


def _learning(network: nn.Module) -> nn.Module:
    """Of a distillation, which is validated as a whole, the network that learns."""
    learning: nn.Module = getattr(network, "student_model", network)
    return learning


def _is_wanted(trainer: Trainer) -> bool:
    return (
        trainer.args.plots
        and os.environ.get(SWITCH, "1") != "0"
        and os.environ.get("RANK", "-1") in ("-1", "0")  # as Ultralytics tells the process that writes
        and any(isinstance(layer, DySample) for layer in _learning(trainer.ema.ema).modules())
    )


def _read_rows(file: Path) -> list[dict[str, float]]:
    import csv  # in a training, and not wherever Ultralytics is imported

    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def _as_csv(rows: list[dict[str, float]]) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _send_to_tensorboard(picture: bytes, step: int) -> None:
    """Ultralytics sends no picture there; its writer is there where the user has switched it on."""
    writer = getattr(sys.modules.get("ultralytics.utils.callbacks.tensorboard"), "WRITER", None)
    if writer:
        import numpy as np
        from PIL import Image

        writer.add_image(NAME, np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")), step, dataformats="HWC")


def on_train_start(trainer: Trainer) -> None:
    try:
        if _is_wanted(trainer):
            setattr(trainer, _DIARY, OffsetDiary(trainer))
    except Exception as error:
        _give_up(error)


def on_train_epoch_start(trainer: Trainer) -> None:
    _keep(trainer, OffsetDiary.begin_epoch)


def on_val_start(validator: Validator) -> None:
    _keep(validator, OffsetDiary.watch)


def on_val_end(validator: Validator) -> None:
    _keep(validator, OffsetDiary.stop_watching)


def on_fit_epoch_end(trainer: Trainer) -> None:
    _keep(trainer, OffsetDiary.note_epoch)


def on_train_end(trainer: Trainer) -> None:
    _keep(trainer, OffsetDiary.draw)


#: For Ultralytics' lists of callbacks, each for the event that it is named after. They hold nothing, so that a training
#: on several GPUs, which hands the lists to its processes, hands on their names only.
CALLBACKS = (on_train_start, on_train_epoch_start, on_val_start, on_val_end, on_fit_epoch_end, on_train_end)


def _keep(host: Trainer | Validator, step: Callable[[OffsetDiary, Any], None]) -> None:
    diary = getattr(host, _DIARY, None)
    if diary is None or diary.is_closed:
        return
    try:
        step(diary, host)
    except Exception as error:
        diary.is_closed = True
        _give_up(error)


def _give_up(error: Exception) -> None:
    _logger.warning(
        f"{NAME} are left out of this training, which goes on: {described(error)}. {SWITCH}=0 switches them off."
    )
