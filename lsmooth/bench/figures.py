"""Pictures of the results."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsmooth.bench.run import COPY, Result

# Colours that colour-blind readers can distinguish (Okabe and Ito, 2008).
_COLOURS = {"torch": "#d55e00", "jax": "#0072b2", "tensorflow": "#009e73", "numpy": "#555555"}
_MARKERS = {"torch": "o", "jax": "s", "tensorflow": "^", "numpy": "d"}
_PEER = "#c9c9c9"
_DASHES = ("-", "--", ":", "-.")


def draw(results: Sequence[Result], folder: Path, name: str) -> list[Path]:
    """Draw times beside the peers, memory, and scaling, as far as there are results; return the files."""
    import matplotlib.pyplot as plt

    others = [result for result in results if result.suite != "scaling"]
    files = []
    for kind, figure in (
        ("speed", _speed(plt, _by_work([r for r in others if _peers(r)]))),
        ("memory", _memory(plt, _by_work([r for r in others if r.peak_bytes]))),
        ("scaling", _scaling(plt, [r for r in results if r.suite == "scaling"])),
    ):
        path = folder / f"{name}-{kind}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # a picture of earlier results
        else:
            figure.savefig(path, dpi=120, bbox_inches="tight")
            plt.close(figure)
            files.append(path)
    return files


def _family(result: Result) -> str:
    return result.backend.split(",")[0]


def _label(result: Result) -> str:
    return f"{result.backend}, {' x '.join(map(str, result.size.values()))}"


def _peers(result: Result) -> list[str]:
    return [name for name in result.seconds if name not in ("lsmooth", COPY)]


def _by_work(results: Sequence[Result]) -> list[Result]:
    works = list(dict.fromkeys(result.work for result in results))
    return sorted(results, key=lambda result: works.index(result.work))


def _bars(plt: Any, results: Sequence[Result], heights: Sequence[float], title: str, label: str) -> Any:
    """Axes for horizontal bars under the name of each work, and the position of the first bar of each result."""
    places, place, headings = [], 0.0, {}
    for result, height in zip(results, heights, strict=True):
        if result.work not in headings:
            place += 1.4 if headings else 1.0
            headings[result.work] = place - 0.4
        places.append(place)
        place += height
    _, ax = plt.subplots(figsize=(6.5, 0.8 + 0.19 * place))
    sizes = {result.work: " x ".join(result.size) for result in results}
    for work, at in headings.items():
        text = work.split(", loss and ")[0] + (f" ({sizes[work]})" if sizes[work] else "")
        look = {"fontsize": 8, "weight": "bold", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.0}}
        ax.text(0.0, at, text, transform=ax.get_yaxis_transform(), va="center", **look)
    ax.set_ylim(place, 0.0)
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel(label, fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax, places


def _legend(plt: Any, ax: Any, results: Sequence[Result], *others: tuple[str, str]) -> None:
    families = [(family, _COLOURS[family]) for family in dict.fromkeys(map(_family, results))]
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in (*families, *others)]
    below = (0.5, -40.0 / ax.get_window_extent().height)
    ax.legend(handles=patches, loc="upper center", bbox_to_anchor=below, ncols=len(patches), frameon=False, fontsize=8)


def _speed(plt: Any, results: list[Result]) -> Any:
    """Bars: how many times faster than each peer, by work."""
    if not results:
        return None
    heights = [float(len(_peers(result))) for result in results]
    title = "loss and gradient: lsmooth beside the frameworks' own functions and other libraries"
    label = "times faster than the peer, a logarithmic scale (left of 1: slower)"
    ax, places = _bars(plt, results, heights, title, label)
    ticks, names = [], []
    for result, start in zip(results, places, strict=True):
        for place, peer in zip(itertools.count(start + 0.5), _peers(result)):
            ratio = result.figure(peer) or 0.0
            ax.barh(place, ratio - 1.0, left=1.0, color=_COLOURS[_family(result)], height=0.72)
            ax.annotate(f" {ratio:.2g} ", (ratio, place), va="center", ha="left" if ratio >= 1 else "right", fontsize=7)
            ticks.append(place)
            names.append(f"{_label(result)} · {peer}")
    ax.set_yticks(ticks, names, fontsize=7)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.margins(x=0.12)
    _legend(plt, ax, results)
    return ax.figure


def _memory(plt: Any, results: list[Result]) -> Any:
    """Bars: the peak of lsmooth beside each peer's."""
    if not results:
        return None
    heights = [len(result.peak_bytes) + 0.3 for result in results]
    title = "loss and gradient: the memory that one call adds at its peak"
    ax, places = _bars(plt, results, heights, title, "peak, in units of the logits")
    for result, start in zip(results, places, strict=True):
        for place, (name, peak) in zip(itertools.count(start + 0.5), result.peak_bytes.items()):
            size = peak / result.unit_bytes
            ours = name.startswith("lsmooth")
            ax.barh(place, size, color=_COLOURS[_family(result)] if ours else _PEER, height=0.86)
            ax.annotate(f" {size:.3g}  {name}", (size, place), va="center", fontsize=7)
    middles = [start + len(result.peak_bytes) / 2 for result, start in zip(results, places, strict=True)]
    ax.set_yticks(middles, [_label(result) for result in results], fontsize=7)
    ax.margins(x=0.2)
    _legend(plt, ax, results, ("a peer", _PEER))
    return ax.figure


