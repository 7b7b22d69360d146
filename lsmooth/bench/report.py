"""The results as a table for readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lsmooth.bench.device import CUDA
from lsmooth.bench.rows import Plan
from lsmooth.bench.run import COPY, Result
from lsmooth.bench.suites import suite_rows

# Peaks of smaller units are shown in MiB, since they have a floor of a few MiB.
LEAST_UNIT = 2**22
# The suites whose rows are listed as not measured on a GPU.
_ON_GPU = ("loss", "distillation", "linear")
_HOW_ON_GPU = """\
`lsmooth bench --device cuda` measures these on a GPU. There the cross-entropy, the forward and the reverse KL of
PyTorch's tensors, linear heads' among them, are lsmooth's Triton kernels, whose numbers the tests hold to float64 under
Triton's interpreter; all others are the framework's operations, which XLA compiles in JAX and TensorFlow."""


def markdown(machine: dict[str, Any], results: Sequence[Result], notes: str = "") -> str:
    """The whole report: the machine, how to read it, a table for each kind of work, the rows not measured, notes."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    accelerator = machine.get("accelerator")
    memory = "the accelerator's memory" if accelerator else "the resident memory of a process that does nothing else"
    parts = [
        f"# Benchmarks: {f'{accelerator}, ' if accelerator else ''}{machine['processor']}, {machine['cores']} cores",
        f"Python {machine['python']}, {machine['system']}; {versions}. "
        + (f"Measured on {accelerator}." if accelerator else "No accelerator took part."),
        "Every line was measured in one process, the contenders taking turns; times are medians. "
        "*Copies* are times of a plain copy of the logits (JAX: of the jitted `x * 2`). *Faster* is a peer's "
        f"time over lsmooth's: below 1, lsmooth is the slower one. *Peak* is what one call adds to {memory}, "
        "in units of the logits (or of the input); below 2^20 logits in MiB, most of which is code that is loaded. "
        "A bar is what lsmooth holds itself to; one that is missed is in bold.",
    ]
    for work in dict.fromkeys(result.work for result in results):
        rows = [result for result in results if result.work == work]
        parts += [f"## {work[0].upper()}{work[1:]}", table(rows)]
    missing = not_measured(results if accelerator else ())
    if missing and machine.get("device", CUDA) == CUDA:
        parts += ["## On a GPU: not measured", _HOW_ON_GPU, missing]
    return "\n\n".join([*parts, notes.strip()]).strip() + "\n"


def not_measured(results: Sequence[Result]) -> str:
    """A table of the rows that are not measured on a GPU, each work at its first size; empty if there are none."""
    measured = {(r.work, r.backend, tuple(r.size.items())): r.seconds for r in results}
    plan = Plan(("torch", "jax", "tensorflow"), device=CUDA, listing=True)
    lines: dict[tuple[str, str], str] = {}
    for row in (row for suite in _ON_GPU for row in suite_rows(suite, plan)):
        seconds = measured.get((row.work, row.backend, tuple(row.size.items())), {})
        missing = [name for name in row.contenders if name not in seconds]
        size = " x ".join(map(str, row.size.values()))
        line = f"| {row.work} | {row.backend} | {size} | {'; '.join(missing)} | not measured |" if missing else ""
        lines.setdefault((row.work, row.backend), line)
    if not any(lines.values()):
        return ""
    return "\n".join(
        ["| work | backend | size | contenders | |", "|---|---|---|---|---|", *filter(None, lines.values())]
    )


def table(results: Iterable[Result]) -> str:
    """One table: a line for each row and peer."""
    results = list(results)
    compiling = any(result.compilations for result in results)
    last = ["compiled, lsmooth", "compiled, peer"] if compiling else ["peak, lsmooth", "peak, peer"]
    lines = [
        f"| backend | size | lsmooth | copies | peer | faster | {' | '.join(last)} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        peers = [name for name in result.seconds if name not in ("lsmooth", COPY)]
        size = " x ".join(map(str, result.size.values()))
        first = [result.backend, size, _seconds(result), _figure(result, "copies")]
        peak = _figure(result, "memory") if result.unit_bytes >= LEAST_UNIT else _peak(result, "lsmooth")
        for peer in peers or [""]:
            last = [peak, _peak(result, peer)]
            if compiling:
                last = [str(result.compilations.get(name, "")) for name in ("lsmooth", peer)]
            cells = [*first, peer, _figure(result, peer) if peer else "", *last]
            lines.append(f"| {' | '.join(cells)} |")
            first, peak = ["", "", "", ""], ""
    return "\n".join(lines)


def _seconds(result: Result) -> str:
    text = duration(result.seconds["lsmooth"].median)
    if "seconds" not in result.bars:
        return text
    return _with_bar(text, f"≤ {duration(result.bars['seconds'])}", result.reached("seconds"))


def _figure(result: Result, bar: str) -> str:
    figure = result.figure(bar)
    if figure is None:
        return ""
    text = f"{figure:.3g}"
    if bar not in result.bars:
        return text
    sign = "≤" if bar in ("copies", "memory") else "≥"
    return _with_bar(text, f"{sign} {result.bars[bar]:.3g}", result.reached(bar))


def _with_bar(text: str, bar: str, reached: bool | None) -> str:
    return f"{text} ({bar})" if reached else f"**{text}** ({bar})"


def _peak(result: Result, peer: str) -> str:
    if peer not in result.peak_bytes:
        return ""
    peak = result.peak_bytes[peer]
    return f"{peak / result.unit_bytes:.3g}" if result.unit_bytes >= LEAST_UNIT else f"{peak / 2**20:.3g} MiB"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
