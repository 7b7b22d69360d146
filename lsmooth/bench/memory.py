"""Peak memory of one call, in a process that does nothing else.

    python -m lsmooth.bench.memory SUITE ROW CONTENDER PLAN

is that process: it prints the bytes by which the call raised the peak of the resident set, or on an
accelerator the peak of the framework's allocator.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from lsmooth.bench import device
from lsmooth.bench.rows import Plan
from lsmooth.bench.suites import suite_rows

_STATUS = Path("/proc/self/status")


def can_measure(plan: Plan) -> bool:
    """Whether peaks can be measured: Linux reports those of a process, frameworks those of an accelerator."""
    return plan.device != device.CPU or _STATUS.exists()


def peak_bytes(suite: str, row: int, contender: str, plan: Plan) -> int:
    """The peak of memory during one call of a suite's row, minus the memory in use before it.

    Raises:
        RuntimeError: if the process that measures it fails; the message ends with its errors.
    """
    command = [sys.executable, "-m", "lsmooth.bench.memory", suite, str(row), contender, json.dumps(asdict(plan))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} in row {row} of the suite {suite} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def _main(suite: str, row: str, contender: str, plan: str) -> None:
    fields = json.loads(plan)
    measured = Plan(**fields | {"backends": tuple(fields["backends"])})
    chosen = list(suite_rows(suite, measured))[int(row)]
    call = chosen.contenders[contender]()
    if measured.device != device.CPU:
        print(device.peak_bytes(chosen.backend.split(",")[0], call))
        return
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _resident("VmRSS")
    call()
    print(max(0, _resident("VmHWM") - before))


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
