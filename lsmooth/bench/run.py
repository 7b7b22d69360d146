"""Run suites, and save and load their results."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lsmooth.bench import device, memory
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites import suite_rows
from lsmooth.bench.timing import Timing, measure, measure_self_timed

COPY = "copy"
_PACKAGES = (
    "lsmooth",
    "numpy",
    "torch",
    "jax",
    "tensorflow",
    "tensorflow-cpu",
    "triton",
    "liger-kernel",
    "cut-cross-entropy",
    "keras",
    "optax",
    "scikit-learn",
    "netcal",
    "torchmetrics",
    "probmetrics",
    "uncertainty-calibration",
)


@dataclass(frozen=True)
class Result:
    """A measured row: for each contender its seconds, its peak bytes, and the number of programs it compiled."""

    suite: str
    work: str
    backend: str
    size: dict[str, int]
    seconds: dict[str, Timing]
    peak_bytes: dict[str, int] = field(default_factory=dict)
    unit_bytes: int = 0
    bars: dict[str, float] = field(default_factory=dict)
    compilations: dict[str, int] = field(default_factory=dict)

    def median(self, name: str) -> float | None:
        """The median seconds of a contender, or of the copy; None if there is none."""
        return self.seconds[name].median if name in self.seconds else None

    def figure(self, bar: str) -> float | None:
        """The figure that a bar limits; None if it was not measured."""
        ours = self.seconds["lsmooth"].median
        if bar == "seconds":
            return ours
        if bar == "memory":
            return self.peak_bytes["lsmooth"] / self.unit_bytes if "lsmooth" in self.peak_bytes else None
        if bar == "copies":
            copy = self.median(COPY)
            return None if copy is None else ours / copy
        peer = self.median(bar)
        return None if peer is None else peer / ours

    def reached(self, bar: str) -> bool | None:
        """Whether lsmooth reaches the bar; None if it was not measured."""
        figure = self.figure(bar)
        if figure is None:
            return None
        return figure <= self.bars[bar] if bar in ("seconds", "memory", "copies") else figure >= self.bars[bar]


def run_row(suite: str, index: int, row: Row, plan: Plan, with_memory: bool) -> Result:
    """Measure one row: the times in this process, the peak memory in one process for each contender."""
    calls = {name: setup() for name, setup in row.contenders.items()}
    if row.copy is not None:
        calls[COPY] = row.copy()
    seconds = measure_self_timed(calls, row.runs) if row.self_timed else measure(calls)
    compilations = {name: call.compilations for name, call in calls.items() if hasattr(call, "compilations")}  # pyright: ignore
    del calls
    gc.collect()
    peaks = {}
    if with_memory and row.unit_bytes and memory.can_measure(plan):
        peaks = {name: memory.peak_bytes(suite, index, name, plan) for name in row.contenders}
    return Result(
        suite, row.work, row.backend, dict(row.size), seconds, peaks, row.unit_bytes, dict(row.bars), compilations
    )


def run_suites(
    suites: Iterable[str], plan: Plan, *, with_memory: bool = True, progress: Callable[[str], Any] = lambda text: None
) -> list[Result]:
    """Run suites in order; ``progress`` is called with the name of the next row."""
    device.use(plan.device)
    results = []
    for suite in suites:
        for index, row in enumerate(suite_rows(suite, plan)):
            size = " x ".join(map(str, row.size.values()))
            progress(f"{row.work}, {row.backend} {size}")
            results.append(run_row(suite, index, row, plan, with_memory))
    return results


def describe_machine(kind: str = device.CPU, accelerator: str | None = None) -> dict[str, Any]:
    """The processor, its cores, the versions of packages, and the accelerator if there is one."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        **({"device": kind, "accelerator": accelerator} if accelerator else {}),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def save(results: Iterable[Result], machine: dict[str, Any], path: Path) -> None:
    """Write the results as JSON; results of other suites in the file are kept."""
    results = list(results)
    kept = []
    if path.exists():
        again = {result.suite for result in results}
        kept = [result for result in load(path)[1] if result.suite not in again]
    rows = [
        asdict(result) | {"seconds": {k: v._asdict() for k, v in result.seconds.items()}} for result in kept + results
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "results": rows}, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Read what `save` wrote."""
    content = json.loads(path.read_text())
    rows = [
        Result(**row | {"seconds": {name: Timing(**timing) for name, timing in row["seconds"].items()}})
        for row in content["results"]
    ]
    return content["machine"], rows
