"""Rewrite the README's table of speeds from the results of this machine.

python -m benchmarks.readme benchmarks/results/cpu-2-core.json benchmarks/results/cpu-1-thread.json
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lsmooth.bench.run import Result, load

README = Path(__file__).parent.parent / "README.md"
# The text between these comments is replaced.
MARKS = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->"


def table(results: list[Result]) -> str:
    """A line per task at its largest size, and at sizes slower than the bar, with the first of its peers."""
    shown: list[Result] = []
    largest: set[tuple[str, str]] = set()
    for result in results:
        if not result.bars or set(result.bars) == {"seconds"}:
            continue
        if (result.work, result.backend) not in largest or not all(result.reached(name) for name in result.bars):
            shown.append(result)
        largest.add((result.work, result.backend))
    lines = ["| work | backend | peer | times faster | copies | peak memory |", "|---|---|---|---|---|---|"]
    for result in shown:
        peer = next(name for name in result.seconds if name not in ("lsmooth", "copy"))
        size = " x ".join(map(str, result.size.values()))
        memory = result.figure("memory")
        peak = ""
        if memory is not None:
            peak = f"{memory:.2g}, peer {result.peak_bytes[peer] / result.unit_bytes:.2g}"
        work = result.work.split(", loss and ")[0]
        cells = (f"{work}, {size}", result.backend, peer, result.figure(peer), result.figure("copies"), peak)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(cell: str | float | None) -> str:
    return cell if isinstance(cell, str) else "" if cell is None else f"{cell:.2g}"


def main() -> None:
    """Replace the table in README.md."""
    results = [result for path in sys.argv[1:] for result in load(Path(path))[1]]
    start, end = map(re.escape, MARKS)
    text = README.read_text(encoding="utf-8")
    text, count = re.subn(f"({start}).*?({end})", lambda m: m[1] + table(results) + m[2], text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"README.md must hold {MARKS[0].strip()} and {MARKS[1]} once.")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
