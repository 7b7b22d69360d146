"""Small real data sets, split once, the same way on every backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

TRAIN_FRACTION = {"digits": 0.1, "breast_cancer": 0.3, "wine": 0.3}
"""The fraction of training rows. Networks trained on more digits need no calibration."""
VALIDATION_FRACTION = 0.3
DATASETS = tuple(TRAIN_FRACTION)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Data:
    """Rows and labels of the three parts.

    Attributes:
        name: for the report.
        inputs: by part, (rows, features) float32, standardised by the training part.
        labels: by part, (rows,) int32, 0..classes-1.
        classes: the classes' names.
    """

    name: str
    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]


def load_data(dataset: str = "digits", file: Path | None = None) -> Data:
    """One of scikit-learn's shipped data sets, or an ``.npz`` file, shuffled and split.

    Args:
        dataset: one of `DATASETS`.
        file: if given, read instead: arrays ``x`` (rows, ...) of numbers and ``y`` (rows,) of
            integer labels.

    Returns:
        The parts: ``TRAIN_FRACTION`` of the rows (0.3 of a file's), `VALIDATION_FRACTION`, the rest.

    Raises:
        ValueError: if the file has wrong contents or too few rows.
        ImportError: if scikit-learn is needed and missing.

    Examples:
        >>> data = load_data("wine")
        >>> {part: len(labels) for part, labels in data.labels.items()}
        {'train': 53, 'validation': 53, 'test': 72}
    """
    x, y, classes = _from_sklearn(dataset) if file is None else _from_file(file)
    order = np.random.default_rng(0).permutation(len(x))
    train = int(len(x) * (TRAIN_FRACTION[dataset] if file is None else 0.3))
    validation = int(len(x) * VALIDATION_FRACTION)
    parts = dict(zip(SPLITS, np.split(order, [train, train + validation]), strict=True))

    mean, std = x[parts["train"]].mean(0), x[parts["train"]].std(0)
    # Pixels share a scale, since a pixel may be constant in training; columns of a table have their own.
    scale = std.mean() if dataset == "digits" and file is None else np.where(std > 0, std, 1.0)
    inputs = ((x - mean) / scale).astype(np.float32)
    return Data(
        name=dataset if file is None else file.name,
        inputs={part: inputs[index] for part, index in parts.items()},
        labels={part: y[index] for part, index in parts.items()},
        classes=classes,
    )


def _from_sklearn(dataset: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {dataset!r}.")
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ImportError("The study's data come with scikit-learn: pip install 'lsmooth[study]'.") from error
    bunch = getattr(datasets, f"load_{dataset}")()
    return bunch.data, bunch.target.astype(np.int32), tuple(str(name) for name in bunch.target_names)


def _from_file(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if not file.is_file():
        raise ValueError(f"data must be an .npz file, got {file}, which is not there.")
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content if name in ("x", "y")}
            names = ", ".join(content) or "none"
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise ValueError(
            f"data must be an .npz file of plain arrays, which {file} is not; save it with numpy.savez."
        ) from error
    if len(arrays) < 2:
        raise ValueError(
            f"data must hold arrays x and y, got {names} in {file}; save it with numpy.savez(file, x=inputs, y=labels)."
        )
    x, y = arrays["x"], arrays["y"]
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise ValueError(f"data must hold x (rows, features) and y (rows,); got x {x.shape} and y {y.shape} in {file}.")
    if x.dtype.kind not in "fiub" or not np.isfinite(x).all():
        raise ValueError(f"x in {file} must hold finite numbers, got dtype {x.dtype}" + _first_infinite(x))
    if y.dtype.kind not in "iu":
        raise ValueError(f"y in {file} must hold integer labels, got dtype {y.dtype}; cast it with y.astype(int).")
    names, ids = np.unique(y, return_inverse=True)
    if len(names) < 2 or len(y) < 30:
        raise ValueError(f"data must hold at least 2 classes and 30 rows, got {len(names)} and {len(y)} in {file}.")
    return x.reshape(len(x), -1).astype(np.float64), ids.astype(np.int32), tuple(str(name) for name in names)


def _first_infinite(x: np.ndarray) -> str:
    if x.dtype.kind != "f":
        return "."
    row = int(np.argwhere(~np.isfinite(x))[0][0])
    return f" with NaN or infinity in row {row}; remove the row or fill it in."
