"""Training steps for Flax NNX models, in Optax' idiom, and a model that carries its temperature."""

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
    """One compiled step of gradient descent: logits, loss, gradient, update.

    The model is called with the inputs and returns logits; the loss is that of
    ``loss(labels, logits, **options)``, a scalar. The step updates model and optimizer in place.

    Args:
        loss: a function of `lsmooth.losses`, or one with its argument order.
        **options: the loss's own.

    Returns:
        ``step(model, optimizer, inputs, labels)``, which returns the loss before the update.

    Raises:
        TypeError: if ``loss`` cannot be called, or has no such option.

    Source: the training loop of Flax' NNX guide, with Optax behind ``nnx.Optimizer``.

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
    """One compiled step of a student's descent towards its labels and its teacher.

    Both models are called with the inputs and return logits; the loss is ``loss(labels, teacher_logits,
    student_logits)``, a scalar. The step updates student and optimizer in place, the teacher's parameters
    never; it runs as it stands: where it has dropout or batch statistics, call its ``eval()`` before.

    Args:
        loss: a `DistillationLoss`, or a function in its argument order; ``DistillationLoss()`` if None.

    Returns:
        ``step(student, optimizer, teacher, inputs, labels)``, which returns the loss before the update.

    Source: the training loop of Flax' NNX guide, with Optax behind ``nnx.Optimizer``.

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
    """Raise a TypeError if ``loss`` is no function of so many arrays and of these options."""
    if not callable(loss):
        raise TypeError(f"loss must be a function of arrays, got {loss!r}.")
    try:
        inspect.signature(loss).bind(*[None] * num_arrays, **options)
    except TypeError as error:
        raise TypeError(f"loss must take {num_arrays} arrays and the options given: {error}.") from None
    except ValueError:  # a function without a signature
        return


class Temperature(nnx.Variable):
    """A temperature in a model's state; no ``nnx.Param``, so that optimizers leave it alone."""


class TemperatureScaled(nnx.Module):
    """A model whose logits are divided by a temperature that it carries: ``model(x) / T``.

    The temperature is part of the module's state, as a `Temperature`.

    Args:
        model: returns logits; or probabilities, if ``from_logits`` is False.
        temperature: T > 0, a number; or an array that broadcasts to the logits' shape without ``axis``.
        axis: the class axis.
        from_logits: False for a model that returns probabilities, of which ``log p`` takes the logits' place:
            probabilities come out.
        binary: whether each output is of a label of its own, which is 0 or 1; then there is no class axis.

    Raises:
        TypeError: if an option is of another type.
        ValueError: if the temperature is not above 0, or the model ends in an activation that the options rule out.

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
        """The model's logits, divided by the temperature; or the probabilities that they give.

        Args:
            *args: the model's own.
            **kwargs: the model's own.

        Returns:
            The shape and dtype of the model's outputs.
        """
        outputs = self.model(*args, **kwargs)  # type: ignore[operator]
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        return scaled(outputs, self.temperature[...], **options)

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = None) -> TemperatureScaling:
        """Give it the temperature of greatest likelihood; the model runs once on each batch.

        It runs as it stands: where it has dropout or batch statistics, call its ``eval()`` before.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data.
            ignore_index: labels with this id have no part.

        Returns:
            The scaler, with the status and the likelihoods of the fit.

        Raises:
            TypeError: as `TemperatureScaling.fit`.
            ValueError: as `TemperatureScaling.fit`.
        """
        run = nnx.jit(lambda model, inputs: model(inputs))
        pairs = ((run(self.model, inputs), *rest) for inputs, *rest in batches)
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        scaler = fit_temperature(TemperatureScaling(ignore_index=ignore_index, **options), pairs)
        self.temperature = Temperature(jnp.full_like(self.temperature[...], scaler.temperature_))
        return scaler
