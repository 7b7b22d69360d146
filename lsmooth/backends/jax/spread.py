"""Losses under ``jax.jit`` of logits whose classes devices may share, by slices that exchange a few numbers per row.

With explicit sharding, types say which devices share an axis, and each device works on its slice under
``jax.shard_map``. Otherwise XLA decides later: the classes are divided along a new axis into at least as many slices as
there may be shards. The columns of a slice stay on its device, and the sum over the slices is one collective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas import questions, sharded
from lsmooth.backends.formulas.linear import BlockLoss, Call, CrossEntropyOfBlock, Head
from lsmooth.backends.formulas.rows import reduced
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.jax.members import AxisMembers
from lsmooth.backends.members import Members
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, are_known, with_arrays, without_arrays

# The axis of the slices.
SLICES = "lsmooth: slices of the classes"
Arrays = dict[str, Array]


def is_staged(x: Array) -> bool:
    """Whether ``x`` belongs to a program that is being traced: eager `jax.grad` and `jax.vmap` hold values."""
    while isinstance(x, jax.core.Tracer):
        if hasattr(x, "primal"):
            x = x.primal
        elif hasattr(x, "batch_dim"):
            x = x.val
        else:
            return True
    return False


def may_be_spread(x: Array) -> bool:
    """Whether devices may share a traced array."""
    return isinstance(x, jax.core.Tracer) and (_automatic_devices(x) > 1 or any(_explicit(x)))


def number_of_slices(logits: Array) -> int:
    """The number of slices of the classes, a multiple of every possible number of shards; 1 for none."""
    if not isinstance(logits, jax.core.Tracer) or not isinstance(logits.shape[-1], int):
        return 1
    names = _explicit(logits)[-1]
    if names is not None and not hasattr(jax, "shard_map"):  # JAX 0.6.0
        return 1
    if names is not None:
        return math.prod(jax.typeof(logits).sharding.mesh.shape[name] for name in _names(names))
    return math.gcd(logits.shape[-1], _automatic_devices(logits))


def everywhere(x: Array) -> Array:
    """Replicate an array with explicit sharding on every device; other arrays are unchanged."""
    if not any(_explicit(x)):
        return x
    return jax.sharding.reshard(x, NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec()))


def _explicit(x: Array) -> tuple[Any, ...]:
    """For each axis, the names of the mesh axes along which it is explicitly split."""
    spec = tuple(jax.typeof(x).sharding.spec)
    return spec + (None,) * (x.ndim - len(spec))


def _automatic_devices(x: Array) -> int:
    """The number of devices over which XLA may spread an array."""
    mesh = jax.typeof(x).sharding.mesh
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True)) if mesh.axis_names else {}
    return math.prod([mesh.shape[name] for name, kind in kinds.items() if kind == AxisType.Auto])


def _names(entry: Any) -> tuple[Any, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def over_slices(
    function: Callable[[Members, Arrays, Arrays], Any], logits: Array, classes: Arrays, rows: Arrays
) -> Any:
    """Call ``function(members, classes, rows)`` on each slice; its results are arrays of rows that are equal on all.

    Args:
        function: the computation.
        logits: (..., classes), whose type determines the slices.
        classes: arrays with the classes last, (..., classes) or (classes,).
        rows: arrays (...).
    """
    names = _explicit(logits)[-1]
    if names is None:
        slices = number_of_slices(logits)
        split = {name: jnp.reshape(x, (*x.shape[:-1], slices, -1)) for name, x in classes.items()}

        def of_slice(classes: Arrays, rows: Arrays) -> Any:
            return function(AxisMembers((SLICES,), True), classes, rows)

        return jax.vmap(of_slice, in_axes=(-2, None), out_axes=None, axis_name=SLICES)(split, rows)

    mesh, along_rows = jax.typeof(logits).sharding.mesh, _explicit(logits)[:-1]
    specs = (
        {
            name: PartitionSpec(*along_rows, names) if x.ndim > 1 else PartitionSpec(names)
            for name, x in classes.items()
        },
        {name: PartitionSpec(*along_rows) for name in rows},
    )
    there = jax.tree.map(lambda x, spec: jax.sharding.reshard(x, NamedSharding(mesh, spec)), (classes, rows), specs)

    def of_device(classes: Arrays, rows: Arrays) -> Any:
        return function(AxisMembers(_names(names), True), classes, rows)

    return jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(*along_rows))(*there)


def cross_entropy(xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
    """`formulas.softmax_cross_entropy`."""
    return reduced(xp, _cross_entropy(xp, logits, labels, options, False)[0], options)


def cross_entropy_with_statistics(
    xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions
) -> tuple[Array, RowStatistics]:
    """`formulas.softmax_cross_entropy` and `formulas.statistics.row_statistics`."""
    losses, *statistics = _cross_entropy(xp, logits, labels, options, True)
    return reduced(xp, losses, options), RowStatistics(*statistics)


def _cross_entropy(
    xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions, statistics: bool
) -> tuple[Array, ...]:
    """The losses of the rows, and optionally their statistics."""
    numbers, rows, per_class = without_arrays(xp, options._replace(scale=None, total=False))
    soft, size = labels.ndim == logits.ndim, logits.shape[-1]
    classes = {"logits": logits, **per_class, **({"labels": labels} if soft else {})}
    classes = {name: _padded(x, size) for name, x in classes.items()}
    rows = _over_rows(rows if soft else {"labels": labels, **rows}, logits)

    def of_slice(members: Members, classes: Arrays, rows: Arrays) -> Any:
        head, others = Head(classes.pop("logits"), None), {**rows, **classes}
        return _losses_of_slice(xp, members, head, others.pop("labels"), with_arrays(numbers, others), statistics)

    return over_slices(of_slice, logits, classes, rows)


def _losses_of_slice(
    xp: Backend,
    members: Members,
    head: Head,
    labels: Array,
    options: SoftmaxOptions,
    statistics: bool = False,
    block_size: int | None = None,
) -> tuple[Array, ...]:
    """The unscaled losses of the rows, and optionally their statistics, from a slice of the classes."""
    num_classes, options = options.num_classes, options._replace(num_classes=None)
    if xp.is_array(options.temperature):
        options = options._replace(temperature=members.shared(options.temperature))
    numbers, rows, per_class = without_arrays(xp, options)
    smoothed = numbers.label_smoothing != 0.0 or rows.pop("label_smoothing", None) is not None
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    question = questions.CrossEntropyQuestion(numbers, soft, smoothed, "class_weight" in per_class, statistics)
    call = Call((head,), {"labels": labels, **rows}, per_class)
    asked = sharded.Asked(xp, members, call, num_classes, block_size=block_size)
    answer, more = sharded.cross_entropy(asked, question, options)
    if not statistics:
        return (answer.losses,)
    return answer.losses, answer.log_prob, answer.entropy, answer.log_sum_exp, more[0]


def divergence(xp: Backend, teacher: Array, student: Array, options: DivergenceOptions) -> Array:
    """`formulas.softmax_divergence`."""
    numbers, rows, _ = without_arrays(xp, options._replace(scale=None, total=False))

    def of_slice(members: Members, classes: Arrays, rows: Arrays) -> Any:
        along = {name: members.shared(x) if name == "temperature" else x for name, x in rows.items()}
        dtype = "float64" if xp.dtype(student) == "float64" else "float32"
        heads = tuple(Head(xp.cast(classes[name], dtype), None) for name in ("teacher", "student"))
        asked = sharded.Asked(xp, members, Call(heads, along, {}))
        return sharded.divergence_and_losses(asked, questions.DivergenceQuestion(numbers), with_arrays(numbers, along))[
            0
        ]

    classes = {"teacher": teacher, "student": student}
    return reduced(xp, over_slices(of_slice, student, classes, _over_rows(rows, student)), options)


def shares_head(loss: BlockLoss, call: Call) -> bool:
    """Whether linear heads have explicitly sharded rows or classes, so that each device can work alone."""
    hidden, weights = call.heads[0].hidden, [_explicit(head.weight) for head in call.heads]
    if not isinstance(hidden, jax.core.Tracer) or not hasattr(jax, "shard_map"):
        return False
    features = [_explicit(head.hidden)[-1] for head in call.heads] + [spec[1] for spec in weights]
    classes = {spec[0] for spec in weights}
    if any(features) or len(classes) > 1:
        return False
    if any(classes) and not (
        isinstance(loss, CrossEntropyOfBlock)
        and are_known(with_arrays(loss.options, call.rows, call.shared), questions.KNOWN_SOFTMAX)
    ):
        return False
    return any(classes) or any(_explicit(hidden)[:-1])


def linear_rows(xp: Backend, loss: Any, call: Call, block_size: int | None) -> Array:
    """`Backend.linear_rows` of heads that devices share; loops over blocks do not communicate."""
    mesh, along_rows = jax.typeof(call.heads[0].hidden).sharding.mesh, _explicit(call.heads[0].hidden)[:-1]
    names = _explicit(call.heads[0].weight)[0]
    specs = call.map(lambda x, rows: PartitionSpec(*along_rows if rows else (names,)), call.along_rows())
    if names is not None and call.rows["labels"].ndim > len(along_rows):  # distributions
        specs = specs._replace(rows={**specs.rows, "labels": PartitionSpec(*along_rows, names)})
    row_axes = tuple(name for entry in along_rows if entry is not None for name in _names(entry))

    def of_device(call: Call) -> Array:
        if names is None:
            losses = xp.linear_rows(loss, call, block_size)
        else:
            members = AxisMembers(_names(names), True)
            options = with_arrays(loss.options._replace(scale=loss.scale, total=loss.total), call.rows, call.shared)
            own = options._replace(scale=None, total=False)
            losses = _losses_of_slice(xp, members, call.heads[0], call.rows["labels"], own, block_size=block_size)[0]
            losses = reduced(xp, losses, options)
        return jax.lax.psum(losses, row_axes) if loss.total and row_axes else losses

    there = jax.tree.map(lambda x, spec: jax.sharding.reshard(x, NamedSharding(mesh, spec)), call, specs)
    out = PartitionSpec() if loss.total else PartitionSpec(*along_rows)
    return jax.shard_map(of_device, mesh=mesh, in_specs=(specs,), out_specs=out)(there)


def _padded(x: Array, size: int) -> Array:
    """``x`` with zeros for the padded classes."""
    return x if x.shape[-1] == size else jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])])


def _over_rows(rows: Arrays, logits: Array) -> Arrays:
    return {
        name: x if x.shape == logits.shape[:-1] else jnp.broadcast_to(x, logits.shape[:-1]) for name, x in rows.items()
    }
