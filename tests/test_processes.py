"""DySample in the processes and threads that Ultralytics and PyTorch start, where nobody imports this package.

All are real child processes; of those whose start is not what is tested, some are forks (``warm_shell``).
"""

import ast
import json
import pickletools
import socket
import zipfile
from pathlib import Path

import pytest

from tests.conftest import run

pytestmark = pytest.mark.slow

# What `yolo train device=0,1` does in its own process before it starts the ranks. A CPU has no devices to name: where
# the trainer would ask for GPUs, this one uses gloo or leaves out the last validation. The worker file is Ultralytics'
# own; it carries this class to the ranks as it carries any user's trainer. It would carry our callbacks too, and so
# import this package, which the ranks of older releases do not get: they start with callbacks of their own, as here.
LAUNCH = """
import json, os, sys
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.dist import generate_ddp_command

class GlooTrainer(DetectionTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.world_size = 2
        if "RANK" in os.environ:
            for event, own in get_default_callbacks().items():
                self.callbacks[event] = own + self.callbacks[event]

    def _setup_ddp(self):
        torch.distributed.init_process_group("gloo")
        ddp = torch.nn.parallel.DistributedDataParallel
        torch.nn.parallel.DistributedDataParallel = lambda model, device_ids, **settings: ddp(model, **settings)

    def final_eval(self):
        pass

def report(trainer):
    layers = [trainer.model.module.model[i] for i in (11, 14)]
    moved = [float(layer.offset.weight.detach().abs().sum()) for layer in layers]
    everyone = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, ([type(layer).__module__ for layer in layers], moved))
    if torch.distributed.get_rank() == 0:
        print("ranks", everyone, flush=True)

overrides = dict(
    model="yolov10n-dysample.yaml", data=sys.argv[1], project=sys.argv[2], imgsz=64, batch=8, epochs=1, device="cpu",
    workers=0, plots=True, val=False, deterministic=False,
)
trainer = GlooTrainer(overrides=overrides)
trainer.callbacks.clear()
trainer.add_callback("on_train_start", report)
trainer.add_callback("on_train_epoch_end", report)
command, file = generate_ddp_command(trainer)
print(json.dumps(command))
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Ultralytics' settings folder, where it writes the worker file; it makes that folder's last part only."""
    folder = tmp_path / "settings"
    folder.mkdir()
    return {"YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false"}


def test_the_worker_file_of_ultralytics_trains_two_ranks_from_another_folder(python, digits, tmp_path, settings):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    output = run(python, "-c", LAUNCH, digits, tmp_path / "runs", cwd=here, env=settings)
    command = json.loads(output.splitlines()[-1])
    assert "torch.distributed.run" in command
    worker = Path(command[-1])
    packages = imported(worker) | pickled(worker.with_suffix(".pt"))
    assert "ultralytics" in packages
    assert "yolov10_dysample" not in packages
    output = run(*command, cwd=elsewhere, env=settings)
    before, after = (ast.literal_eval(line[6:]) for line in output.splitlines() if line.startswith("ranks "))
    ours = ["yolov10_dysample.dysample"] * 2
    assert [kinds for kinds, _ in before + after] == [ours] * 4
    assert before[0] == before[1] != after[0] == after[1], "the ranks learn, and the same"
    assert len(list((tmp_path / "runs").rglob("best.pt"))) == 1
    offsets, picture = sorted((tmp_path / "runs").rglob("*dysample_offsets*"))
    assert (len(offsets.read_text().splitlines()), picture.suffix) == (2, ".png"), "one rank writes"
    assert "dysample_offsets are left out" not in output


def imported(script):
    """The packages that a script's import lines name. Its other text has paths, and those may hold any name."""
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    return {module.split(".")[0] for module in modules}


def pickled(file):
    """The packages that a file of torch.save imports when it is opened, and every other string up to its first dot."""
    with zipfile.ZipFile(file) as parts:
        (data,) = (parts.read(name) for name in parts.namelist() if name.endswith("/data.pkl"))
    return {text.split(".")[0].split(" ")[0] for _, text, _ in pickletools.genops(data) if isinstance(text, str)}


