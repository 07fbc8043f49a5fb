"""Trains one run by Ultralytics' own trainer, and notes what it starts from, what it sees and how far it comes.

Runs of one seed start from the same weights in every layer that they share and see the same images in the same order;
a run that would differ stops. It must never change what the trainer does.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from yolov10_dysample.dysample import DySample
from yolov10_dysample.study.arms import Arm, fold_rates, freeze_setting, parse_arm, set_rate, with_arm
from yolov10_dysample.study.comparison import EPOCH_MARK, MAP, MAP50, Run, same_as_its_pair
from yolov10_dysample.study.guidance import set_guidance
from yolov10_dysample.study.records import environment_record, gpu_name

__all__ = ["dysample_layers", "keep_threads", "train"]


def train(run: Run) -> None:
    """Train a run, keep its weights, and record it."""
    from ultralytics import YOLO

    start = time.monotonic()
    environment = environment_record("cpu")  # before its own load, and before Ultralytics has chosen a GPU
    shutil.rmtree(run.unfinished, ignore_errors=True)  # what a killed run left
    model: Any = YOLO(run.model)
    keep_threads(model, run.threads)
    arm = parse_arm(run.arm)
    rows = with_arm(model.model.yaml, arm)
    frozen = {"freeze": freeze_setting(rows, run.settings.get("freeze"))} if arm.frozen else {}
    history: dict[str, Any] = {"epochs": []}
    model.train(
        trainer=_trainer(model, run, arm, rows, history),
        data=run.data,
        seed=run.seed,
        device=run.device,
        project=str(run.unfinished.parent.resolve()),
        name=run.unfinished.name,
        exist_ok=True,  # else what could not be removed would send it to another folder
        pretrained=run.warm_start,
        deterministic=True,
        plots=False,
        patience=0,
        **{**run.settings, **frozen},
    )
    environment["machine"]["gpu"] = gpu_name(model.trainer.device)
    last = run.unfinished / "weights" / "last.pt"
    trained: Any = YOLO(last)
    run.weights.parent.mkdir(parents=True, exist_ok=True)
    part = Path(shutil.copy(last, run.weights.with_suffix(".part")))
    if arm.rate != 1:
        _fold(part)
    os.replace(part, run.weights)
    run.note(
        parameters=sum(p.numel() for p in trained.model.parameters()),
        **history,
        seconds=round(time.monotonic() - start),
        **environment,
    )
    shutil.rmtree(run.unfinished, ignore_errors=True)


def keep_threads(model: Any, threads: int) -> None:
    """Have a model trained, validated and predicted with so many threads: Ultralytics sets its own number each time."""
    for event in ("on_train_start", "on_val_start", "on_predict_start"):
        model.add_callback(event, lambda host: torch.set_num_threads(threads))


def dysample_layers(network: Any) -> dict[int, DySample]:
    """The DySample layers of a detection model, by row."""
    return {i: layer for i, layer in enumerate(network.model) if isinstance(layer, DySample)}


def _fold(weights: Path) -> None:
    """Make plain DySample layers of those that learnt at another rate."""
    checkpoint = torch.load(weights, map_location="cpu", weights_only=False)
    for network in (checkpoint["model"], checkpoint.get("ema")):
        if network is not None:
            fold_rates(network)
    torch.save(checkpoint, weights)


def _trainer(model: Any, run: Run, arm: Arm, rows: dict[str, Any], history: dict[str, Any]) -> type:
    """Ultralytics' own trainer of a model, with the arm in its rows and with notes in ``history``."""
    order = hashlib.sha256()
    begun: set[int] = set()

    class Trainer(model._smart_load("trainer")):  # type: ignore[misc]
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            network = super().get_model(cfg=rows, weights=weights, verbose=verbose)
            history["start"] = same_as_its_pair(run, "weights", _shared_weights(network))
            if arm.guided:
                set_guidance(network)
            if arm.rate != 1:
                set_rate(network, arm.rate)
            return network

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            # Not where they are: the machines of a cluster may have the data set in places of their own.
            order.update("".join(Path(file).name for file in batch["im_file"]).encode())
            order.update(batch["img"][:, :, ::8, ::8].cpu().numpy().tobytes())
            return super().preprocess_batch(batch)

    def before_training(trainer: Any) -> None:
        if run.warm_start:
            # As `yolo val` does it, of a copy, which is fused: the trainer's own validator wants a loss to go on from.
            history["before"] = _validation_metrics(trainer.get_validator()(model=copy.deepcopy(trainer.ema.ema)))

    def before_epoch(trainer: Any) -> None:
        if trainer.epoch in begun:
            raise RuntimeError(
                f"Ultralytics begins epoch {trainer.epoch + 1} again, with other images or a smaller batch, since "
                "memory ran out or the loss was not a number: that is no pair; lower batch, or lr0"
            )
        begun.add(trainer.epoch)

    def after_epoch(trainer: Any) -> None:
        done = trainer.epoch + 1
        if len(history["epochs"]) < done <= trainer.epochs:  # called once more at the end, with the best weights
            history["epochs"].append(_validation_metrics(trainer.metrics))
            history["data"] = same_as_its_pair(run, f"images to epoch {done}", order.hexdigest())
            print(f"{EPOCH_MARK} {done} {trainer.epochs} {history['epochs'][-1][MAP]:.3f}", flush=True)

    model.add_callback("on_train_start", before_training)
    model.add_callback("on_train_epoch_start", before_epoch)
    model.add_callback("on_fit_epoch_end", after_epoch)
    return Trainer


def _validation_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    losses = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
    return {**{name: float(metrics[f"metrics/{name}(B)"]) for name in (MAP, MAP50)}, **losses}


def _shared_weights(network: Any) -> str:
    """A digest of every weight but DySample's own."""
    own = tuple(f"model.{i}." for i in dysample_layers(network))
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not name.startswith(own):
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
