"""Losses for ``model.compile``, and calibration inside a model, saved and loaded with it.

The Keras-named losses are those of `lsmooth.losses`, which are ``keras.losses.Loss`` once Keras has been imported.
`LogitsDistillation` is a loss for ``keras.distillation.Distiller``. `Temperature` is a layer that divides logits,
`TemperatureScaled` a model that carries one. `CalibrationError`, `NegativeLogLikelihood` and `BrierScore` are metrics.

Importing this module registers them, which is what lets ``keras.saving`` find them again. They run on whatever
backend Keras runs on.

Examples:
    >>> import keras
    >>> from lsmooth.integrations.keras import SparseCategoricalCrossentropy
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss=SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from lsmooth.integrations._extras import needs

with needs("keras", "keras"):
    import keras

from lsmooth import _validation as check
from lsmooth import distillation
from lsmooth._keras_settings import get_mask, join_keras, logits_behind, share_of_replica
from lsmooth.backends import Array, backend_of
from lsmooth.calibration import TemperatureScaling, apply_temperature
from lsmooth.distillation._pair import parameter_of
from lsmooth.integrations._keras_metrics import BrierScore, CalibrationError, NegativeLogLikelihood
from lsmooth.integrations._temperature import check_last_activation, fit_temperature, probabilities, scaled
from lsmooth.losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    KLDivergence,
    SparseCategoricalCrossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "BrierScore",
    "CalibrationError",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "KLDivergence",
    "LogitsDistillation",
    "NegativeLogLikelihood",
    "SparseCategoricalCrossentropy",
    "Temperature",
    "TemperatureScaled",
]

join_keras()

_register = keras.saving.register_keras_serializable("lsmooth")


# Keras has distillation since 3.12.
_DistillationLoss: Any = keras.distillation.DistillationLoss if hasattr(keras, "distillation") else object


@_register
class LogitsDistillation(_DistillationLoss):
    """`lsmooth.distillation.distillation_loss` for ``keras.distillation.Distiller``.

    ``T^2 D(softmax(teacher / T), softmax(student / T))``, a mean over rows, and a sum over the outputs of
    a model that has several. A mask that a layer left on the student's output takes rows out of the mean.

    Args:
        temperature: T > 0, a number.
        loss: the divergence D, one of those of `distillation_loss`, or ``"kl_divergence"``, as Keras calls
            the forward KL; for several outputs in their structure, with None for those to leave out.
        beta: of ``"jensen_shannon"``.
        alpha: of ``"alpha"``.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        axis: the class axis.

    Raises:
        ValueError: if a number is out of range, a name is unknown, or every output is left out.

    Source: ``keras.distillation.LogitsDistillation`` of Keras 3.15, whose own numbers for its default,
        ``loss="kl_divergence"``, are no divergence: the logits meet neither a softmax nor T^2. A
        ``keras.losses.KLDivergence()`` as its ``loss`` gives the forward KL, of clipped probabilities.

    Examples:
        >>> import keras
        >>> from lsmooth.integrations.keras import LogitsDistillation
        >>> teacher, student = keras.ops.array([[2.0, 1.0, 0.0]]), keras.ops.array([[0.0, 1.0, 2.0]])
        >>> round(float(LogitsDistillation(temperature=2.0).compute_loss(teacher, student)), 4)
        1.2806
    """

    def __init__(
        self,
        temperature: float = 3.0,
        loss: Any = "kl_divergence",
        *,
        beta: float = 0.5,
        alpha: float = 0.5,
        scale_by_temperature_squared: bool = True,
        axis: int = -1,
    ):
        check.check_range("temperature", temperature, 0.0, float("inf"))
        names = [name for name in keras.tree.flatten(loss) if name is not None]
        if not names:
            raise ValueError(f"loss must name a divergence for one output at least, got {loss!r}.")
        for name in names:
            parameter_of(_lsmooth_name(name), beta=beta, alpha=alpha)
        self.temperature = temperature
        self.loss = loss
        self.beta = beta
        self.alpha = alpha
        self.scale_by_temperature_squared = scale_by_temperature_squared
        self.axis = axis

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Array:
        """The loss of a batch.

        Args:
            teacher_outputs: logits, or logits in the structure of ``loss``; they get no gradient.
            student_outputs: likewise, in the same shapes.
            **kwargs: what a ``Distiller`` may hand over besides; not used.

        Returns:
            A scalar.
        """
        parts = keras.tree.map_structure(self._of_output, self.loss, teacher_outputs, student_outputs)
        loss = sum(keras.tree.flatten(parts))
        return share_of_replica(backend_of(loss=loss), loss)

    def _of_output(self, name: str | None, teacher: Array, student: Array) -> Array:
        if name is None:
            return 0.0
        return distillation.distillation_loss(
            teacher,
            student,
            temperature=self.temperature,
            divergence=_lsmooth_name(name),
            beta=self.beta,
            alpha=self.alpha,
            scale_by_temperature_squared=self.scale_by_temperature_squared,
            mask=get_mask(student),
            axis=self.axis,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that make another like this one, ready for JSON."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make one from `get_config`."""
        return cls(**config)


def _lsmooth_name(name: str) -> str:
    return "forward_kl" if name == "kl_divergence" else name


