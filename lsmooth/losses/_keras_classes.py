"""Keras' cross-entropies as objects: its arguments, defaults and configs, for the tensors of any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from lsmooth import _keras_settings as keras_settings
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.losses import _keras_functions as keras_functions
from lsmooth.losses._keras_arrays import row_labels
from lsmooth.losses._loss import Loss, squeeze_or_expand_to_same_rank


class _FunctionLoss(Loss):
    """A function as a loss; its ``_options`` are attributes."""

    _function: ClassVar[Callable[..., Array]]
    _options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str | None, reduction: str | None, dtype: Any, *values: Any):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for option, value in zip(self._options, values, strict=True):
            setattr(self, option, keras_settings.checked(option, value))

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The losses before weights and reduction, as the function of the same name returns them."""
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        return type(self)._function(y_true, y_pred, **self._arguments())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values."""
        options = {name: keras_settings.plain(value) for name, value in self._arguments().items()}
        return {**super().get_config(), **options}

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._options}


class CategoricalCrossentropy(_FunctionLoss):
    """`categorical_crossentropy` as a `Loss`.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: eps in [0, 1].
        axis: the class axis.
        reduction: one of `Loss`'s.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import CategoricalCrossentropy
        >>> loss = CategoricalCrossentropy(label_smoothing=0.1)
        >>> y_pred = np.array([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
        >>> round(float(loss([[0, 1, 0], [0, 0, 1]], y_pred, sample_weight=[0.3, 0.7])), 4)
        0.8844
    """

    _function = keras_functions.categorical_crossentropy
    _options = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype, from_logits, label_smoothing, axis)


class SparseCategoricalCrossentropy(_FunctionLoss):
    """`sparse_categorical_crossentropy` as a `Loss`.

    Labels are not cast to the dtype of the loss: bfloat16 cannot represent class 257.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        ignore_class: rows with this id are excluded from the loss and its mean.
        reduction: one of `Loss`'s.
        axis: the class axis.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.
        label_smoothing: eps in [0, 1]; not in Keras.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import SparseCategoricalCrossentropy
        >>> loss = SparseCategoricalCrossentropy(ignore_class=-1, label_smoothing=0.1)
        >>> round(float(loss([1, -1], np.array([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]]))), 4)
        0.685
    """

    ignore_class: int | None
    axis: int
    _function = keras_functions.sparse_categorical_crossentropy
    _options = ("from_logits", "ignore_class", "axis", "label_smoothing")

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        *,
        label_smoothing: float = 0.0,
    ):
        super().__init__(name, reduction, dtype, from_logits, ignore_class, axis, label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; those that Keras lacks only if not at their defaults."""
        defaults = {"axis": -1, "label_smoothing": 0.0}
        return {name: x for name, x in super().get_config().items() if name not in defaults or x != defaults[name]}

    def _as_labels(self, xp: Backend, y_true: Any, like: Array | None) -> Array:
        return xp.asarray(y_true, like=like)

    def _losses_and_mask(self, y_true: Array, y_pred: Array) -> tuple[Array, Array | None]:
        losses = self.call(y_true, y_pred)
        if self.ignore_class is None:
            return losses, None
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        xp = backend_of(y_pred=y_pred)
        return losses, ~xp.equal(row_labels(xp, y_true, y_pred, self.axis), self.ignore_class)


class BinaryCrossentropy(_FunctionLoss):
    """`binary_crossentropy` as a `Loss`.

    Args:
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: eps in [0, 1].
        axis: the axis of the mean before weights and reduction.
        reduction: one of `Loss`'s.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import BinaryCrossentropy
        >>> loss = BinaryCrossentropy(from_logits=True, reduction=None)
        >>> loss([[0, 1], [0, 0]], np.array([[-18.6, 0.51], [2.94, -12.8]])).round(4)
        array([0.2352, 1.4958], dtype=float32)
    """

    _function = keras_functions.binary_crossentropy
    _options = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype, from_logits, label_smoothing, axis)


class CategoricalFocalCrossentropy(_FunctionLoss):
    """`categorical_focal_crossentropy` as a `Loss`.

    Args:
        alpha: the weight of the loss: a number, or a list of one number per class.
        gamma: the focus, at least 0.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: eps in [0, 1].
        axis: the class axis.
        reduction: one of `Loss`'s.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import CategoricalFocalCrossentropy
        >>> y_pred = np.array([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
        >>> round(float(CategoricalFocalCrossentropy()([[0, 1, 0], [0, 0, 1]], y_pred)), 4)
        0.2332
    """

    _function = keras_functions.categorical_focal_crossentropy
    _options = ("from_logits", "label_smoothing", "axis", "alpha", "gamma")

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype, from_logits, label_smoothing, axis, alpha, gamma)


class BinaryFocalCrossentropy(_FunctionLoss):
    """`binary_focal_crossentropy` as a `Loss`.

    Args:
        apply_class_balancing: whether to weight the classes by alpha.
        alpha: the weight of the positives, in [0, 1]; the negatives have 1 - alpha.
        gamma: the focus, at least 0.
        from_logits: whether predictions are logits, not probabilities.
        label_smoothing: eps in [0, 1].
        axis: the axis of the mean before weights and reduction.
        reduction: one of `Loss`'s.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import BinaryFocalCrossentropy
        >>> round(float(BinaryFocalCrossentropy()([[0, 1], [0, 0]], np.array([[0.6, 0.4], [0.4, 0.6]]))), 4)
        0.2678
    """

    _function = keras_functions.binary_focal_crossentropy
    _options = ("from_logits", "label_smoothing", "axis", "apply_class_balancing", "alpha", "gamma")

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            name, reduction, dtype, from_logits, label_smoothing, axis, apply_class_balancing, alpha, gamma
        )


class KLDivergence(_FunctionLoss):
    """`kl_divergence` as a `Loss`.

    Args:
        reduction: one of `Loss`'s.
        name: the name of the loss.
        dtype: of the computation and the result; see `Loss`.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import KLDivergence
        >>> round(float(KLDivergence()([[0.5, 0.5]], np.array([[0.9, 0.1]]))), 4)
        0.5108
    """

    _function = keras_functions.kl_divergence

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "kl_divergence", dtype: Any = None
    ):
        super().__init__(name, reduction, dtype)
