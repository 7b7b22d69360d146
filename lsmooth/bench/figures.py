"""Pictures of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsmooth.bench.run import COPY, Result

_COLOURS = {"torch": "#d1495b", "jax": "#2e7d6b", "tensorflow": "#e6952f", "numpy": "#4f6d9c"}


def draw(results: Sequence[Result], folder: Path, name: str) -> list[Path]:
    """Draw what the results hold: times beside the peers, memory, and scaling; return the files."""
    import matplotlib.pyplot as plt

    files = []
    for kind, figure in (
        ("speed", _speed(plt, [r for r in results if r.suite != "scaling" and len(r.seconds) > 1])),
        ("memory", _memory(plt, [r for r in results if r.peak_bytes])),
        ("scaling", _scaling(plt, [r for r in results if r.suite == "scaling"])),
    ):
        if figure is not None:
            path = folder / f"{name}-{kind}.png"
            figure.savefig(path, dpi=120, bbox_inches="tight")
            plt.close(figure)
            files.append(path)
    return files


def _label(result: Result) -> str:
    return f"{result.backend}, {' x '.join(map(str, result.size.values()))}"


def _peers(result: Result) -> list[str]:
    return [name for name in result.seconds if name not in ("lsmooth", COPY)]


def _speed(plt: Any, results: list[Result]) -> Any:
    """Bars: how many times faster than each peer, by work."""
    bars = [(result, peer) for result in results for peer in _peers(result)]
    if not bars:
        return None
    figure, ax = plt.subplots(figsize=(8.5, 0.5 + 0.24 * len(bars)))
    for place, (result, peer) in enumerate(bars):
        ratio = result.figure(peer) or 0.0
        ax.barh(place, ratio - 1.0, left=1.0, color=_COLOURS[result.backend.split(",")[0]], height=0.7)
        ax.annotate(f" {ratio:.2g} ", (ratio, place), va="center", ha="left" if ratio >= 1 else "right", fontsize=7)
    ax.set_yticks(range(len(bars)), [f"{r.work.split(', loss')[0]} · {_label(r)} · {p}" for r, p in bars], fontsize=7)
    ax.invert_yaxis()
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.margins(x=0.12, y=0.01)
    ax.set_xlabel("times faster than the peer (left of 1: slower)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def _memory(plt: Any, results: list[Result]) -> Any:
    """Bars: the peak of lsmooth beside each peer's."""
    if not results:
        return None
    contenders = sum(len(result.peak_bytes) for result in results)
    figure, ax = plt.subplots(figsize=(8.5, 0.5 + 0.22 * contenders))
    for place, result in enumerate(results):
        peaks = {name: peak / result.unit_bytes for name, peak in result.peak_bytes.items()}
        height = 0.8 / len(peaks)
        for shift, (name, peak) in enumerate(peaks.items()):
            colour = _COLOURS[result.backend.split(",")[0]] if name == "lsmooth" else "#c9c9c9"
            at = place - 0.4 + height * (shift + 0.5)
            ax.barh(at, peak, color=colour, height=height * 0.92)
            ax.annotate(f" {name} {peak:.2g}", (peak, at), va="center", fontsize=6)
    ax.set_yticks(range(len(results)), [f"{r.work.split(', loss')[0]} · {_label(r)}" for r in results], fontsize=7)
    ax.invert_yaxis()
    ax.margins(x=0.2, y=0.01)
    ax.set_xlabel("peak memory of one call, in units of the logits")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def _scaling(plt: Any, results: list[Result]) -> Any:
    """Lines: nanoseconds for each logit, over the classes and over the rows."""
    if not results:
        return None
    works = list(dict.fromkeys(result.work for result in results))
    figure, axes = plt.subplots(1, len(works), figsize=(5.5 * len(works), 4.2), sharey=True, squeeze=False)
    for ax, work in zip(axes[0], works, strict=True):
        varied = "classes" if work.startswith("over classes") else "rows"
        fixed = "rows" if varied == "classes" else "classes"
        mine = [result for result in results if result.work == work]
        styles: dict[str, int] = {}
        for backend in dict.fromkeys(result.backend for result in mine):
            line = [result for result in mine if result.backend == backend]
            sizes = [result.size[varied] for result in line]
            family = backend.split(",")[0]
            dashes = ("-", "--", ":", "-.")[styles.setdefault(family, 0) % 4]
            styles[family] += 1
            cost = [1e9 * r.seconds["lsmooth"].median / (r.size["rows"] * r.size["classes"]) for r in line]
            ax.plot(sizes, cost, dashes, color=_COLOURS[family], label=backend, linewidth=1.6)
        ax.set(xscale="log", yscale="log", xlabel=varied, title=f"{mine[0].size[fixed]} {fixed}")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("nanoseconds per logit, loss and gradient")
    axes[0][-1].legend(frameon=False, fontsize=8)
    return figure
