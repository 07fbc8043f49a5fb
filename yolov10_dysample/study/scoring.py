"""What trained weights are worth: precision by size of the object, how far DySample layers move, time for an image.

It works from the weights alone, as often as wanted, and must never train or change them.
"""

from __future__ import annotations

import collections
import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolov10_dysample.dysample import DySample
from yolov10_dysample.offsets import offset_statistics
from yolov10_dysample.study.comparison import SIZES, Run
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.settings import predicting_format, torch_device
from yolov10_dysample.study.statistics import compared
from yolov10_dysample.study.timing import time_interleaved
from yolov10_dysample.study.training import dysample_layers, keep_threads

__all__ = [
    "OFFSET_IMAGES",
    "GroundTruth",
    "ground_truth",
    "learnt_offsets",
    "measure_latency",
    "precision_by_size",
    "predictions",
    "score",
    "unseen_truth",
]

#: Images of the val split that the learnt offsets are looked at on.
OFFSET_IMAGES = 64
#: Settings of a training that its validation goes by, and the scores as well.
OF_VALIDATION = ("imgsz", "batch", "workers", "conf", "iou", "max_det", "agnostic_nms", "nms")
#: Timed rounds of the latency.
ROUNDS = 30


def score(run: Run) -> None:
    """Add the scores of a trained run to its record."""
    from ultralytics import YOLO

    trained: Any = YOLO(run.weights)
    keep_threads(trained, run.threads)
    truth, unseen = ground_truth(run.data), unseen_truth(run.data)
    scores = {"sizes": precision_by_size(trained, run, truth)}
    if unseen:
        again: Any = YOLO(run.weights)
        keep_threads(again, run.threads)
        scores["test"] = precision_by_size(again, run, unseen)
    run.note(**scores, offsets=learnt_offsets(trained, run, truth.files[:OFFSET_IMAGES]))


class SameNameError(ValueError):
    """Two images of a split have one name, so that their predictions could not be told apart."""


class GroundTruth(NamedTuple):
    """A split of a data set.

    Attributes:
        split (str): ``val`` or ``test``.
        coco (dict): Its boxes as COCO writes them.
        image_ids (dict[str, int]): The id of each image there, by the name it has in Ultralytics' predictions.
        files (list[str]): Its images.
    """

    split: str
    coco: dict[str, Any]
    image_ids: dict[str, int]
    files: list[str]


def unseen_truth(data: str) -> GroundTruth | None:
    """The test split of a data set YAML; None if it names none, or one that is not there or without labels, as COCO's.

    Raises:
        SameNameError: If two of its images have one name.
    """
    from ultralytics.data.utils import check_det_dataset

    if not check_det_dataset(data).get("test"):
        return None
    try:
        return ground_truth(data, "test")
    except SameNameError:
        raise
    except (OSError, RuntimeError, ValueError):
        return None


