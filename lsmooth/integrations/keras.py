"""The Keras-named losses as ``keras.losses.Loss``: for ``model.compile``, saved and loaded with the model.

Importing this module registers them, and the plain ones of `lsmooth.losses`, which is what lets
``keras.saving`` find them again. They run on whatever backend Keras runs on.

Example:
    >>> import keras
    >>> from lsmooth.integrations.keras import SparseCategoricalCrossentropy
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss=SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
"""

from __future__ import annotations

from typing import Any

import keras

from lsmooth import losses
from lsmooth.backends import Array

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "KLDivergence",
    "SparseCategoricalCrossentropy",
]

_register = keras.saving.register_keras_serializable("lsmooth")


class _InKeras(losses.Loss):
    """What Keras expects of a loss besides its number."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        loss = super().__call__(y_true, y_pred, sample_weight)
        if keras.backend.backend() != "tensorflow" or self.reduction in ("sum", "none", None):
            return loss
        import tensorflow as tf

        # The strategy adds the replicas' losses up, and each is a mean over its own share.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync


@_register
class CategoricalCrossentropy(_InKeras, losses.CategoricalCrossentropy, keras.losses.Loss):
    """`lsmooth.losses.CategoricalCrossentropy` for ``model.compile``."""


@_register
class SparseCategoricalCrossentropy(_InKeras, losses.SparseCategoricalCrossentropy, keras.losses.Loss):
    """`lsmooth.losses.SparseCategoricalCrossentropy` for ``model.compile``."""


@_register
class BinaryCrossentropy(_InKeras, losses.BinaryCrossentropy, keras.losses.Loss):
    """`lsmooth.losses.BinaryCrossentropy` for ``model.compile``."""


@_register
class CategoricalFocalCrossentropy(_InKeras, losses.CategoricalFocalCrossentropy, keras.losses.Loss):
    """`lsmooth.losses.CategoricalFocalCrossentropy` for ``model.compile``."""


@_register
class BinaryFocalCrossentropy(_InKeras, losses.BinaryFocalCrossentropy, keras.losses.Loss):
    """`lsmooth.losses.BinaryFocalCrossentropy` for ``model.compile``."""


@_register
class KLDivergence(_InKeras, losses.KLDivergence, keras.losses.Loss):
    """`lsmooth.losses.KLDivergence` for ``model.compile``."""


for _name in __all__:
    keras.saving.register_keras_serializable("lsmooth.losses")(getattr(losses, _name))