# The whole detector, where a mean over samples is the mean of the ranks' means: BatchNorm, which would mix the samples
# of a rank, uses its running statistics, and the loss is a fixed weighted square of the head's maps (YOLO's own divides
# by the number of objects, which differs between ranks). In float64, so that 1e-6 tests the sum and not the rounding.
GRADIENTS = """
import os
import torch
import torch.distributed as dist
from ultralytics.nn.tasks import DetectionModel

def flat(output):
    if isinstance(output, torch.Tensor):
        return [output.flatten(1)]
    return [y for part in (output.values() if isinstance(output, dict) else output) for y in flat(part)]

def gradients(model, images):
    y = torch.cat(flat(model(images)), dim=1)
    weights = torch.arange(y.shape[1], dtype=y.dtype).sin()
    (y * y * weights).mean().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found

dist.init_process_group("gloo")
torch.manual_seed(0)
network = DetectionModel("yolov10n-dysample.yaml", verbose=False).double().eval()
network.model[-1].training = True  # gives its maps, not boxes; its BatchNorm layers stay as they are
ours = [f"model.{i}.offset.{part}" for i in (11, 14) for part in ("weight", "bias")]
for name in ours:
    torch.nn.init.normal_(network.get_parameter(name), std=0.1)
images = torch.rand(4, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
mine = images.chunk(2)[dist.get_rank()]

whole = gradients(network, images)
alone = gradients(network, mine)
shared = gradients(torch.nn.parallel.DistributedDataParallel(network), mine)
ranks = [None, None]
dist.all_gather_object(ranks, {name: shared[name] for name in ours})

def difference(one, other, names):
    return max(float((one[n] - other[n]).abs().max() / other[n].abs().max().clamp_min(1e-300)) for n in names)

if dist.get_rank() == 0:
    print("found", {
        "parameters": len(whole),
        "ranks": difference(ranks[0], ranks[1], ours),
        "whole batch": difference(shared, whole, ours),
        "whole batch, all layers": difference(shared, whole, [n for n in whole if float(whole[n].abs().max()) > 1e-12]),
        "one rank alone": difference(alone, whole, ours),
    }, flush=True)
# Together, and without Python's own end: a rank of gloo aborted there once, long after all was compared.
dist.barrier()
dist.destroy_process_group()
os._exit(0)
"""


def test_gradients_of_two_ranks_are_those_of_the_whole_batch(warm_shell, tmp_path):
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    ranks = f"--nproc_per_node 2 --master_port {free_port()} --no_python"
    launch = f"OMP_NUM_THREADS=1 python -m torch.distributed.run {ranks} python gradients.py"
    output = warm_shell(launch, cwd=tmp_path)
    (found,) = (ast.literal_eval(line[6:]) for line in output.splitlines() if line.startswith("found "))
    assert found["ranks"] == 0
    assert found["whole batch"] < 1e-6
    assert found["whole batch, all layers"] < 1e-6
    assert found["one rank alone"] > 1e-3, "equal parts would prove nothing"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


WORKERS = """
import torch
from torch.utils.data import DataLoader, Dataset
from ultralytics import YOLO

class Maps(Dataset):
    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 2

    def __getitem__(self, index):
        with torch.no_grad():
            y = self.model(images(index))[0]
        built = YOLO("yolov10n-dysample.yaml").model.model[11]
        return y, type(built).__module__

def images(index):
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(index))

if __name__ == "__main__":
    model = YOLO("yolov10n-dysample.yaml").model.eval()
    loader = DataLoader(Maps(model), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for index, (y, built) in enumerate(loader):
        with torch.no_grad():
            expected = model(images(index))[0]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        print("worker", built)
"""


def test_a_spawned_data_loader_worker_has_dysample(python, tmp_path):
    (tmp_path / "user.py").write_text(WORKERS)
    output = run(python, tmp_path / "user.py", cwd=tmp_path)
    assert output.count("worker yolov10_dysample.dysample\n") == 2


THREADS = """
import threading
import torch

def together(count, action):
    barrier, found = threading.Barrier(count), [None] * count
    def go(i):
        barrier.wait()
        found[i] = action(i)
    threads = [threading.Thread(target=go, args=(i,)) for i in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return found

def load(i):
    import ultralytics.nn.tasks as tasks
    return tasks.DySample.__module__, tasks.parse_model

NAMES = ["yolov10n-dysample.yaml", "yolov10s-dysample.yaml", "yolov10n.yaml", "yolo11n-dysample.yaml"]

def build(i):
    from ultralytics import YOLO
    model = YOLO(NAMES[i]).model
    return model.yaml["yaml_file"], str(model.model[11]), sum(p.numel() for p in model.parameters())

loaded = together(2, load)
assert len(set(loaded)) == 1 and loaded[0][0] == "yolov10_dysample.dysample", loaded
alone = [build(i) for i in range(len(NAMES))]
for _ in range(3):
    assert together(len(NAMES), build) == alone
print([kind.split("(")[0] for _, kind, _ in alone])
"""


def test_threads_load_ultralytics_and_build_models_at_the_same_time(python, tmp_path):
    output = run(python, "-c", THREADS, cwd=tmp_path)
    assert output.splitlines()[-1] == "['DySample', 'DySample', 'Upsample', 'DySample']"
