"""Times what this repository promises to be quick, each as one JSON record: ``python -m scripts.timings startup`` what
the autoload adds to `import torch`, ``python -m scripts.timings suite`` the tests, ``python -m scripts.timings bench``
whether `make bench` finds the same ratios when it is run again, ``python -m scripts.timings requested`` the runtimes
that few environments have, in one that is made for them and removed.

It must compare like with like: with and without the autoload torch looks for entry points, and one side finds ours; the
tests run by `make`, in turn, on a machine that does nothing else. A run that fails is recorded as one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.formats import environment
from scripts.speed_docs import ratios
from yolov10_dysample.files import write_whole
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.settings import ON_REQUEST, RUNTIMES
from yolov10_dysample.study.statistics import quartiles

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("test", "quick")
PUBLISHED = "tests/reference/published_dysample.py"

CHILD = """
import importlib.metadata, json, sys, time
if {hidden}:
    found = importlib.metadata.entry_points
    def entry_points(**wanted):
        return [point for point in found(**wanted) if "dysample" not in point.name]
    importlib.metadata.entry_points = entry_points
start = time.perf_counter()
import torch
took = 1000 * (time.perf_counter() - start)
print(json.dumps([took, "_yolov10_dysample_autoload" in sys.modules]))
"""

DIRECT = """
import importlib.metadata, json, time
(point,) = importlib.metadata.entry_points(group="torch.backends", name="yolov10_dysample")
start = time.perf_counter()
point.load()()
print(json.dumps(1000 * (time.perf_counter() - start)))
"""


def child(code: str) -> Any:
    """What a fresh interpreter prints, parsed."""
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def summary(values: list[float]) -> dict[str, float]:
    return {**quartiles(values), "n": len(values)}


def startup(runs: int) -> dict[str, Any]:
    """Fresh processes in turn, with and without the entry point."""
    with_it: list[float] = []
    without: list[float] = []
    direct: list[float] = []
    about = environment_record()
    for run in range(runs + 1):  # the first pair warms the disk cache and is not counted
        pair = [child(CHILD.format(hidden=hidden)) for hidden in (False, True)]
        if [loaded for _, loaded in pair] != [True, False]:
            raise SystemExit("yolov10_dysample is not installed here with its entry point: `pip install .` first")
        print(f"\rpair {run} of {runs}", end="", file=sys.stderr, flush=True)
        if run:
            with_it.append(pair[0][0])
            without.append(pair[1][0])
            direct.append(child(DIRECT))
    print(file=sys.stderr)
    return {
        "what": "milliseconds, fresh processes in turn",
        **about,
        "import torch, with the autoload": summary(with_it),
        "import torch, without": summary(without),
        "difference of each pair": summary([a - b for a, b in zip(with_it, without, strict=True)]),
        "the entry point alone (load and call)": summary(direct),
    }


def suite(runs: int) -> dict[str, Any]:
    """`make test` and `make quick` in turn."""
    record = {"what": "seconds of wall time, the targets in turn", **environment_record()}
    found: dict[str, list[dict[str, Any]]] = {target: [] for target in TARGETS}
    for run in range(1, runs + 1):
        for target in TARGETS:
            print(f"make {target}, run {run} of {runs}", file=sys.stderr, flush=True)
            found[target].append(timed(target))
    for target, entries in found.items():
        record[f"make {target}"] = {"seconds": summary([entry["seconds"] for entry in entries]), "runs": entries}
    return record


def timed(target: str) -> dict[str, Any]:
    start = time.perf_counter()
    done = subprocess.run(["make", target], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = round(time.perf_counter() - start, 1)
    return {"seconds": seconds, "exit status": done.returncode, **outcomes(done.stdout)}


def bench(runs: int) -> dict[str, Any]:
    """`make bench` again and again; results/speed.json and the documents are those of its last run."""
    record = {"what": "DySample / stock, each the median of a run's rounds", **environment_record()}
    found = []
    for run in range(1, runs + 1):
        print(f"make bench, run {run} of {runs}", file=sys.stderr, flush=True)
        subprocess.run(["make", "bench"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        found.append(json.loads((ROOT / "results/speed.json").read_text()))
    record["runs"] = [{"date": run["date"], "machine": run["machine"], "ratios": ratios(run)} for run in found]
    return record


def requested(rounds: int) -> dict[str, Any]:
    """The benchmark of the runtimes that are measured on request only."""
    with tempfile.TemporaryDirectory(prefix="requested-") as folder:
        python = environment(Path(folder) / "venv")
        packages = [pip for name in ON_REQUEST for pip in RUNTIMES[name].modules.values()]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        words = [f"formats=torch,{','.join(ON_REQUEST)}", "skip=growth,operator,train", f"rounds={rounds}"]
        out = Path(folder) / "record.json"
        command = [python, "-m", "yolov10_dysample", "benchmark", *words, f"reference={PUBLISHED}", f"out={out}"]
        subprocess.run([*map(str, command)], cwd=ROOT, check=True)
        return {**json.loads(out.read_text()), "command": "python -m scripts.timings requested"}


def outcomes(output: str) -> dict[str, int]:
    """Number of tests by what became of them, from the last line that pytest printed.

    Example:
        >>> outcomes("1 failed before\\n=== 2 failed, 2234 passed, 656 warnings in 583.98s (0:09:43) ===\\nmake: Error")
        {'passed': 2234, 'failed': 2, 'skipped': 0, 'errors': 0}
    """
    ends = [line for line in output.splitlines() if re.search(r" in \d+\.\d+s\b", line)]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", ends[-1] if ends else "")}
    return {
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0),
        "skipped": counts.get("skipped", 0),
        "errors": counts.get("errors", 0) + counts.get("error", 0),
    }


#: What is timed, and how many times unless told.
SUBJECTS = {"startup": (startup, 20), "suite": (suite, 3), "bench": (bench, 3), "requested": (requested, 30)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SUBJECTS)
    parser.add_argument("--runs", type=int, help="pairs of fresh processes, runs of a command, or rounds (20, 3, 30)")
    parser.add_argument("--out", type=Path, help="default: results/WHAT.json")
    options = parser.parse_args()
    measure, runs = SUBJECTS[options.what]
    out = options.out or Path(f"results/{options.what}.json")
    record = measure(options.runs or runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, (json.dumps(record, indent=2) + "\n").encode())
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
