"""The report's pictures, drawn without pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lsmooth import plots
from lsmooth._report import new_figure, png
from lsmooth.plots import BLUE, GREY, RED
from lsmooth.study.findings import best_smoothing
from lsmooth.study.run import Results, nearest
from lsmooth.study.statistics import mean, stderr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures(results: Results) -> dict[str, bytes]:
    """PNG files by name, without the suffix."""
    drawn = dict(PICTURES)
    if not any(results.projections.values()):  # two classes have no plane
        del drawn["projection"]
    return {name: png(draw(results)) for name, draw in drawn.items()}


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
    shown = list(dict.fromkeys([alphas[0], nearest(alphas, 0.05), best_smoothing(results)]))
    figure = new_figure(9, 4.6 * len(shown))
    labels = np.tile(results.data.labels["test"], len(results.plan.seeds))
    for alpha, (left, right) in zip(shown, figure.subplots(len(shown), 2, squeeze=False), strict=True):
        name = f"Smoothing of {alpha:g}" if alpha else "Hard labels"
        nets = results.measured[alpha]
        raw = np.concatenate([net.logits for net in nets])
        scaled = np.concatenate([net.logits / net.scaler.temperature_ for net in nets])
        after = f"after temperature {mean(results.numbers(alpha, 'temperature')):.2f}"
        for ax, logits, title in ((left, raw, f"{name}, as trained"), (right, scaled, f"{name}, {after}")):
            plots.reliability_diagram(labels, logits, from_logits=True, n_bins=results.plan.n_bins, title=title, ax=ax)
    return figure


def projections(results: Results) -> Figure:
    """Activations of three classes: training and validation rows, without and with smoothing."""
    shown = {alpha: parts for alpha, parts in results.projections.items() if parts}
    figure = new_figure(9, 4.2 * len(shown))
    for row, (alpha, parts) in zip(figure.subplots(len(shown), 2, squeeze=False), shown.items(), strict=True):
        for ax, (part, shown_part) in zip(row, parts.items(), strict=True):
            points, labels, templates = shown_part
            name = f"Smoothing of {alpha:g}" if alpha else "Hard labels"
            title = f"{name}, {part}"
            plots.projection(points, labels, templates=templates, names=results.data.classes[:3], title=title, ax=ax)
    return figure


def distillation(results: Results) -> Figure:
    """The students' error over the mass of their targets on wrong classes."""
    figure = new_figure(9, 4.6)
    ax = figure.subplots()
    hard = results.plan.alphas[0]
    groups = (
        ("hard-label teachers, over T", lambda s: s.teacher == hard, BLUE, "T={:g}"),
        ("smoothed teachers, over their smoothing, T=1", lambda s: s.teacher not in (None, hard), RED, "{:g}"),
        ("no teacher, over the student's smoothing", lambda s: s.teacher is None, GREY, "{:g}"),
    )
    for label, belongs, color, note in groups:
        members = sorted(filter(belongs, results.students), key=lambda students: mean(students.gamma))
        gammas = [mean(students.gamma) for students in members]
        _line(ax, gammas, [100 * students.error for students in members], label, color)
        for gamma, students in zip(gammas, members, strict=True):
            value = students.teacher if students.teacher not in (None, hard) else students.setting
            point = (gamma, 100 * mean(students.error))
            offset = (5, -12 if color == GREY else 5)
            ax.annotate(note.format(value), point, offset, textcoords="offset points", fontsize="small", color=color)
    ax.set(xlabel="mass on wrong classes, gamma", ylabel="students' test error, %")
    _spread_small(ax, [mean(students.gamma) for students in results.students])
    ax.legend(frameon=False, fontsize="small")
    return figure


def information(results: Results) -> Figure:
    """Mutual information between the example and the logit difference, over training."""
    figure = new_figure(9, 3.8)
    ax = figure.subplots()
    training = results.plan.training
    steps = training.steps / training.rounds * np.arange(1, training.rounds + 1)
    for color, (alpha, values) in zip((BLUE, RED), results.information.items(), strict=False):
        _line(ax, steps, list(values.T), f"smoothing of {alpha:g}" if alpha else "hard labels", color)
    for height, name in ((np.log(2), "log 2: the class"), (np.log(results.examples), "log N: the example")):
        ax.axhline(height, color="black", linestyle=(0, (4, 3)), linewidth=1)
        ax.annotate(
            name, (steps[-1], height), (0, -3), textcoords="offset points", ha="right", va="top", fontsize="small"
        )
    ax.set(xlabel="step", ylabel="mutual information, nats", ylim=(0, 1.05 * np.log(results.examples)))
    ax.legend(frameon=False, loc="center right")
    return figure


def over_alpha(ax: Axes, results: Results, name: str, label: str, color: str, factor: float = 1.0) -> None:
    """A line through the means over seeds, with standard errors."""
    alphas = results.plan.alphas
    _line(ax, alphas, [factor * results.numbers(alpha, name) for alpha in alphas], label, color)
    ax.set_xlabel("label smoothing")
    _spread_small(ax, alphas)


def _spread_small(ax: Axes, x: Sequence[float]) -> None:
    """Draw x on a square-root scale, which spreads small values."""
    ax.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ticks = [tick for tick in (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0) if tick <= 1.2 * max(x)]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xlim(left=0)


def _line(ax: Axes, x: Sequence[float] | np.ndarray, values: list[np.ndarray], label: str, color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    errors = [np.nan_to_num(stderr(v)) for v in values]
    style = {"color": color, "marker": "o", "markersize": 5, "capsize": 3, "linewidth": 1.6}
    ax.errorbar(x, [mean(v) for v in values], errors, label=label, **style)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(color=GREY)


PICTURES = {
    "generalisation": generalisation,
    "reliability": reliability,
    "calibration": calibration,
    "projection": projections,
    "distillation": distillation,
    "information": information,
}
