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
from lsmooth.plots import BLUE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = "before", "after"


@validate(False)  # the rows kept have stand-ins for their predictions, which do not sum to one
def figures(results: Results) -> dict[str, bytes]:
    """PNG files, by name without the ending."""
    drawn = {"reliability": reliability, "confidence": confidence, "risk_coverage": risk_coverage}
    pictures = {name: png(draw(results)) for name, draw in drawn.items()}
    if results.curve is not None and results.data.from_logits:
        pictures["temperature"] = png(temperature(results, *results.curve))
    return pictures


def reliability(results: Results) -> Figure:
    """Reliability diagrams of all rows of the evaluation part, before and after."""
    figure = new_figure(9, 4.6)
    for ax, title, (labels, predictions, weight) in zip(figure.subplots(1, 2), TITLES, results.diagrams, strict=True):
        plots.reliability_diagram(
            labels, predictions, sample_weight=weight, n_bins=results.options.n_bins, title=title, ax=ax
        )
    return figure


def confidence(results: Results) -> Figure:
    """How confidence is spread, before and after."""
    figure = new_figure(9, 3.8)
    for ax, title, sample in zip(figure.subplots(1, 2, sharey=True), TITLES, results.samples, strict=True):
        plots.confidence_histogram(sample.labels, sample.predictions, n_bins=results.options.n_bins, title=title, ax=ax)
    return figure


def risk_coverage(results: Results) -> Figure:
    """The error rate of the surest rows, before and after."""
    figure = new_figure(6.6, 4.2)
    ax = figure.subplots()
    for sample, name, color in zip(results.samples, TITLES, (RED, BLUE), strict=True):
        plots.risk_coverage(sample.labels, sample.predictions, name=name, color=color, ax=ax)
    return figure


def temperature(results: Results, logits: np.ndarray, labels: np.ndarray) -> Figure:
    """The likelihood of each temperature on the rows that were fitted on, or some of them."""
    figure = new_figure(6.6, 4.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says so already
        plots.temperature_curve(logits, labels, ax=figure.subplots())
    return figure
