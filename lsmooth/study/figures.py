"""The report's pictures, drawn without touching pyplot's state."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from lsmooth.plots import BLUE, GREY, RED, reliability_diagram
from lsmooth.study.findings import nearest
from lsmooth.study.run import Results
from lsmooth.study.statistics import mean, stderr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures(results: Results) -> dict[str, bytes]:
    """PNG files, by name without the ending."""
    return {name: png(draw(results)) for name, draw in _DRAW.items()}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes for the same picture."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, with room made for labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def generalisation(results: Results) -> Figure:
    """Test error and NLL over the amount of smoothing."""
    figure = new_figure(9, 3.6)
    for ax, name, label, factor in zip(
        figure.subplots(1, 2), ("error", "nll"), ("test error, %", "test NLL, nats"), (100, 1), strict=True
    ):
        over_alpha(ax, results, name, label, BLUE, factor)
        ax.set_ylabel(label)
    return figure


def calibration(results: Results) -> Figure:
    """ECE over the amount of smoothing, as trained and after a temperature."""
    figure = new_figure(9, 3.6)
    from matplotlib.ticker import NullLocator

    left, right = figure.subplots(1, 2)
    over_alpha(left, results, "ece", "as trained", RED)
    over_alpha(left, results, "ece_scaled", "after a temperature", BLUE)
    left.set(ylabel="test ECE", ylim=(0, None))
    left.legend(frameon=False)
    over_alpha(right, results, "temperature", "T", BLUE)
    right.axhline(1, color="black", linestyle=(0, (4, 3)), linewidth=1)
    right.set(ylabel="temperature fitted on validation", yscale="log")
    right.yaxis.set_minor_locator(NullLocator())
    right.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    return figure


def reliability(results: Results) -> Figure:
    """Reliability diagrams: hard and smoothed labels, as trained and after a temperature; all seeds together."""
    alphas = results.plan.alphas
    shown = list(dict.fromkeys([alphas[0], nearest(alphas, 0.05)]))
    figure = new_figure(9, 4.6 * len(shown))
    labels = np.tile(results.data.labels["test"], len(results.plan.seeds))
    for alpha, (left, right) in zip(shown, figure.subplots(len(shown), 2, squeeze=False), strict=True):
        name = f"Smoothing of {alpha:g}" if alpha else "Hard labels"
        nets = results.measured[alpha]
        raw = np.concatenate([net.logits for net in nets])
        scaled = np.concatenate([net.logits / net.scaler.temperature_ for net in nets])
        after = f"after temperature {mean(results.numbers(alpha, 'temperature')):.2f}"
        for ax, logits, title in ((left, raw, f"{name}, as trained"), (right, scaled, f"{name}, {after}")):
            reliability_diagram(labels, logits, from_logits=True, n_bins=results.plan.n_bins, title=title, ax=ax)
    return figure


def over_alpha(ax: Axes, results: Results, name: str, label: str, color: str, factor: float = 1.0) -> None:
    """A line through the means over seeds, with standard errors."""
    from matplotlib.ticker import MaxNLocator

    alphas = results.plan.alphas
    values = [factor * results.numbers(alpha, name) for alpha in alphas]
    style = {"color": color, "marker": "o", "markersize": 5, "capsize": 3, "linewidth": 1.6}
    ax.errorbar(alphas, [mean(v) for v in values], [np.nan_to_num(stderr(v)) for v in values], label=label, **style)
    ax.set_xlabel("label smoothing")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(color=GREY)


_DRAW = {"generalisation": generalisation, "reliability": reliability, "calibration": calibration}
