"""Calibrate a file of logits that is larger than the memory it may take.

    python -m benchmarks.large_calibration FOLDER [--gigabytes 10] [--classes 1000]

Writes a ``.npy`` file of float32 logits into FOLDER, which must have the room, chunk by chunk; runs
``lsmooth calibrate`` on it in a separate process; prints time and memory; deletes the file. The
labels are drawn from the softmax of the logits over 2.5, so 2.5 is the temperature to find.

Peak memory is the kernel's own record for the process (VmHWM of /proc), which counts mapped pages of
the file too. How much of it is anonymous and how much mapped is sampled 50 times a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TEMPERATURE = 2.5
_CHUNK = 2**22
_RUN = """
import sys
from lsmooth.cli import main
try:
    main()
finally:
    print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def write(folder: Path, rows: int, classes: int) -> tuple[Path, Path]:
    """Logits and labels of that many rows."""
    paths = folder / "logits.npy", folder / "labels.npy"
    rng = np.random.default_rng(0)
    step = max(1, _CHUNK // classes)
    with paths[0].open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, classes)})
        labels = np.empty(rows, np.int32)
        for start in range(0, rows, step):
            honest = 2 * rng.standard_normal((min(step, rows - start), classes), np.float32)
            running = np.cumsum(np.exp(honest), axis=1)
            drawn = rng.random((len(honest), 1), np.float32) * running[:, -1:]
            labels[start : start + step] = np.minimum((running < drawn).sum(axis=1), classes - 1)
            (TEMPERATURE * honest).tofile(file)
    np.save(paths[1], labels)
    return paths


def run(arguments: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds, and the most MiB of each kind, of the command."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", _RUN, *arguments], stdout=subprocess.PIPE, text=True)
    most = {"RssAnon": 0.0, "RssFile": 0.0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for name in most:
            if name in status:
                most[name] = max(most[name], int(status.split(f"{name}:")[1].split()[0]) / 1024)
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    output = process.communicate()[0]
    print(output)
    if process.returncode:
        sys.exit(process.returncode)
    return seconds, {"VmHWM": int(output.split("VmHWM:")[1].split()[0]) / 1024, **most}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the file may be written")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--classes", type=int, default=1000)
    chosen = parser.parse_args()
    rows = round(chosen.gigabytes * 1e9 / 4 / chosen.classes)
    free = shutil.disk_usage(chosen.folder).free
    if free < 1.1e9 * chosen.gigabytes + 1e9:
        sys.exit(f"{chosen.folder} has {free / 1e9:.1f} GB free, and {1.1 * chosen.gigabytes + 1:.1f} are needed.")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        begin = time.perf_counter()
        logits, labels = write(folder, rows, chosen.classes)
        print(f"{rows} x {chosen.classes} float32, {logits.stat().st_size / 1e9:.2f} GB", end=" ")
        print(f"written in {time.perf_counter() - begin:.0f} s")
        seconds, most = run(["calibrate", str(logits), str(labels), "--out", str(folder / "report")])
        report = json.loads((folder / "report" / "report.json").read_text())
    fit = report["calibrator"]
    print(f"T = {fit['temperature']:.6f} ± {fit['temperature_stderr']:.6f}, drawn at {TEMPERATURE}; {fit['status']}")
    print(f"{seconds:.0f} s, of which {report['seconds']:.0f} s the check, the fit and the measures")
    print("most MiB: " + ", ".join(f"{name} {value:.0f}" for name, value in most.items()))
    print(f"peak / file = {most['VmHWM'] * 2**20 / (1e9 * chosen.gigabytes):.3f}")


if __name__ == "__main__":
    main()
