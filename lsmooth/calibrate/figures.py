"""The report's pictures."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from lsmooth import plots
from lsmooth._report import new_figure, png
from lsmooth._validation import validate
from lsmooth.calibrate.run import Results
from lsmooth.calibration import ConvergenceWarning
from lsmooth.metrics._bins import BinSums
from lsmooth.plots import BLUE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = "before", "after"
MOST_CLASSES = 12
"""The most classes that are drawn, those with the most rows."""


@validate(False)  # the proxies of predictions do not sum to one
def figures(results: Results) -> dict[str, bytes]:
    """PNG files by name, without the suffix."""
    drawn = {"reliability": reliability, "corp": corp, "confidence": confidence, "risk_coverage": risk_coverage}
    pictures = {name: png(draw(results)) for name, draw in drawn.items()}
    if results.curve is not None:
        pictures["temperature"] = png(temperature(results, *results.curve))
    before, after = results.per_class
    if before is not None and after is not None and results.data.questions <= 1:
        pictures["classes"] = png(classes(results, before, after))
    return pictures


def reliability(results: Results) -> Figure:
    """Reliability diagrams of the evaluation part, before and after; of binary labels by P(class 1).

    A sample of all rows has a consistency band; the bins of larger files have none.
    """
    figure = new_figure(9, 4.6)
    kept = results.data.binary or results.rows["sample"] == results.rows["evaluation"]
    rows = [(sample.labels, sample.predictions, sample.weight) for sample in results.samples]
    how = {"n_bins": results.options.n_bins, "by": "positive" if results.data.binary else "confidence"}
    how["band"] = 0.95 if kept else None
    drawn = rows if kept else results.diagrams
    for ax, title, (labels, predictions, weight) in zip(figure.subplots(1, 2), TITLES, drawn, strict=True):
        plots.reliability_diagram(labels, predictions, sample_weight=weight, title=title, ax=ax, **how)
    return figure


def corp(results: Results) -> Figure:
    """Reliability diagrams without bins, before and after."""
    figure = new_figure(9, 4.6)
    for ax, title, sample in zip(figure.subplots(1, 2), TITLES, results.samples, strict=True):
        plots.corp_reliability_diagram(
            sample.labels,
            sample.stated,
            binary=sample.binary,
            sample_weight=sample.weight,
            band=0.95,
            title=title,
            ax=ax,
        )
    return figure


def confidence(results: Results) -> Figure:
    """Histograms of confidence, before and after."""
    figure = new_figure(9, 3.8)
    for ax, title, sample in zip(figure.subplots(1, 2, sharey=True), TITLES, results.samples, strict=True):
        plots.confidence_histogram(
            sample.labels,
            sample.predictions,
            n_bins=results.options.n_bins,
            sample_weight=sample.weight,
            title=title,
            ax=ax,
        )
    return figure


def risk_coverage(results: Results) -> Figure:
    """Risk-coverage curves, before and after."""
    figure = new_figure(6.6, 4.2)
    ax = figure.subplots()
    for sample, name, color in zip(results.samples, TITLES, (RED, BLUE), strict=True):
        plots.risk_coverage(
            sample.labels, sample.predictions, sample_weight=sample.weight, name=name, color=color, ax=ax
        )
    return figure


def temperature(results: Results, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Figure:
    """The likelihood of each temperature on a sample of the fit part."""
    figure = new_figure(6.6, 4.2)
    if not results.data.from_logits:
        with np.errstate(divide="ignore"):
            logits = np.log(np.maximum(logits.astype(np.float64), results.options.clip or 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report has this warning
        plots.temperature_curve(logits, labels, sample_weight=weight, ax=figure.subplots())
    return figure


def classes(results: Results, before: BinSums, after: BinSums) -> Figure:
    """Reliability diagrams of classes after calibration, of two classes before and after."""
    names = results.data.naming.names or [f"class {name}" for name in results.data.names]
    if len(names) == 2:
        drawn = [(before, 1, f"{names[1]}, before"), (after, 1, f"{names[1]}, after")]
    else:
        often = np.argsort(-after.correct.sum(axis=1), kind="stable")[:MOST_CLASSES]
        drawn = [(after, k, names[k]) for k in sorted(often.tolist())]
    columns = min(len(drawn), 3)
    rows = -(-len(drawn) // columns)
    figure = new_figure(max(2.4 * columns, 5.6), 2.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax, (table, k, name) in zip(axes, drawn, strict=False):
        filled = table.weight[k] > 0
        weight, p, frequency = (x[k][filled] for x in (table.weight, table.confidence, table.correct))
        p, frequency = np.tile(p / weight, 2), frequency / weight
        plots.classwise_reliability_diagrams(
            np.repeat([1, 0], filled.sum()),
            np.stack([1 - p, p], axis=1),
            sample_weight=np.concatenate([weight * frequency, weight * (1 - frequency)]),
            n_bins=results.options.n_bins,
            classes=[1],
            names=["", name if len(name) <= 24 else f"{name[:23]}…"],
            axes=[ax],
        )
        if ax is not axes[0] and (shown := ax.get_legend()) is not None:
            shown.remove()
    for ax in axes[len(drawn) :]:
        ax.set_axis_off()
    return figure
