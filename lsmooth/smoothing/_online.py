"""Targets learned from the model's correct predictions, updated every epoch."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import accumulate
from lsmooth.smoothing._structured import similarity_smooth_labels


class OnlineLabelSmoothing:
    """Online label smoothing (OLS): a class's target is the model's mean prediction for it when correct.

    ``q = alpha t + (1 - alpha) S_y``, with S_y the mean softmax over the rows of class y that the model classified
    correctly in the last epoch. In the first epoch S is uniform; a class without correct predictions keeps its
    previous S. Because the cross-entropy is linear in the target, a loss with q equals the paper's
    ``alpha CE(t) + (1 - alpha) CE(S_y)``.

    ``jax.jit`` and ``tf.function`` would compile S in as a constant. There, pass ``ols.targets`` as an argument and
    use ``similarity_smooth_labels(labels, 1 - alpha, similarity=targets)``.

    Args:
        num_classes: K, the number of classes.
        alpha: the weight of the label itself, in [0, 1].

    Attributes:
        targets: S, a NumPy array (classes, classes), float64, rows summing to one.

    Source: Zhang et al. 2021, "Delving Deep into Label Smoothing".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.smoothing import OnlineLabelSmoothing
        >>> ols = OnlineLabelSmoothing(3)
        >>> ols.update_state([0, 2], np.log([[0.8, 0.2, 1e-9], [0.6, 0.3, 0.1]]))
        >>> ols.next_epoch()
        >>> ols.smooth_labels([0, 1]).round(3)
        array([[0.9  , 0.1  , 0.   ],
               [0.167, 0.667, 0.167]])
    """

    def __init__(self, num_classes: int, *, alpha: float = 0.5):
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        alpha = check.check_range("alpha", alpha, 0.0, 1.0)
        self.num_classes = num_classes
        self.alpha = float(alpha)
        self.reset_state()

    def smooth_labels(self, labels: Array) -> Array:
        """Targets of this epoch: ``alpha t + (1 - alpha) S_y``.

        Args:
            labels: integer class ids of any shape; or floating distributions (..., classes).

        Returns:
            (..., classes), in the framework of the labels.
        """
        return similarity_smooth_labels(labels, 1.0 - self.alpha, similarity=self.targets)

    def update_state(self, labels: Array, logits: Array) -> None:
        """Add the softmax of the rows of a batch that are classified correctly. Call it outside ``jit``.

        Args:
            labels: integer class ids of any shape; ids outside 0..classes-1 are skipped.
            logits: floating point, in the shape of the labels with the classes appended.
        """
        xp = backend_of(labels=labels, logits=logits)
        logits = accumulate(xp, check.float_array(xp, "logits", logits))
        labels = check.class_ids(xp, xp.asarray(labels, like=logits))
        if not check.same_shape(xp.shape(logits), (*xp.shape(labels), self.num_classes)):
            raise ValueError(
                f"logits must have the labels' shape and {self.num_classes} classes, "
                f"{(*xp.shape(labels), self.num_classes)}; got {xp.shape(logits)}."
            )
        logits = xp.stop_gradient(xp.reshape(logits, (-1, self.num_classes)))
        labels = xp.reshape(labels, (-1,))
        p = xp.exp(logits - xp.logsumexp(logits, axis=-1)[..., None])
        correct = xp.cast(xp.cast(xp.argmax(logits, axis=-1), xp.dtype(labels)) == labels, xp.dtype(p))
        chosen = xp.one_hot(labels, self.num_classes, xp.dtype(p)) * correct[..., None]
        self._sums = self._sums + xp.to_numpy(xp.moveaxis(chosen, 0, 1) @ p)
        self._counts = self._counts + xp.to_numpy(xp.sum(chosen, axis=0))

    def next_epoch(self) -> None:
        """Update the targets from the predictions of this epoch, and start a new epoch."""
        seen = self._counts > 0
        self.targets = self.targets.copy()
        self.targets[seen] = self._sums[seen] / self._counts[seen, None]
        self._reset_sums()

    def reset_state(self) -> None:
        """Return to the first epoch."""
        self.targets = np.full((self.num_classes, self.num_classes), 1.0 / self.num_classes)
        self._reset_sums()

    def merge_state(self, *others: OnlineLabelSmoothing) -> Self:
        """Add the predictions of other objects in the same epoch, e.g. on other devices, and return this one."""
        for other in others:
            if other.num_classes != self.num_classes:
                raise ValueError(
                    f"others must have {self.num_classes} classes like this one, got one with {other.num_classes}."
                )
            self._sums = self._sums + other._sums
            self._counts = self._counts + other._counts
        return self

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"num_classes": self.num_classes, "alpha": self.alpha}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OnlineLabelSmoothing:
        """The object with the arguments that `get_config` returned, without its state."""
        return cls(**config)

    def get_state(self) -> dict[str, Any]:
        """The ``targets``, and the ``sums`` and ``counts`` of this epoch, as lists of numbers for JSON."""
        return {"targets": self.targets.tolist(), "sums": self._sums.tolist(), "counts": self._counts.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `get_state`; a ValueError if the number of classes differs."""
        targets = np.asarray(state["targets"], np.float64)
        if targets.shape != (self.num_classes, self.num_classes):
            raise ValueError(f"state must be of {self.num_classes} classes, got targets of shape {targets.shape}.")
        self.targets = targets
        self._sums = np.asarray(state["sums"], np.float64)
        self._counts = np.asarray(state["counts"], np.float64)

    def _reset_sums(self) -> None:
        self._sums = np.zeros((self.num_classes, self.num_classes))
        self._counts = np.zeros(self.num_classes)
