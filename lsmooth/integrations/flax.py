"""Training steps for Flax NNX models with Optax, and a model with a temperature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from lsmooth.integrations._extras import needs

with needs("jax", "jax", "jaxlib", "flax", "optax"):
    import jax
    import jax.numpy as jnp
    from flax import nnx

from lsmooth.calibration import TemperatureScaling
from lsmooth.distillation import DistillationLoss
from lsmooth.integrations._temperature import (
    check_last_activation,
    check_options,
    fit_temperature,
    real_temperature,
    scaled,
)
from lsmooth.losses import softmax_cross_entropy


def make_train_step(
    loss: Callable[..., jax.Array] = softmax_cross_entropy, **options: Any
) -> Callable[[nnx.Module, nnx.Optimizer, Any, Any], jax.Array]:
    """A compiled training step: logits, loss, gradient, update.

    The model maps the inputs to logits, and ``loss(labels, logits, **options)`` is a scalar. The step updates the
    model and the optimizer in place.

    Args:
        loss: a function of `lsmooth.losses`, or one with the same argument order.
        **options: of the loss.

    Returns:
        ``step(model, optimizer, inputs, labels)``, which returns the loss before the update.

    Source: the training loop of Flax' NNX guide.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from flax import nnx
        >>> from lsmooth.integrations.flax import make_train_step
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
        >>> step = make_train_step(label_smoothing=0.1)
        >>> inputs, labels = jnp.eye(2), jnp.array([0, 2])
        >>> bool(step(model, optimizer, inputs, labels) > step(model, optimizer, inputs, labels))
        True
    """
    _check_loss(loss, 2, options)

    @nnx.jit
    def step(model: nnx.Module, optimizer: nnx.Optimizer, inputs: Any, labels: Any) -> jax.Array:
        def objective(model: Any) -> jax.Array:
            return loss(labels, model(inputs), **options)

        value, gradient = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradient)
        return value

    return step


def make_distillation_step(
    loss: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[[nnx.Module, nnx.Optimizer, nnx.Module, Any, Any], jax.Array]:
    """A compiled training step of a student with labels and a teacher.

    Both models map the inputs to logits, and ``loss(labels, teacher_logits, student_logits)`` is a scalar. The step
    updates the student and the optimizer in place, but not the teacher. Call ``teacher.eval()`` before if the
    teacher has dropout or batch statistics.

    Args:
        loss: a `DistillationLoss`, or a function with the same argument order; ``DistillationLoss()`` if None.

    Returns:
        ``step(student, optimizer, teacher, inputs, labels)``, which returns the loss before the update.

    Source: the training loop of Flax' NNX guide.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from flax import nnx
        >>> from lsmooth.distillation import DistillationLoss
        >>> from lsmooth.integrations.flax import make_distillation_step
        >>> teacher, student = (nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 1))
        >>> optimizer = nnx.Optimizer(student, optax.sgd(1.0), wrt=nnx.Param)
        >>> step = make_distillation_step(DistillationLoss(alpha=0.9, temperature=2.0))
        >>> batch = jnp.eye(2), jnp.array([0, 2])
        >>> bool(step(student, optimizer, teacher, *batch) > step(student, optimizer, teacher, *batch))
        True
    """
    loss = DistillationLoss() if loss is None else loss
    _check_loss(loss, 3, {})

    @nnx.jit
    def step(student: nnx.Module, optimizer: nnx.Optimizer, teacher: Any, inputs: Any, labels: Any) -> jax.Array:
        teacher_logits = teacher(inputs)

        def objective(student: Any) -> jax.Array:
            return loss(labels, teacher_logits, student(inputs))

        value, gradient = nnx.value_and_grad(objective)(student)
        optimizer.update(student, gradient)
        return value

    return step


def _check_loss(loss: Any, num_arrays: int, options: dict[str, Any]) -> None:
    """Raise a TypeError unless ``loss`` is a function of ``num_arrays`` arrays and the options."""
    if not callable(loss):
        raise TypeError(f"loss must be a function of arrays, got {loss!r}.")
    try:
        inspect.signature(loss).bind(*[None] * num_arrays, **options)
    except TypeError as error:
        raise TypeError(f"loss must take {num_arrays} arrays and the options given: {error}.") from None
    except ValueError:  # a function without a signature
        return


class Temperature(nnx.Variable):
    """A temperature in a model's state; not an ``nnx.Param``, so that optimizers do not update it."""


class TemperatureScaled(nnx.Module):
    """A model whose logits are divided by a temperature: ``model(x) / T``.

    The temperature is part of the module's state, as a `Temperature`.

    Args:
        model: returns logits; or probabilities, if ``from_logits`` is False.
        temperature: T > 0, a number; or an array that broadcasts to the logits' shape without ``axis``.
        axis: the class axis.
        from_logits: False for a model that returns probabilities p: the result is then that of the logits ``log p``,
            as probabilities. A ValueError if the model's last activation contradicts it.
        binary: whether each output belongs to a binary label of its own, so that there is no class axis.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from lsmooth.integrations.flax import TemperatureScaled
        >>> model = TemperatureScaled(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), 2.0)
        >>> bool(jnp.allclose(model(jnp.eye(2)), model.model(jnp.eye(2)) / 2.0))
        True
    """

    def __init__(
        self,
        model: nnx.Module,
        temperature: float | jax.Array = 1.0,
        *,
        axis: int = -1,
        from_logits: bool = True,
        binary: bool = False,
    ):
        last = model.layers[-1] if isinstance(model, nnx.Sequential) else None
        check_last_activation(getattr(last, "__name__", None), from_logits=from_logits, binary=binary)
        axis = check_options(axis, from_logits=from_logits, binary=binary)
        value = jnp.asarray(real_temperature(temperature), jnp.float32)
        if not bool((value > 0).all()):
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.model = model
        self.temperature = Temperature(value)
        self.axis = axis
        self.from_logits = from_logits
        self.binary = binary

    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        """The model's outputs with the temperature, in their shape and dtype; arguments are those of the model."""
        outputs = self.model(*args, **kwargs)  # type: ignore[operator]
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        return scaled(outputs, self.temperature[...], **options)

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = None) -> TemperatureScaling:
        """Fit the temperature by maximum likelihood; the model runs once on each batch.

        Call ``eval()`` before if the model has dropout or batch statistics.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data.
            ignore_index: labels with this id are excluded.

        Returns:
            The scaler, with the status and the likelihoods of the fit. Raises as `TemperatureScaling.fit` does.
        """
        run = nnx.jit(lambda model, inputs: model(inputs))
        pairs = ((run(self.model, inputs), *rest) for inputs, *rest in batches)
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        scaler = fit_temperature(TemperatureScaling(ignore_index=ignore_index, **options), pairs)
        self.temperature = Temperature(jnp.full_like(self.temperature[...], scaler.temperature_))
        return scaler
