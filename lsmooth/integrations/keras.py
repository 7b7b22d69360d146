"""Losses for ``model.compile``, metrics, and calibration as a part of a saved model.

The Keras-named losses are those of `lsmooth.losses`. `LogitsDistillation` is a loss for
``keras.distillation.Distiller``, `Temperature` a layer, `TemperatureScaled` a model; `CalibrationError`,
`NegativeLogLikelihood` and `BrierScore` are metrics. Importing this module registers them with ``keras.saving``.
They run on any Keras backend.

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

    ``T^2 D(softmax(teacher / T), softmax(student / T))``, a mean over rows, summed over the outputs of a model with
    several. Rows that a layer has masked in the student's output are excluded.

    Args:
        temperature: T > 0, a number.
        loss: the divergence D of `distillation_loss`, or ``"kl_divergence"``, Keras' name of the forward KL; for
            several outputs in their structure, with None for outputs to exclude.
        beta: for ``"jensen_shannon"``.
        alpha: the alpha of `distillation_loss`.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        axis: the class axis.

    Source: ``keras.distillation.LogitsDistillation`` of Keras 3.15, whose default ``loss="kl_divergence"`` is not a
        divergence, because it applies neither a softmax nor T^2. With ``keras.losses.KLDivergence()`` as its
        ``loss``, it is the forward KL of clipped probabilities.

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
            raise ValueError(f"loss must name a divergence for at least one output, got {loss!r}.")
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
            teacher_outputs: logits, or logits in the structure of ``loss``; treated as constants.
            student_outputs: logits in the same structure and shapes.
            **kwargs: further arguments of a ``Distiller``; not used.

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
        """The constructor's arguments, for JSON."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The loss with the arguments that `get_config` returned."""
        return cls(**config)


def _lsmooth_name(name: str) -> str:
    return "forward_kl" if name == "kl_divergence" else name


# Losses for ``keras.distillation.FeatureDistillation``, with the argument order teacher, student.
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
    """A layer that divides logits by a temperature, which is its weight: ``z / T``.

    Args:
        temperature: the initial T > 0.
        trainable: whether training updates it.
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
        """The constructor's arguments; the fitted temperature is a weight."""
        return {**super().get_config(), "temperature": self._first}


@_register
class TemperatureScaled(keras.Model):
    """A model whose logits are divided by a temperature: ``model(x) / T``.

    A ``.keras`` file holds both the model and the temperature.

    Args:
        model: returns logits; or probabilities, if ``from_logits`` is False.
        temperature: the initial T > 0.
        axis: the class axis.
        from_logits: False for a model that returns probabilities p: the result is then ``softmax(z / T)``, or the
            sigmoid if ``binary``, with the logits z that Keras has attached to the output, or else ``log p``.
            A ValueError if the model's last activation contradicts it.
        binary: whether each output belongs to a binary label of its own, so that there is no class axis.
        **kwargs: of ``keras.Model``.

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
        """The model's outputs with the temperature."""
        outputs = self.model(inputs)
        if self.from_logits:
            return self.scale(outputs)
        logits, known = self._logits(outputs)
        options = {"axis": self.axis, "binary": self.binary}
        if known:
            return probabilities(self.scale(logits), **options)
        return scaled(outputs, self.scale.temperature.value, from_logits=False, **options)

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = None) -> TemperatureScaling:
        """Fit the temperature by maximum likelihood; the model runs once on each batch.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data, such as a
                ``tf.data.Dataset``, a ``DataLoader`` or a list. Rows that a layer has masked are excluded.
            ignore_index: labels with this id are excluded.

        Returns:
            The scaler, with the status and the likelihoods of the fit. Raises as `TemperatureScaling.fit` does.
        """
        scaler = TemperatureScaling(
            axis=self.axis, ignore_index=ignore_index, from_logits=self.from_logits, binary=self.binary
        )

        def run() -> Iterator[tuple[Any, ...]]:
            for inputs, labels, *weight in batches:
                if not self.built:
                    self(inputs, training=False)  # `export` needs a model that has been called
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
        """The logits of probabilities and True, if they are known; or the outputs and False."""
        activation = "Sigmoid" if self.binary else "Softmax"
        return logits_behind(backend_of(outputs=outputs), outputs, False, activation, "TemperatureScaled")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the fitted temperature is a weight."""
        model = keras.saving.serialize_keras_object(self.model)
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        return {"name": self.name, "model": model, "temperature": self.scale._first, **options}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The model of a config."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**{**config, "model": model})


def _last_activation(model: Any) -> str | None:
    """The name of the model's last activation, as far as Keras knows it."""
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
    """The weights of the rows, 0 in rows that a layer has masked."""
    xp = backend_of(outputs=outputs)
    kept = xp.cast(mask, "float32")
    if model.binary and len(xp.shape(kept)) < len(xp.shape(outputs)):
        kept = kept[..., None]
    return kept if weight is None else kept * xp.asarray(weight, "float32", like=kept)
