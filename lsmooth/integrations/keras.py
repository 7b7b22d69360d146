"""The Keras-named losses as ``keras.losses.Loss``: for ``model.compile``, saved and loaded with the model.

`Temperature` is a layer that divides logits, `TemperatureScaled` a model that carries one.

Importing this module registers them, and the plain ones of `lsmooth.losses`, which is what lets
``keras.saving`` find them again. They run on whatever backend Keras runs on.

Example:
    >>> import keras
    >>> from lsmooth.integrations.keras import SparseCategoricalCrossentropy
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss=SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import keras

from lsmooth import losses
from lsmooth.backends import Array
from lsmooth.calibration import TemperatureScaling, apply_temperature

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "KLDivergence",
    "SparseCategoricalCrossentropy",
    "Temperature",
    "TemperatureScaled",
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


for _name in set(__all__) & set(losses.__all__):
    keras.saving.register_keras_serializable("lsmooth.losses")(getattr(losses, _name))


@_register
class Temperature(keras.layers.Layer):
    """Divides logits by a temperature, which is a weight of the layer: ``z / T``.

    Args:
        temperature: T > 0, to begin with.
        trainable: whether training changes it.
        **kwargs: of ``keras.layers.Layer``.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Example:
        >>> import keras
        >>> from lsmooth.integrations.keras import Temperature
        >>> layer = Temperature(4.0)
        >>> keras.ops.convert_to_numpy(layer(keras.ops.array([[2.0, 0.0]])))
        array([[0.5, 0. ]], dtype=float32)
    """

    def __init__(self, temperature: float = 1.0, *, trainable: bool = False, **kwargs: Any):
        super().__init__(trainable=trainable, **kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self._first = float(temperature)
        self.supports_masking = True
        initializer = keras.initializers.Constant(self._first)
        self.temperature = self.add_weight((), initializer, dtype="float32", name="temperature")
        self.built = True

    def call(self, inputs: Array) -> Array:
        """The logits divided by the temperature, in their shape and dtype."""
        return apply_temperature(inputs, self.temperature.value)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The logits' shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the temperature that was fitted is in the weights."""
        return {**super().get_config(), "temperature": self._first}


@_register
class TemperatureScaled(keras.Model):
    """A model whose logits are divided by a temperature that it carries: ``model(x) / T``.

    Saved and loaded with both in one ``.keras`` file.

    Args:
        model: returns logits.
        temperature: T > 0, to begin with.
        axis: the class axis.
        **kwargs: of ``keras.Model``.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Example:
        >>> import keras, numpy as np
        >>> from lsmooth.integrations.keras import TemperatureScaled
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]], "float32")
        >>> model = TemperatureScaled(keras.Sequential([keras.Input((2,)), keras.layers.Identity()]))
        >>> round(model.calibrate([(logits, np.array([0, 0, 1, 1]))]).temperature_, 4)
        3.641
    """

    def __init__(self, model: keras.Model, temperature: float = 1.0, *, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.model = model
        self.scale = Temperature(temperature)
        self.axis = axis

    def call(self, inputs: Any) -> Array:
        """The model's logits, divided by the temperature."""
        return self.scale(self.model(inputs))

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = None) -> TemperatureScaling:
        """Give it the temperature of greatest likelihood; the model runs once on each batch.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data, such as
                a ``tf.data.Dataset``, a ``DataLoader`` or a list.
            ignore_index: labels with this id have no part.

        Returns:
            The scaler, with the status and the likelihoods of the fit.

        Raises:
            TypeError: as `TemperatureScaling.fit`.
            ValueError: as `TemperatureScaling.fit`.
        """
        pairs = ((self.model(inputs, training=False), *rest) for inputs, *rest in batches)
        scaler = TemperatureScaling(axis=self.axis, ignore_index=ignore_index).fit_batches(pairs, once=True)
        self.scale.temperature.assign(scaler.temperature_)
        return scaler

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the temperature that was fitted is in the weights."""
        model = keras.saving.serialize_keras_object(self.model)
        return {"name": self.name, "model": model, "temperature": self.scale._first, "axis": self.axis}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The model of a config."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**{**config, "model": model})
