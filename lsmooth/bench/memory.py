"""Peak memory of one call, in a process that does nothing else.

    python -m lsmooth.bench.memory SUITE ROW CONTENDER PLAN

is that process: it prints the bytes by which the call raised the resident set at its peak, or on an
accelerator the memory that the framework has taken there.
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
    """Whether peaks can be measured: for a process by Linux, for an accelerator by its framework."""
    return plan.device != device.CPU or _STATUS.exists()


def peak_bytes(suite: str, row: int, contender: str, plan: Plan) -> int:
    """The peak of one call of a suite's row over what was taken before it.

    Raises:
        RuntimeError: if the process that measures it fails, with what it said.
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
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _resident("VmRSS")
    call()
    print(max(0, _resident("VmHWM") - before))


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
