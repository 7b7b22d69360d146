"""Conversion of ragged arguments to flat values, and of results back to ragged tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# Options with a value per row, and arrays with rows; the other options are per class.
OPTIONS_OF_ROWS = ("sample_weight", "mask", "label_smoothing", "temperature")
ROWS = ("labels", "y_true", "teacher_logits", "teacher_hidden", "teacher_indices", "teacher_log_probs")


class RaggedRows:
    """The ragged arguments of a call, which share their rows.

    Args:
        arguments: all arguments of the call, by name.
        logits: the name of the argument that has the classes along its last axis.
        elementwise: whether each element is a row.

    Raises:
        TypeError: if the classes are the ragged axis, or one of labels and logits is ragged and the other is not.
        ValueError: if the rows differ.
    """

    def __init__(self, arguments: dict[str, Any], logits: str, elementwise: bool):
        self.arguments, self.name = arguments, logits
        self.ragged = {name: x for name, x in arguments.items() if isinstance(x, tf.RaggedTensor)}
        if logits not in self.ragged:
            raise _not_ragged(logits, next(iter(self.ragged)))
        self.logits = self.ragged[logits]
        if arguments.get("axis", -1) not in (-1, len(self.logits.shape) - 1):
            raise ValueError(f"axis must be -1, the last, for ragged {logits}; got {arguments['axis']!r}.")
        if not elementwise:
            self.logits = self.ragged[logits] = _with_dense_classes(logits, self.logits)
            for name, x in self.ragged.items():
                if _ragged_rank(x) > _ragged_rank(self.logits):  # distributions
                    self.ragged[name] = _with_dense_classes(name, x)

    def flat_arguments(self) -> dict[str, Any]:
        """The flat values of the arguments that have rows."""
        others = [(name, x) for name, x in self.ragged.items() if name != self.name]
        with tf.control_dependencies([check for name, x in others for check in self._checks_of_rows(name, x)]):
            flat = {name: tf.identity(getattr(x, "flat_values", x)) for name, x in self.ragged.items()}
        if _ragged_rank(self.logits) == 0:
            return flat
        for name, x in self.arguments.items():
            if name in flat or (getattr(x, "shape", ()) == () and not isinstance(x, list | tuple)):
                continue
            if name in OPTIONS_OF_ROWS:
                flat[name] = self._option_of_rows(name, tf.convert_to_tensor(x))
            elif name in ROWS:
                raise _not_ragged(name, self.name)
        return flat

    def _checks_of_rows(self, name: str, other: Any) -> list[Any]:
        """Raise if known row splits differ; return assertions for unknown ones."""
        ranks = _ragged_rank(other), _ragged_rank(self.logits)
        if ranks[0] != ranks[1]:
            raise ValueError(
                f"{name} and {self.name} must be ragged along the same axes; got {name} with ragged_rank {ranks[0]} "
                f"and {self.name} with ragged_rank {ranks[1]}."
            )
        checks = []
        for splits in zip(*(getattr(x, "nested_row_splits", ()) for x in (self.logits, other)), strict=True):
            ours, theirs = (tf.cast(x, tf.int64) for x in splits)
            message = f"{name} and {self.name} must have the same row lengths"
            if not (hasattr(ours, "numpy") and hasattr(theirs, "numpy")):
                checks.append(tf.debugging.assert_equal(ours, theirs, message))
            elif not np.array_equal(ours.numpy(), theirs.numpy()):
                raise ValueError(
                    f"{message}; got {name} with row splits {theirs.numpy().tolist()} "
                    f"and {self.name} with row splits {ours.numpy().tolist()}."
                )
        return [check for check in checks if check is not None]

    def _option_of_rows(self, name: str, x: Any) -> Any:
        """Repeat one value per entry of the batch, (batch,) or (batch, 1, ...), for the rows of each entry."""
        if x.shape.rank == 0:
            return x
        if x.shape.rank is None or any(size != 1 for size in x.shape[1:]):
            raise TypeError(
                f"{name} beside ragged {self.name} must be ragged too, or hold one value for each entry of the batch, "
                f"(batch,), or be one number; got shape {x.shape}."
            )
        entries, size = self.logits.nrows(), tf.shape(x, self.logits.row_splits.dtype)[0]
        message = f"{name} must hold one value for each of the entries of {self.name}"
        if not (hasattr(entries, "numpy") and hasattr(size, "numpy")):
            with tf.control_dependencies([tf.debugging.assert_equal(size, entries, message)]):
                x = tf.identity(x)
        elif int(size) != int(entries):
            raise ValueError(f"{message}, {int(entries)}; got shape {x.shape}.")
        x, ragged = tf.reshape(x, [-1]), self.logits
        while isinstance(ragged, tf.RaggedTensor):
            x, ragged = tf.gather(x, ragged.value_rowids()), ragged.values
        return x

    def put_back(self, losses: Any) -> Any:
        """Losses of the flat rows as a ragged tensor; scalars unchanged, and tuples item by item."""
        if isinstance(losses, tuple):
            parts = [self.put_back(x) for x in losses]
            return type(losses)(*parts) if hasattr(losses, "_fields") else tuple(parts)
        if losses.shape.rank == 0 or _ragged_rank(self.logits) == 0:
            return losses
        return self.logits.with_flat_values(losses)


def _ragged_rank(x: Any) -> int:
    return getattr(x, "ragged_rank", 0)


def _with_dense_classes(name: str, x: Any) -> Any:
    """``x`` with a dense last axis, which ``tf.ragged.constant`` makes ragged even if all lengths are equal."""
    if not isinstance(x, tf.RaggedTensor) or x.flat_values.shape.rank != 1:
        return x
    if isinstance(x.values, tf.RaggedTensor):
        return x.with_values(_with_dense_classes(name, x.values))
    size = x.shape[-1]
    if size is None and hasattr(x.row_splits, "numpy"):
        lengths = np.unique(np.diff(x.row_splits.numpy()))
        size = int(lengths[0]) if len(lengths) == 1 else None
    if size is None:
        raise TypeError(
            f"{name} is a tf.RaggedTensor whose last axis, the classes, is ragged: rows with different numbers of "
            f"classes are no batch. Mask classes with -inf instead, e.g. in {name}.to_tensor(default_value=-np.inf), "
            "or make the tensor with ragged_rank=1."
        )
    return tf.reshape(x.values, [-1, size])


def _not_ragged(name: str, other: str) -> TypeError:
    return TypeError(
        f"{name} must be a tf.RaggedTensor, as {other} is: for example tf.RaggedTensor.from_tensor({name}, "
        f"lengths={other}.row_lengths()). Or pass the flat_values of both."
    )
