"""Metrics in float64 NumPy, written as their definitions read: loops over rows and bins."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def bins_of(confidence: np.ndarray, correct: np.ndarray, weight: np.ndarray, n_bins: int) -> list[tuple[float, ...]]:
    """(weight, confidence, accuracy) of every bin (lo, hi], the first one with 0; edges in the confidence's dtype."""
    edges = (np.arange(n_bins + 1) / n_bins).astype(confidence.dtype)
    table = []
    for b in range(n_bins):
        rows = (confidence > edges[b]) & (confidence <= edges[b + 1]) | (b == 0) & (confidence == 0)
        w = weight[rows].astype(np.float64)
        if w.sum() == 0:
            table.append((0.0, np.nan, np.nan))
        else:
            table.append(
                (
                    w.sum(),
                    np.average(confidence[rows].astype(np.float64), weights=w),
                    np.average(correct[rows], weights=w),
                )
            )
    return table


def error_of_bins(table: list[tuple[float, ...]], norm: str) -> float:
    filled = np.array([row for row in table if row[0] > 0]).reshape(-1, 3)
    if not len(filled):
        return 0.0
    share, gap = filled[:, 0] / filled[:, 0].sum(), np.abs(filled[:, 2] - filled[:, 1])
    return {"l1": (share * gap).sum(), "l2": np.sqrt((share * gap**2).sum()), "max": gap.max()}[norm]


def top_label(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return probabilities.max(axis=-1), (probabilities.argmax(axis=-1) == labels).astype(np.float64)


def expected_calibration_error(labels, probabilities, n_bins=15, norm="l1", weight=None) -> float:
    weight = np.ones(len(labels)) if weight is None else weight
    return error_of_bins(bins_of(*top_label(labels, probabilities), weight, n_bins), norm)


def equal_mass_bins(confidence, correct, weight, n_bins: int) -> list[tuple[float, ...]]:
    """Bin b holds the values with a fraction of smaller ones in [b / n, (b + 1) / n)."""
    table = np.zeros((n_bins, 3))
    for value in np.unique(confidence):
        rows = confidence == value
        b = min(int(weight[confidence < value].sum() * n_bins / weight.sum()), n_bins - 1)
        table[b] += (weight[rows].sum(), (weight * confidence)[rows].sum(), (weight * correct)[rows].sum())
    return [(w, c / w if w else np.nan, a / w if w else np.nan) for w, c, a in table]


def classwise_calibration_error(labels, p, n_bins=15, norm="l1", weight=None, equal_mass=False) -> float:
    weight = np.ones(len(labels)) if weight is None else weight
    bins = equal_mass_bins if equal_mass else bins_of
    errors = np.array(
        [error_of_bins(bins(p[:, k], (labels == k).astype(float), weight, n_bins), norm) for k in range(p.shape[1])]
    )
    return {"l1": errors.mean(), "l2": np.sqrt((errors**2).mean()), "max": errors.max()}[norm]
