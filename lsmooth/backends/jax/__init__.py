"""The JAX backend. The formulas need no custom rule here: XLA fuses them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding, PartitionSpec

from lsmooth.backends import formulas
from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas import statistics
from lsmooth.backends.formulas.linear import BlockLoss, Call
from lsmooth.backends.formulas.questions import KNOWN_DIVERGENCE, KNOWN_SOFTMAX
from lsmooth.backends.formulas.rows import accumulate, label_factor
from lsmooth.backends.jax import divergence, linear, sigmoid, spread, thresholds
from lsmooth.backends.jax.log_odds import log_odds
from lsmooth.backends.jax.members import axis_members
from lsmooth.backends.members import Members
from lsmooth.backends.namespace import NamespaceBackend
from lsmooth.backends.options import (
    DIVERGENCE,
    LEFT_OUT,
    SIGMOID,
    SOFTMAX,
    AnyOptions,
    DivergenceOptions,
    SigmoidOptions,
    SoftmaxOptions,
    are_known,
)


class JaxBackend(NamespaceBackend):
    """`Backend` over ``jax.numpy``."""

    name = "jax"
    namespace = jnp

    def is_array(self, x: object) -> bool:
        return isinstance(x, jax.Array)

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        if isinstance(x, jax.Array):
            return x if dtype is None else x.astype(dtype)
        return jnp.asarray(x, None if dtype is None else jax.dtypes.canonicalize_dtype(dtype))

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.asarray(x.astype(jnp.float32) if x.dtype.name in ("float16", "bfloat16") else x)

    def host_values(self, x: Array) -> np.ndarray | None:
        if isinstance(x, jax.core.Tracer):
            return None
        (device, *others) = x.devices()
        return np.asarray(x) if device.platform == "cpu" and not others else None

    def dtype(self, x: Array) -> str:
        return x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        return x.astype(jax.dtypes.canonicalize_dtype(dtype))

    def shape(self, x: Array) -> tuple[int | None, ...]:
        return x.shape

    def is_concrete(self, x: Array) -> bool:
        return not isinstance(x, jax.core.Tracer)

    def ones_like(self, x: Array, dtype: str) -> Array:
        if jax.sharding.get_abstract_mesh().manual_axes:  # ones do not vary over the devices, even where ``x`` does
            return jnp.ones(x.shape, dtype)
        return jnp.ones_like(x, dtype)

    def divide_logits(self, x: Array, divisor: Array) -> Array:
        return _divide_logits(x, divisor)

    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        return jax.nn.one_hot(index, num_classes, dtype=dtype)

    def softplus(self, x: Array) -> Array:
        return _softplus(x)

    def clip(self, x: Array, low: float, high: float) -> Array:
        return jnp.clip(x, low, high)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return jnp.where(condition, x, y)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return jnp.sum(x, axis=axis)

    def argmax(self, x: Array, axis: int) -> Array:
        if (
            axis in (-1, x.ndim - 1)
            and isinstance(x.shape[-1], int)
            and x.shape[-1] >= thresholds.ARGMAX_CLASSES
            and not _is_spread(x)
        ):
            return _argmax_by_parts(x)
        return jnp.argmax(x, axis=axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        return jax.nn.logsumexp(x, axis=axis)

    def unmasked_mean(self, x: Array, shift: Array) -> Array:
        # Devices that share the rows would have to agree on a branch; of constants in a program no type says so.
        shared = jax.device_count() > 1 and not self.is_concrete(x)
        return (_plain_mean if shared else _unmasked_mean)(x, shift)

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        # Outside jit even a move to the same place is a copy.
        return x if (source - destination) % x.ndim == 0 else jnp.moveaxis(x, source, destination)

    def take(self, table: Array, index: Array) -> Array:
        rows = jax.typeof(index).sharding
        if not any(rows.spec):
            return table[index]
        # Rows whose type says that devices share them: JAX wants to be told that so do the entries.
        spec = PartitionSpec(*rows.spec, *jax.typeof(table).sharding.spec[1:])
        return table.at[index].get(out_sharding=NamedSharding(rows.mesh, spec))

    def put(self, x: Array, index: Array, values: Array) -> Array:
        return jnp.put_along_axis(x, index, values, axis=-1, inplace=False)

    def pick(self, x: Array, index: Array) -> Array:
        return _pick(x, index)

    def top(self, x: Array, index: Array) -> tuple[Array, Array]:
        return _top(x, index)

    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        index, weights = map(spread.everywhere, (index, weights))  # a scatter needs them whole
        return jnp.zeros(length, weights.dtype).at[index].add(weights)

    def cumsum(self, x: Array) -> Array:
        return jnp.cumsum(x, axis=-1)

    def stop_gradient(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    def value_and_grad(self, function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(function)(x)

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
        if _has_slices(logits, options):
            return spread.cross_entropy(self, logits, labels, options)
        return _compiled(formulas.softmax_cross_entropy, self, options, logits, labels)

    def softmax_cross_entropy_with_statistics(
        self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX
    ) -> tuple[Array, statistics.RowStatistics]:
        if _has_slices(logits, options):
            return spread.cross_entropy_with_statistics(self, logits, labels, options)
        return _compiled(Backend.softmax_cross_entropy_with_statistics, self, options, logits, labels)

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
        if spread.number_of_slices(student) > 1 and are_known(options, KNOWN_DIVERGENCE):
            return spread.divergence(self, teacher, student, options)
        if not (are_known(options, divergence.KNOWN) and divergence.fits(student, options)):
            return _compiled(formulas.softmax_divergence, self, options, teacher, student)
        return divergence.blocks(self, teacher, student, options)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
        if not are_known(options, sigmoid.KNOWN):
            return super().sigmoid_cross_entropy(logits, labels, options)
        return sigmoid.cross_entropy(logits, labels, options)

    def label_log_odds(self, logits: Array, labels: Array) -> Array:
        if _is_spread(logits):
            return super().label_log_odds(logits, labels)
        logits = accumulate(self, logits)
        labels, factor = label_factor(self, labels, logits.shape[-1], self.dtype(logits))
        return factor * log_odds(logits, labels)

    def linear_rows(self, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
        return linear.linear_rows(self, loss, call, block_size)

    def members(self, group: Any, option: str) -> Members:
        return axis_members(group, option)

    def divides_last(self, logits: Array) -> bool:
        return spread.may_be_spread(logits)


def _has_slices(logits: Array, options: SoftmaxOptions) -> bool:
    return spread.number_of_slices(logits) > 1 and are_known(options, KNOWN_SOFTMAX)


def _is_small(x: Array, limit: int = thresholds.SMALL) -> bool:
    return all(isinstance(size, int) for size in x.shape) and x.size <= limit


def _fixed(options: AnyOptions) -> tuple[AnyOptions, dict[str, Any]]:
    """The options that formulas read while they are traced, the others at their default; and the others."""

    def is_read(name: str, value: Any) -> bool:
        if type(value) in (str, bool, int):
            return True
        return isinstance(value, float) and value == LEFT_OUT.get(name)

    given = zip(options._fields, options, strict=True)
    others = {name: value for name, value in given if value is not None and not is_read(name, value)}
    defaults = type(options)()
    return options._replace(**{name: getattr(defaults, name) for name in others}), others


def _compiled(formula: Callable[..., Any], xp: Backend, options: AnyOptions, x: Array, y: Array) -> Any:
    """A formula as one program; a call outside jit would run one for each operation."""
    if not (spread.is_staged(x) or spread.is_staged(y)):
        return _program(formula, xp, *_fixed(options), x, y)
    # Within a program, each function of `jax.numpy` is under jit too. JAX would trace them apart for each new shape.
    with jax.disable_jit():
        return formula(xp, x, y, options)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _program(formula: Callable[..., Any], xp: Backend, read: Any, others: Any, x: Array, y: Array) -> Any:
    return formula(xp, x, y, read._replace(**others))


@functools.partial(jax.jit, inline=True)
def _plain_mean(x: Array, shift: Array) -> Array:
    masked = x == -jnp.inf
    terms = jnp.where(masked, 0.0, x - shift[..., None])
    return jnp.sum(terms, axis=-1) / jnp.sum((~masked).astype(x.dtype), axis=-1)


def _is_spread(x: Array) -> bool:
    """Whether the type says that several devices hold the classes: JAX takes no entry from there."""
    return jax.typeof(x).sharding.spec[-1] is not None


@functools.partial(jax.jit, inline=True)
def _chosen(x: Array, index: Array) -> Array:
    wide = index.dtype if index.dtype.itemsize > 4 else jnp.int32
    classes = jax.lax.broadcasted_iota(wide, (1,) * index.ndim + (x.shape[-1],), index.ndim)
    return jnp.sum(jnp.where(index[..., None].astype(wide) == classes, x, 0), axis=-1)


def _pick(x: Array, index: Array) -> Array:
    return _chosen(x, index) if _is_small(x) or _is_spread(x) else _entry(x, index)


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """`jax.nn.softplus`; the logarithm is shared with ``softplus(-x)`` and with the derivatives."""
    # By the minimum, not abs: XLA sees that that of -x is the same.
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(jnp.minimum(x, -x)))


@_softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _softplus(x), jnp.exp(-_softplus(-x)) * dx


@jax.custom_jvp
def _divide_logits(x: Array, divisor: Array) -> Array:
    return x / divisor


@functools.partial(_divide_logits.defjvp, symbolic_zeros=True)
def _divide_logits_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    """A select over all logits, for which XLA may keep an array, only where the divisor is differentiated."""
    (x, divisor), (dx, dy) = primals, tangents
    out = _divide_logits(x, divisor)
    slope = jnp.zeros_like(out) if isinstance(dx, SymbolicZero) else dx / divisor
    if not isinstance(dy, SymbolicZero):
        slope -= jnp.where(out == -jnp.inf, 0.0, out) * (dy / divisor)
    return out, slope


@jax.custom_jvp
def _entry(x: Array, index: Array) -> Array:
    """`Backend.pick`, whose gradient is a choice, which XLA fuses with others, and no scatter into zeros."""
    return jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]


@_entry.defjvp
def _entry_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    return _entry(*primals), _chosen(tangents[0], primals[1])


@jax.jit
def _top(x: Array, index: Array) -> tuple[Array, Array]:
    """`Backend.top`; an argmax, which XLA does not vectorise on processors, only where a maximum may be shared."""
    highest = jnp.max(x, axis=-1)
    if x.shape[-1] >= thresholds.ARGMAX_CLASSES:
        return highest, _is_at(_argmax_by_parts(x), index)
    hit = _pick(x, index) == highest
    # 1 for each entry that has the maximum, 0 for one that is below, between them for one that is hardly so.
    shares = jnp.sum(jnp.exp((jax.lax.stop_gradient(x) - highest[..., None]) * 1e30), axis=-1)
    alone = jnp.all(~hit | (shares == 1))
    return highest, jax.lax.cond(alone, lambda: hit, lambda: _is_at(jnp.argmax(x, axis=-1), index))


def _is_at(winner: Array, index: Array) -> Array:
    return winner == index.astype(winner.dtype)


@functools.partial(jax.jit, inline=True)
def _argmax_by_parts(x: Array) -> Array:
    """The argmax of long rows: of the maxima of their parts, which XLA vectorises, and then of one part."""
    full = x.shape[-1] - x.shape[-1] % thresholds.ARGMAX_PART
    parts = jnp.reshape(x[..., :full], (*x.shape[:-1], -1, thresholds.ARGMAX_PART))
    maxima = jnp.max(parts, axis=-1)
    part = jnp.argmax(maxima, axis=-1)
    inside = jnp.take_along_axis(parts, part[..., None, None], axis=-2)[..., 0, :]
    winner = part * thresholds.ARGMAX_PART + jnp.argmax(inside, axis=-1)
    if full == x.shape[-1]:
        return winner
    rest = x[..., full:]
    return jnp.where(jnp.max(rest, axis=-1) > jnp.max(maxima, axis=-1), full + jnp.argmax(rest, axis=-1), winner)


@jax.custom_jvp
def _unmasked_mean(x: Array, shift: Array) -> Array:
    """`Operations.unmasked_mean`, where the common case, nothing masked, costs one pass and no mask."""
    return _unmasked_mean_and_count(x, shift)[0]


@_unmasked_mean.defjvp
def _unmasked_mean_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, shift), (dx, d_shift) = primals, tangents
    mean, count = _unmasked_mean_and_count(x, shift)
    return mean, jnp.sum(jnp.where(x == -jnp.inf, 0.0, dx), axis=-1) / count - d_shift


@functools.partial(jax.jit, inline=True)  # called eagerly, the branches would be compiled at every call
def _unmasked_mean_and_count(x: Array, shift: Array) -> tuple[Array, Array]:
    x, shift = jax.lax.stop_gradient(x), jax.lax.stop_gradient(shift)
    # The log-sum-exp needs ``x - shift`` too: without the barrier XLA would form it once, in an array of x's size.
    apart = jax.lax.optimization_barrier(shift)[..., None]

    def masked(x: Array, apart: Array) -> tuple[Array, Array]:
        mask = x == -jnp.inf
        # A sum of floats: XLA takes 80 ms more to compile one of bools.
        count = jnp.sum(jnp.where(mask, 0.0, jnp.ones_like(x)), axis=-1)
        return jnp.sum(jnp.where(mask, 0.0, x - apart), axis=-1) / count, count

    if _is_small(x, thresholds.BRANCH_ELEMENTS):
        return masked(x, apart)
    total = jnp.sum(x - apart, axis=-1)

    def plain(x: Array, apart: Array) -> tuple[Array, Array]:
        return total / x.shape[-1], jnp.full_like(total, x.shape[-1])

    return jax.lax.cond(jnp.all(total > -jnp.inf), plain, masked, x, apart)
