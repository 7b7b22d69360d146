"""Checks of the rows of a fit: errors name the first wrong row."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lsmooth.backends import Array, Backend


class RowChecks(NamedTuple):
    """The form of a fit's rows, and the errors of a block of them."""

    xp: Backend
    shape: tuple[int, ...]  # of the rows
    soft: bool
    binary: bool
    from_logits: bool
    weighted: bool
    ignoring: bool

    @property
    def name(self) -> str:
        """The name of the rows in messages."""
        return "logits" if self.from_logits else "predictions"

    def row(self, index: tuple[Any, ...], row: int) -> str:
        """The index of a block's row among all rows."""
        start, shape = [i.start if isinstance(i, slice) else i for i in index], self.shape
        if not shape:
            return "row ()"
        inner = np.unravel_index(row, shape[max(0, len(index) - 1) :])
        position = [*start[:-1], start[-1] + int(inner[0]), *(int(i) for i in inner[1:])]
        return f"row {position[0] if len(position) == 1 else tuple(position)}"

    def one_hot(self, index: tuple[Any, ...], dtype: str, labels: Array, weight: Array | None) -> None:
        """Raise unless labels of 0 and 1 in the shape of the logits are one-hot rows."""
        if self.binary:
            return
        xp = self.xp
        ones, total = (xp.sum(x, axis=-1) for x in (xp.cast(xp.equal(labels, 1), xp.dtype(labels)), labels))
        if "float" in dtype:
            wrong = xp.equal(ones, total) & (ones > 1)
        else:
            others = xp.sum(xp.cast(~(xp.equal(labels, 0) | xp.equal(labels, 1)), xp.dtype(labels)), axis=-1)
            wrong = ~(xp.equal(ones, 1) & xp.equal(others, 0))
        wrong = xp.to_numpy(wrong if weight is None else wrong & ~xp.equal(weight, 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            y = np.array2string(xp.to_numpy(labels)[row].astype(np.int64), threshold=8, edgeitems=3)
            raise ValueError(
                f"labels of 0 and 1 in the shape of the {self.name} must be one-hot rows, got {y} at "
                f"{self.row(index, row)}. If every element is a label of its own, give binary=True."
            )

    def improbable_label(self, index: tuple[Any, ...], improbable: Array, labels: Array) -> str:
        """The first label of probability 0, and its row."""
        row = int(np.argmax(self.xp.to_numpy(improbable)))
        y = self.xp.to_numpy(labels)[row]
        of = "mass on a class" if self.soft and not self.binary else f"class {np.ravel(y)[-1]:g}"
        return f"{of} of probability 0 at {self.row(index, row)}"

    def raise_first(
        self,
        index: tuple[Any, ...],
        valid: Array,
        logits: Array,
        labels: Array,
        weight: Array | None,
        probabilities: tuple[Array, Array] | None,
    ) -> None:
        """Raise the error of the first row that is not ``valid``.

        ``probabilities``: which rows are probabilities, and the given rows; None for logits.
        """
        xp = self.xp
        row = int(np.argmin(xp.to_numpy(valid)))
        z, y, where = xp.to_numpy(logits)[row], xp.to_numpy(labels)[row], f"at {self.row(index, row)}"
        given = self.weighted and np.isfinite(y).all()  # NaN in the labels makes the weight NaN too
        if weight is not None and given and not 0 <= xp.to_numpy(weight)[row] < math.inf:
            raise ValueError(
                f"sample_weight must be finite numbers of at least 0, got {xp.to_numpy(weight)[row]} {where}."
            )
        if probabilities is not None and not xp.to_numpy(probabilities[0])[row]:
            _raise_improper(xp.to_numpy(probabilities[1])[row], where)
        if np.isnan(z).any() or z.max() == math.inf or z.max() == -math.inf:
            raise ValueError(
                f"{self.name} must hold no NaN, no infinity and a class that is not masked; see {where[3:]}."
            )
        if self.binary and self.soft:
            raise ValueError(f"labels must be in [0, 1] where binary=True, got {y[1]} {where}.")
        if self.soft:
            raise ValueError(f"labels must be distributions, whose entries are at least 0; see {where[3:]}.")
        if not 0 <= y < len(z):
            hint = "" if self.ignoring else " Rows to leave out: ignore_index, or a sample_weight of 0."
            if len(z) == 1:
                hint = " If every element is a label of its own, give binary=True, and labels in the logits' shape."
            raise ValueError(f"labels must be class ids in 0..{len(z) - 1}, got {y} {where}.{hint}")
        raise ValueError(f"{self.name} and labels must be numbers; see {where[3:]}.")


def _raise_improper(p: np.ndarray, where: str) -> None:
    off = p[np.argmax(np.maximum(-p, p - 1.0))]
    if off < 0 or off > 1:
        raise ValueError(
            f"predictions must be probabilities in [0, 1], got {off:g} {where}; if they are logits, give "
            "from_logits=True."
        )
    raise ValueError(f"predictions must sum to 1 over the classes, got a sum of {p.sum():g} {where}.")
