"""Registers DySample in every process that loads Ultralytics' model parser, without an import in the user's code.

torch calls :func:`autoload` at the end of ``import torch`` (entry point group ``torch.backends``). An exception here
would make ``import torch`` fail for everybody in the environment, so this file knows the standard library only, raises
nothing, and imports neither Ultralytics nor the operator before ``ultralytics.nn.tasks`` has been loaded by somebody
else. An install, editable or not, puts it beside the package as ``_yolov10_dysample_autoload``: a real file in
site-packages that is still there when an editable checkout has been moved or deleted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

SWITCH = "YOLOV10_DYSAMPLE_AUTOLOAD"
PARSER_MODULE = "ultralytics.nn.tasks"


def autoload() -> None:
    """Entry point for torch: :func:`watch`, unless ``YOLOV10_DYSAMPLE_AUTOLOAD=0``."""
    with contextlib.suppress(Exception):
        if os.environ.get(SWITCH, "1") != "0":
            watch()


def watch() -> None:
    """Register now if Ultralytics' parser is loaded, else as soon as it is."""
    parser = sys.modules.get(PARSER_MODULE)
    is_loading = getattr(getattr(parser, "__spec__", None), "_initializing", False)
    is_watched = any(isinstance(finder, DySampleFinder) for finder in sys.meta_path)
    if not is_watched:
        sys.meta_path.insert(0, DySampleFinder())
    if parser is not None and not is_loading:
        _register()
    elif is_loading and not is_watched:
        # Too late for the finder, and the module may be this thread's to finish: another one waits for its end.
        threading.Thread(target=_register, daemon=True).start()


def _register() -> None:
    try:
        from yolov10_dysample import registration

        registration.register()
    except Exception as error:
        with contextlib.suppress(Exception):
            print(
                f"yolov10_dysample: DySample is not available in this process ({type(error).__name__}: {error}). "
                f"Reinstall the package, or `pip uninstall yolov10-dysample` to stop this message.",
                file=sys.stderr,
            )


class DySampleFinder:
    """Leaves the finding of ``ultralytics.nn.tasks`` to everybody else, and registers DySample once it has run.

    It stays on ``sys.meta_path``, so that a parser that is loaded afresh is registered afresh.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    def find_spec(self, name, path=None, target=None):
        """Return the spec the other finders have for the parser, its loader told to register at the end."""
        if name != PARSER_MODULE or getattr(self._thread, "is_searching", False):
            return None
        self._thread.is_searching = True  # a finder of another plugin may ask all finders in its turn, us among them
        try:
            # Python passes over finders without find_spec(), which are older than Python 3.4.
            others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            specs = (finder.find_spec(name, path, target) for finder in others)
            spec = next((spec for spec in specs if spec is not None), None)
        finally:
            self._thread.is_searching = False
        with contextlib.suppress(Exception):  # a loader that cannot be told: `import yolov10_dysample` still works
            _register_after(spec.loader)
        return spec


def _register_after(loader) -> None:
    run = loader.exec_module

    def exec_module(module) -> None:
        run(module)
        if module.__name__ == PARSER_MODULE:
            with contextlib.suppress(AttributeError):
                del loader.exec_module
            _register()

    loader.exec_module = exec_module