def _scaling(plt: Any, results: list[Result]) -> Any:
    """Lines: time of a logit above, memory of a call below, over the classes and over the rows."""
    if not results:
        return None
    works = list(dict.fromkeys(result.work for result in results))
    count = 2 if any(result.peak_bytes for result in results) else 1
    shape = {"sharex": "col", "sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(count, len(works), figsize=(5.0 * len(works), 0.9 + 3.3 * count), **shape)
    for work, column in zip(works, axes.T, strict=True):
        mine = [result for result in results if result.work == work]
        varied, fixed = ("classes", "rows") if work.startswith("over classes") else ("rows", "classes")
        sizes = [result.size[varied] for result in mine]
        column[0].set_title(f"{min(sizes)} to {max(sizes)} {varied} by {mine[0].size[fixed]} {fixed}", fontsize=10)
        column[-1].set_xlabel(varied)
        for backend, style in _styles(mine).items():
            line = [result for result in mine if result.backend == backend]
            _lines(column, line, varied, style)
        if count == 2:
            logits = sorted({(result.size[varied], result.unit_bytes / 2**20) for result in mine})
            column[1].plot(*zip(*logits, strict=True), color="black", linewidth=0.8, label="the logits")
    axes[0][0].set_ylabel("nanoseconds for each logit")
    if count == 2:
        axes[1][0].set_ylabel("peak memory that a call adds, MiB")
    for ax in axes.flat:
        ax.set(xscale="log", yscale="log")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    entries = [entry for ax in axes[:, 0] for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle("lsmooth's smoothed cross-entropy and its gradient: time and memory by size", fontsize=11)
    return figure


def _lines(column: Any, line: list[Result], varied: str, style: dict[str, Any]) -> None:
    """One backend's line in the picture of time, with the copy beside it, and in that of memory."""
    sizes, backend = [result.size[varied] for result in line], line[0].backend
    column[0].plot(sizes, [_nanoseconds(result, "lsmooth") for result in line], label=backend, **style)
    if backend == _family(line[0]) and all(COPY in result.seconds for result in line):
        faint = {"color": style["color"], "alpha": 0.35, "linewidth": 3.0, "label": f"{backend}, a copy"}
        column[0].plot(sizes, [_nanoseconds(result, COPY) for result in line], **faint)
    if all(result.peak_bytes for result in line):
        column[-1].plot(sizes, [result.peak_bytes["lsmooth"] / 2**20 for result in line], **style)


def _styles(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """A line for each backend: colour and marker of the framework, dashes of its mode."""
    modes: dict[str, int] = {}
    styles = {}
    for backend, family in {result.backend: _family(result) for result in results}.items():
        dashes = _DASHES[modes.setdefault(family, 0) % len(_DASHES)]
        modes[family] += 1
        look = {"color": _COLOURS[family], "marker": _MARKERS[family], "linestyle": dashes}
        styles[backend] = look | {"linewidth": 1.6, "markersize": 4}
    return styles


def _nanoseconds(result: Result, name: str) -> float:
    return 1e9 * result.seconds[name].median / (result.size["rows"] * result.size["classes"])
