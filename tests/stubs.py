"""Stand-ins for torch and Ultralytics that are imported in milliseconds, for tests of what happens around them.

They do what this package relies on at start: torch loads entry points as the real one does, and Ultralytics has the
parts that registration changes. They build no model. Each promise that is tested with them has a real case as well.
"""

from __future__ import annotations

from pathlib import Path

# torch loads the entry points of this group at the end of its import, and fails if one of them does.
TORCH = """
__version__ = "2.99.0"

class Anything:
    def __init__(self, *args, **kwargs): pass
    def __call__(self, *args, **kwargs): return self
    def __getattr__(self, name): return Anything()
    def __enter__(self): return self
    def __exit__(self, *error): return False
    def __int__(self): return 0

class Tensor(Anything): pass

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything()

from . import nn, serialization

def _load_entry_points():
    from importlib.metadata import entry_points
    for point in entry_points(group="torch.backends"):
        try:
            point.load()()
        except Exception as error:
            # As torch begins it; `doctor` reads the name from it.
            raise RuntimeError(f"Failed to load the backend extension: {point.name}. You can disable "
                               "extension auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.") from error

import os
if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") == "1":
    _load_entry_points()
"""

NN = """
class Module:
    def __init__(self): self.training = True
    def parameters(self): return []
    def get_parameter(self, name): return None

class Sequential(Module): pass

def __getattr__(name):
    from torch import Anything
    return Anything()
"""

# Registration tries whether rows get the parser's variables `c2` and `ch`, as the real parser's do.
PARSER = """
def parse_model(d, ch, verbose=True):
    c2, ch, layers = ch, [ch], []
    for source, repeats, name, (variable, row) in d["backbone"] + d["head"]:
        layers.append(globals()[name]({"c2": c2, "ch": ch}[variable], row))
    return layers, []

def yaml_model_load(path): return {}
"""

#: An Ultralytics that fits, by file.
ULTRALYTICS = {
    "ultralytics/__init__.py": "__version__ = '8.99.0'\nimport torch\n",
    "ultralytics/nn/__init__.py": "",
    "ultralytics/nn/modules.py": "",
    "ultralytics/nn/tasks.py": "import torch\n" + PARSER,
    "ultralytics/engine/__init__.py": "",
    "ultralytics/engine/model.py": "from ultralytics.nn.tasks import yaml_model_load\n",
    "ultralytics/utils/__init__.py": "import logging\nLOGGER = logging.getLogger('ultralytics')\n",
    "ultralytics/utils/callbacks/__init__.py": "",
    "ultralytics/utils/callbacks/base.py": "default_callbacks = {'on_export_start': []}\n",
}

STUBS = {
    "torch/__init__.py": TORCH,
    "torch/nn/__init__.py": NN,
    "torch/nn/functional.py": "",
    "torch/serialization.py": "def add_safe_globals(classes): pass\n",
    **ULTRALYTICS,
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write files by their path in a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
