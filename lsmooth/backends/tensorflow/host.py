"""Losses of small eager batches in host memory, computed by NumPy.

TensorFlow takes about twenty times as long as NumPy to start an operation, which is most of the time of a small
batch. NumPy computes the loss and its gradient at once, and TensorFlow gets them as one operation. Unsupported
arguments give None, and use the other kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.formulas.softmax import log_probabilities
from lsmooth.backends.numpy import NumpyBackend
from lsmooth.backends.options import Options, SigmoidOptions, SoftmaxOptions, are_known
from lsmooth.backends.tensorflow.arrays import float_type
from lsmooth.backends.tensorflow.compilation import is_small
from lsmooth.backends.tensorflow.tapes import is_followed

_SOFTMAX = ("label_smoothing", "prior", "class_weight", "temperature", "z_loss", "counted", "scale", "total", "gamma")
_SIGMOID = ("label_smoothing", "pos_weight", "counted", "scale", "total", "gamma", "alpha")
KNOWN: dict[type, tuple[str, ...]] = {SoftmaxOptions: _SOFTMAX, SigmoidOptions: _SIGMOID}
_NUMPY = NumpyBackend()


def loss_of(
    function: Callable[..., tuple[Any, Any]],
    logits: Array,
    labels: Array,
    options: Options,
    again: Callable[[Array], Array],
) -> Array | None:
    """The loss by ``function``, with its gradient; None for unsupported arguments.

    Args:
        function: `softmax` or `sigmoid`.
        logits: z.
        labels: class ids or distributions.
        options: of the kernel.
        again: the loss as a function of the logits in TensorFlow, for higher derivatives.
    """
    if not (tf.executing_eagerly() and is_small(logits) and "CPU" in logits.device):
        return None
    if not are_known(options, KNOWN[type(options)]):
        return None
    constants = [x for x in (labels, *options) if isinstance(x, tf.Tensor)]
    if is_followed(*constants):
        return None
    dtype: Any = float_type(logits).as_numpy_dtype
    z = logits.numpy().astype(dtype, copy=False)
    on_host = (x.numpy() if isinstance(x, tf.Tensor) else x for x in options)
    with np.errstate(all="ignore"):
        losses, slope = function(z, labels.numpy(), type(options)._make(on_host))
    if losses is None or not (np.isfinite(losses).all() and np.isfinite(slope).all()):
        return None
    value = tf.constant(losses.sum(dtype=dtype) if options.total else losses, dtype)
    if not is_followed(logits):
        return value

    def backward(upstream: Array) -> Array:
        if not tf.executing_eagerly() or is_followed(logits, upstream):  # by the tape of a higher derivative
            with tf.GradientTape() as tape:
                tape.watch(logits)
                loss = again(logits)
            return tape.gradient(loss, logits, upstream)
        factor = upstream.numpy()
        of_rows = 0 < factor.ndim < slope.ndim
        return tf.cast(tf.constant(slope * (factor[..., None] if of_rows else factor), value.dtype), logits.dtype)

    return _with_gradient(logits, value=value, backward=backward)


@tf.custom_gradient
def _with_gradient(logits: Array, *, value: Array, backward: Callable[[Array], Array]) -> Any:
    return tf.identity(value), backward


def softmax(z: np.ndarray, labels: np.ndarray, options: SoftmaxOptions) -> tuple[Any, Any]:
    """The losses of `formulas.softmax_cross_entropy` for finite logits, and their gradients."""
    eps, temperature, z_loss, gamma = options.label_smoothing, options.temperature, options.z_loss, options.gamma
    z, labels = _counted(z, options.counted, labels)
    top = z.max(-1, keepdims=True)
    shifted = _over(z - top, _column(temperature))
    p = np.exp(shifted)
    total = p.sum(-1, keepdims=True)
    p /= total
    q = _targets(labels, z, _column(eps), options.prior)
    if q is None:
        return None, None
    if options.class_weight is not None:
        q *= options.class_weight
    log_sum = np.log(total)
    if gamma:
        log_p, rest = log_probabilities(_NUMPY, shifted)
        power = np.exp(gamma * rest)
        losses = -(q * power * log_p).sum(-1, keepdims=True)
        # p_k f'(p_k); its sum over the other classes loses no digits if p_k is close to 1.
        h = q * (gamma * log_p * np.exp(log_p + (gamma - 1.0) * rest) - power)
        slope = h * np.exp(rest) - p * (h.sum(-1, keepdims=True) - h)
    else:
        mass = q.sum(-1, keepdims=True)
        losses = mass * log_sum - (q * shifted).sum(-1, keepdims=True)
        slope = mass * p - q
    if z_loss:
        lse = log_sum + _over(top, _column(temperature))
        losses = losses + z_loss * lse * lse
        slope = slope + 2.0 * z_loss * lse * p
    factor = _factor(options, z.dtype)
    if factor is not None:
        factor = np.broadcast_to(factor, z.shape[:-1])[..., None]
        losses, slope = losses * factor, slope * factor
    return losses[..., 0], _over(slope, _column(temperature))


def _targets(labels: np.ndarray, z: np.ndarray, eps: Any, prior: Any) -> np.ndarray | None:
    """The smoothed labels; None for invalid labels."""
    classes = z.shape[-1]
    if labels.ndim == z.ndim:
        if not (labels >= -ROUNDING).all():
            return None
        q = labels.astype(z.dtype)
    else:
        if not (labels.size and labels.min() >= 0 and labels.max() < classes):
            return None
        q = np.zeros(z.shape, z.dtype)
        q.reshape(-1, classes)[np.arange(labels.size), labels.ravel()] = 1.0
    if isinstance(eps, float) and eps == 0.0:
        return q
    return q * (1.0 - eps) + eps * (1.0 / classes if prior is None else prior / prior.sum())


def sigmoid(z: np.ndarray, labels: np.ndarray, options: SigmoidOptions) -> tuple[Any, Any]:
    """The losses of `formulas.sigmoid_cross_entropy` for finite logits, and their gradients."""
    eps, pos_weight, gamma, alpha = options.label_smoothing, options.pos_weight, options.gamma, options.alpha
    z, labels = _counted(z, options.counted, labels)
    if not ((labels >= -ROUNDING) & (labels <= 1.0 + ROUNDING)).all():
        return None, None
    yes = labels.astype(z.dtype, copy=False) * (1.0 - eps) + 0.5 * eps
    no = 1.0 - yes
    odds = np.exp(-abs(z))
    p, rest = (np.where(side, 1.0, odds).astype(z.dtype) / (1.0 + odds) for side in (z > 0, z <= 0))
    log_sum = np.log1p(odds)
    positive = yes if pos_weight is None else pos_weight * yes
    losses = no * (np.maximum(z, 0.0) + log_sum) + positive * (np.maximum(-z, 0.0) + log_sum)
    slope = no * p - positive * rest
    if gamma:
        miss = yes * rest + no * p
        power = miss**gamma
        slope = gamma * miss ** (gamma - 1.0) * (no - yes) * p * rest * losses + power * slope
        losses = power * losses
    if alpha is not None:
        balance = alpha * yes + (1.0 - alpha) * no
        losses, slope = losses * balance, slope * balance
    factor = _factor(options, z.dtype)
    return (losses, slope) if factor is None else (losses * factor, slope * factor)


def _counted(z: np.ndarray, counted: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, with zeros in ignored rows."""
    if counted is None:
        return z, labels
    of_labels = counted[..., None] if labels.ndim > counted.ndim else counted
    of_logits = counted[..., None] if z.ndim > counted.ndim else counted
    return np.where(of_logits, z, z.dtype.type(0)), np.where(of_labels, labels, labels.dtype.type(0))


def _column(value: Any) -> Any:
    """One number per row with an axis for the classes; a number unchanged."""
    return value[..., None] if np.ndim(value) else value


def _over(x: np.ndarray, temperature: Any) -> np.ndarray:
    return x if isinstance(temperature, float) and temperature == 1.0 else x / temperature


def _factor(options: Any, dtype: Any) -> Any:
    """The factor of the losses, or None."""
    if options.counted is None:
        return options.scale
    return np.where(options.counted, 1.0 if options.scale is None else options.scale, 0.0).astype(dtype)
