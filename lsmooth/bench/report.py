"""The results as a table for readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lsmooth.bench.run import COPY, Result


def markdown(machine: dict[str, Any], results: Sequence[Result]) -> str:
    """The whole report: the machine, a table for each kind of work, and how to read it."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        f"# Benchmarks: {machine['processor']}, {machine['cores']} cores",
        f"Python {machine['python']}, {machine['system']}; {versions}. No accelerator took part."
        if not machine.get("accelerator")
        else f"{machine['accelerator']}; Python {machine['python']}, {machine['system']}; {versions}.",
        "Every line was measured in one process, the contenders taking turns; times are medians. "
        "*Copies* are times of a plain copy of the logits (JAX: of the jitted `x * 2`). *Faster* is a peer's "
        "time over lsmooth's: below 1, lsmooth is the slower one. *Peak* is what one call adds to the resident "
        "memory of a process that does nothing else, in units of the logits (or of the input). "
        "A bar is what lsmooth holds itself to; one that is missed is in bold.",
    ]
    for work in dict.fromkeys(result.work for result in results):
        rows = [result for result in results if result.work == work]
        parts += [f"## {work[0].upper()}{work[1:]}", table(rows)]
    return "\n\n".join(parts) + "\n"


def table(results: Iterable[Result]) -> str:
    """One table: a line for each row and peer."""
    lines = [
        "| backend | size | lsmooth | copies | peer | faster | peak, lsmooth | peak, peer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        peers = [name for name in result.seconds if name not in ("lsmooth", COPY)]
        size = " x ".join(map(str, result.size.values()))
        first = [result.backend, size, _seconds(result), _figure(result, "copies")]
        peak = _figure(result, "memory")
        for peer in peers or [""]:
            cells = [*first, peer, _figure(result, peer) if peer else "", peak, _peak(result, peer)]
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
    return f"{result.peak_bytes[peer] / result.unit_bytes:.3g}" if peer in result.peak_bytes else ""


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