# The losses that ``keras.distillation.FeatureDistillation`` can take: of teacher and student, in this order.
for _loss in (
    distillation.hint_loss,
    distillation.attention_transfer_loss,
    distillation.similarity_preserving_loss,
    distillation.relational_distance_loss,
    distillation.relational_angle_loss,
    distillation.contrastive_distillation_loss,
):
    keras.saving.register_keras_serializable("lsmooth.distillation")(_loss)


@_register
class Temperature(keras.layers.Layer):
    """Divides logits by a temperature, which is a weight of the layer: ``z / T``.

    Args:
        temperature: T > 0, to begin with.
        trainable: whether training changes it.
        **kwargs: of ``keras.layers.Layer``.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
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
        model: returns logits; or probabilities, if ``from_logits`` is False.
        temperature: T > 0, to begin with.
        axis: the class axis.
        from_logits: False for a model that ends in a softmax, or in a sigmoid if ``binary``: probabilities come
            out, ``softmax(z / T)``. The logits z are those that Keras has kept, or else ``log p``.
        binary: whether each output is of a label of its own, which is 0 or 1; then there is no class axis.
        **kwargs: of ``keras.Model``.

    Raises:
        ValueError: if the temperature is not above 0, or the model ends in an activation that the options rule out.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import keras, numpy as np
        >>> from lsmooth.integrations.keras import TemperatureScaled
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]], "float32")
        >>> model = TemperatureScaled(keras.Sequential([keras.Input((2,)), keras.layers.Identity()]))
        >>> round(model.calibrate([(logits, np.array([0, 0, 1, 1]))]).temperature_, 4)
        3.641
    """

    def __init__(
        self,
        model: keras.Model,
        temperature: float = 1.0,
        *,
        axis: int = -1,
        from_logits: bool = True,
        binary: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_last_activation(_last_activation(model), from_logits=from_logits, binary=binary)
        self.model = model
        self.scale = Temperature(temperature)
        self.axis = axis
        self.from_logits = from_logits
        self.binary = binary

    def call(self, inputs: Any) -> Array:
        """The model's logits, divided by the temperature; or the probabilities that they give."""
        outputs = self.model(inputs)
        if self.from_logits:
            return self.scale(outputs)
        logits, known = self._logits(outputs)
        options = {"axis": self.axis, "binary": self.binary}
        if known:
            return probabilities(self.scale(logits), **options)
        return scaled(outputs, self.scale.temperature.value, from_logits=False, **options)

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = None) -> TemperatureScaling:
        """Give it the temperature of greatest likelihood; the model runs once on each batch.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data, such as
                a ``tf.data.Dataset``, a ``DataLoader`` or a list. What a layer has masked counts for nothing.
            ignore_index: labels with this id have no part.

        Returns:
            The scaler, with the status and the likelihoods of the fit.

        Raises:
            TypeError: as `TemperatureScaling.fit`.
            ValueError: as `TemperatureScaling.fit`; or if the outputs are probabilities that were not said to be.
        """
        scaler = TemperatureScaling(
            axis=self.axis, ignore_index=ignore_index, from_logits=self.from_logits, binary=self.binary
        )

        def run() -> Iterator[tuple[Any, ...]]:
            for inputs, labels, *weight in batches:
                if not self.built:
                    self(inputs, training=False)  # `export` asks for a model that has been called
                outputs = self.model(inputs, training=False)
                logits, known = self._logits(outputs)
                if self.from_logits and known:
                    check_last_activation("sigmoid" if self.binary else "softmax", from_logits=True, binary=self.binary)
                scaler.from_logits = self.from_logits or known
                mask = get_mask(outputs)
                yield logits, labels, *(weight if mask is None else [_masked_weight(mask, outputs, self, *weight)])

        fit_temperature(scaler, run())
        scaler.from_logits = self.from_logits
        self.scale.temperature.assign(scaler.temperature_)
        return scaler

    def _logits(self, outputs: Array) -> tuple[Array, bool]:
        """The logits behind probabilities and True, if they are known; or the outputs and False."""
        activation = "Sigmoid" if self.binary else "Softmax"
        return logits_behind(backend_of(outputs=outputs), outputs, False, activation, "TemperatureScaled")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the temperature that was fitted is in the weights."""
        model = keras.saving.serialize_keras_object(self.model)
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        return {"name": self.name, "model": model, "temperature": self.scale._first, **options}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The model of a config."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**{**config, "model": model})


def _last_activation(model: Any) -> str | None:
    """The name of the activation that a model is seen to end in, as far as Keras keeps it."""
    while isinstance(model, keras.Model):
        outputs = None if isinstance(model, keras.Sequential) else getattr(model, "outputs", None)
        if outputs:  # a functional model
            model = outputs[0]._keras_history.operation
        else:
            model = model.layers[-1] if isinstance(model, keras.Sequential) and model.layers else None
    activation = getattr(model, "activation", None)
    name = getattr(activation, "__name__", None) or type(activation if activation is not None else model).__name__
    return name.lower()


def _masked_weight(mask: Array, outputs: Array, model: TemperatureScaled, weight: Any = None) -> Array:
    """The weights of the rows, 0 where a layer has masked them."""
    xp = backend_of(outputs=outputs)
    kept = xp.cast(mask, "float32")
    if model.binary and len(xp.shape(kept)) < len(xp.shape(outputs)):
        kept = kept[..., None]
    return kept if weight is None else kept * xp.asarray(weight, "float32", like=kept)