def read_labels(data: str, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a data set YAML says, and the labels of a split as Ultralytics reads them."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    described = check_det_dataset(data)
    return described, YOLODataset(img_path=described[split], data=described, task="detect", augment=False).labels


def ground_truth(data: str, split: str = "val") -> GroundTruth:
    """A split of a data set YAML.

    Raises:
        ValueError: If it has no boxes, or two images of one name, whose predictions could not be told apart.
    """
    described, labels = read_labels(data, split)
    image_ids: dict[str, int] = {}
    boxes: list[dict[str, Any]] = []
    for image_id, label in enumerate(labels, start=1):
        stem = Path(label["im_file"]).stem
        name = str(int(stem)) if stem.isnumeric() else stem  # as Ultralytics names it in its predictions
        if name in image_ids:
            raise SameNameError(f"must have one {split} image of a name, got two called {name!r}; rename one of them")
        image_ids[name] = image_id
        height, width = label["shape"]
        pixels = label["bboxes"] * [width, height, width, height]
        for category, (x, y, w, h) in zip(label["cls"].ravel(), pixels, strict=True):
            box = {"bbox": [x - w / 2, y - h / 2, w, h], "area": w * h, "category_id": int(category), "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "image_id": image_id, **box})
    if not boxes:
        raise ValueError(f"must have labelled boxes in its {split} split, got none")
    coco = {
        "images": [{"id": image_id} for image_id in image_ids.values()],
        "annotations": boxes,
        "categories": [{"id": category} for category in described["names"]],
    }
    return GroundTruth(split, coco, image_ids, [label["im_file"] for label in labels])


def precision_by_size(model: Any, run: Run, truth: GroundTruth) -> dict[str, Any]:
    """COCO's average precision: of all objects, at an IoU of 0.75, and of the data's own small, medium and large ones.

    The limits are such that each size has a third of the boxes of the split.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(truth.coco)
    boxes = coco.loadRes(predictions(model, run, truth))
    evaluation = COCOeval_faster(coco, boxes, "bbox", print_function=lambda *_: None)
    areas = np.array([box["area"] for box in truth.coco["annotations"]])
    low, high = np.quantile(areas, (1 / 3, 2 / 3))
    evaluation.params.areaRng = [[0, 1e10], [0, low], [low, high], [high, 1e10]]
    evaluation.params.areaRngLbl = ["all", *SIZES]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # IoU, recall, class, size
    at_75 = int(np.argmin(np.abs(evaluation.params.iouThrs - 0.75)))
    parts = {"all": precision[..., 0], "AP75": precision[at_75, ..., 0]}
    parts |= {name: precision[..., i] for i, name in enumerate(SIZES, start=1)}
    valid = {name: part[part > -1] for name, part in parts.items()}
    return {
        "limits_px": [round(float(limit) ** 0.5, 2) for limit in (low, high)],
        **{name: round(values.mean().item(), 5) if values.size else None for name, values in valid.items()},
    }


def predictions(model: Any, run: Run, truth: GroundTruth) -> list[dict[str, Any]]:
    """What a model finds on a split, as COCO writes it, with the ids of the ground truth."""
    found: list[dict[str, Any]] = []

    def keep(validator: Any) -> None:
        # Ultralytics counts from 1, or 0 in older releases, and for COCO leaves out the ids that COCO leaves out.
        categories = {written: category for category, written in enumerate(validator.class_map)}
        for box in validator.jdict:
            ids = {"image_id": truth.image_ids[str(box["image_id"])], "category_id": categories[box["category_id"]]}
            found.append({**box, **ids})

    model.add_callback("on_val_end", keep)
    settings = {name: run.settings[name] for name in OF_VALIDATION if name in run.settings}
    with tempfile.TemporaryDirectory() as folder:
        model.val(
            data=run.data,
            split=truth.split,
            device=run.device,
            save_json=True,
            project=folder,
            plots=False,
            verbose=False,
            **settings,
        )
    return found


def learnt_offsets(model: Any, run: Run, files: list[str]) -> dict[str, dict[str, float]]:
    """How far each DySample layer moves its samples, in pixels of its input."""
    layers = dysample_layers(model.model)
    seen: dict[int, list[Tensor]] = collections.defaultdict(list)

    def note(i: int, layer: DySample, inputs: tuple[Tensor, ...]) -> None:
        seen[i].append(layer.predict_offset(inputs[0]).float().cpu())

    for i, layer in layers.items():
        layer.register_forward_pre_hook(functools.partial(note, i))
    if layers:
        options = {"imgsz": run.settings["imgsz"], "rect": False, "device": run.device, "verbose": False}
        model.predict(files[0], save=False, **options)
        seen.clear()  # of the warm-up on a GPU, whose image some releases do not even fill
        for file in files:  # a list of them would pass at once, however many they are
            model.predict(file, save=False, **options)
    return {str(i): offset_statistics(torch.cat(offsets), layers[i].scale) for i, offsets in seen.items()}


@torch.inference_mode()
def measure_latency(
    weights: dict[str, Path], imgsz: int, device: str, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Milliseconds of every arm's model, one image at a time, by its weights; the ratios are to the first arm's."""
    from ultralytics import YOLO

    place = torch_device(device)
    environment = environment_record(place)  # before its own load
    layout = predicting_format(place)
    models: dict[str, Any] = {name: YOLO(file).model for name, file in weights.items()}
    stride = max(32, *(int(model.stride.max()) for model in models.values()))
    imgsz = math.ceil(imgsz / stride) * stride  # as the trainer has rounded it
    image = torch.rand(1, 3, imgsz, imgsz).to(place, memory_format=layout)
    calls = {}
    for name, model in models.items():
        model = model.eval().fuse(verbose=False).float().to(place, memory_format=layout)
        calls[name] = functools.partial(model, image)
    times = time_interleaved(calls, ROUNDS, place, tell)
    arms = compared(times, "ms", next(iter(weights)))
    return {
        "arms": arms,
        "imgsz": imgsz,
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
        **environment,
    }
