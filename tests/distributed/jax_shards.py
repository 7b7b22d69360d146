"""Run by test_jax_shards.py: calls with ``class_shards`` and ``row_shards`` on eight devices, compared with one."""

import json
import os
import sys

# Most of the time goes into compilation, and no number depends on how much is optimised.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from lsmooth import distillation, losses

jax.config.update("jax_enable_x64", True)
ROWS, CLASSES, FEATURES = 16, 32, 5
mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


def masked(x):
    return np.where((np.arange(CLASSES) % 7 == 3) & (np.arange(len(x)) % 3 == 0)[:, None], -np.inf, x)


labels = rng.integers(0, CLASSES - 5, ROWS)
labels[::5] = 3
weights = rng.random(ROWS)
weights[::4] = 0.0
# Of each array, which of its axes are the rows and which the classes.
ARRAYS = {
    "labels": (labels, "r"),
    "logits": (3.0 * normal(ROWS, CLASSES), "rc"),
    "soft": (rng.dirichlet(np.ones(CLASSES), ROWS), "rc"),
    "teacher": (3.0 * normal(ROWS, CLASSES), "rc"),
    "hidden": (normal(ROWS, FEATURES), "r."),
    "weight": (normal(CLASSES, FEATURES), "c."),
    "bias": (normal(CLASSES), "c"),
    "hidden of the teacher": (normal(ROWS, FEATURES), "r."),
    "weight of the teacher": (normal(CLASSES, FEATURES), "c."),
    "per class": (rng.random(CLASSES) + 0.1, "c"),
    "prior": (rng.random(CLASSES) + 0.1, "c"),
    "per row": (rng.random(ROWS) + 0.5, "r"),
    "smoothing": (0.5 * rng.random(ROWS), "r"),
    "sample weight": (weights, "r"),
    "mask": (rng.random(ROWS) > 0.3, "r"),
}
ARRAYS["masked"] = (masked(ARRAYS["logits"][0]), "rc")
ARRAYS["masked bias"] = (np.where(np.arange(CLASSES) % 7 == 3, -np.inf, ARRAYS["bias"][0]), "c")

LOGITS = {"labels": "labels", "logits": "logits"}
HEAD = {"labels": "labels", "hidden": "hidden", "weight": "weight", "bias": "bias"}
PAIR = {"teacher_logits": "teacher", "student_logits": "logits"}
HEADS = {
    "teacher_hidden": "hidden of the teacher",
    "teacher_weight": "weight of the teacher",
    "student_hidden": "hidden",
    "student_weight": "weight",
    "student_bias": "bias",
}
OPTIONS = {
    "label_smoothing": 0.1,
    "smoothing_prior": "prior",
    "class_weight": "per class",
    "temperature": "per row",
    "logit_softcap": 4.0,
    "z_loss": 0.1,
    "ignore_index": 3,
}
REDUCTIONS = ("none", "sum", "sum_over_batch_size", "mean_with_sample_weight", "sum_by_nonzero_weights", "mean")
# The arguments of each case; strings name arrays.
OF_LOGITS = [
    {},
    {"label_smoothing": 0.1},
    OPTIONS,
    {**OPTIONS, "logits": "masked", "label_smoothing": "smoothing", "mask": "mask"},
    {"labels": "soft", "label_smoothing": 0.1, "class_weight": "per class", "mask": "mask"},
    {"num_classes": CLASSES - 5, "label_smoothing": 0.1, "temperature": 2.0},
    *({"sample_weight": "sample weight", "label_smoothing": 0.1, "reduction": name} for name in REDUCTIONS),
]
OF_HEAD = [
    {"block_size": 3},
    {**OPTIONS, "block_size": 3},
    {"bias": "masked bias", "label_smoothing": "smoothing", "num_classes": CLASSES - 5, "mask": "mask"},
    {"labels": "soft", "class_weight": "per class", "sample_weight": "sample weight", "block_size": 5},
    {"reduction": "none", "label_smoothing": 0.1, "block_size": 3},
]
OF_PAIR = [
    *({"divergence": name, "temperature": 2.0} for name in ("forward_kl", "reverse_kl", "jensen_shannon", "alpha")),
    *({"divergence": name, "mask": "mask"} for name in ("total_variation", "mse_logits", "cosine")),
    {"temperature": "per row", "sample_weight": "sample weight", "reduction": "mean_with_sample_weight"},
]
OF_HEADS = [
    {"temperature": 2.0, "labels": "labels", "ignore_index": 3, "label_smoothing": 0.1, "block_size": 3},
    {"divergence": "jensen_shannon", "temperature": "per row", "block_size": 3},
    {"divergence": "reverse_kl", "reduction": "none", "mask": "mask"},
]
CASES = [
    *((losses.softmax_cross_entropy, {**LOGITS, **given}) for given in OF_LOGITS),
    *(
        (losses.softmax_statistics, {**LOGITS, **given})
        for given in ({"temperature": "per row"}, {"logit_softcap": 3.0})
    ),
    *((losses.softmax_cross_entropy_with_statistics, {**LOGITS, **given}) for given in ({}, OPTIONS)),
    *((losses.linear_softmax_cross_entropy, {**HEAD, **given}) for given in OF_HEAD),
    *((losses.linear_softmax_statistics, {**HEAD, **given}) for given in ({"temperature": "per row"},)),
    *((losses.linear_softmax_cross_entropy_with_statistics, {**HEAD, **given}) for given in (OPTIONS,)),
    *((distillation.distillation_loss, {**PAIR, **given}) for given in OF_PAIR),
    *((distillation.linear_distillation_loss, {**HEADS, **given}) for given in OF_HEADS),
]
CASES = [(f, given) for f, given in CASES if "class_shards" in inspect.signature(f).parameters]


def split(given):
    """The arrays of a call, by argument, and its other arguments."""
    arrays = {name: x for name, x in given.items() if isinstance(x, str) and x in ARRAYS}
    return arrays, {name: x for name, x in given.items() if name not in arrays}


def loss_and_parts(function, arrays, others, **spread):
    """A number to differentiate, all that the call gives, and whether the number is that of these rows alone."""
    found = jax.tree.leaves(function(**arrays, **others, **spread))
    floats = [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]
    # Weight the rows by their values, so that no gradient cancels.
    return sum(jnp.sum(x) if x.ndim == 0 else jnp.sum(jnp.sin(x)) for x in floats), tuple(found)


def step_of(function, others, names, **spread):
    """The parts and the gradients of a call, as a function of its arrays."""

    def step(wanted, rest):
        def loss(wanted):
            return loss_and_parts(function, {**wanted, **rest}, others, **spread)

        (_, parts), gradients = jax.value_and_grad(loss, has_aux=True)(wanted)
        return parts, gradients

    return step


def spec_of(axes, rows, classes):
    return PartitionSpec(*[{"r": rows, "c": classes, ".": None}[axis] for axis in axes])


def size_of(axes):
    return int(np.prod([mesh.shape[name] for name in ((axes,) if isinstance(axes, str) else axes or ())]))


def compare(function, given, rows, classes, check_vma, outside):
    """The largest difference between a call on one device and one over many."""
    names, others = split(given)
    wanted = [name for name in names if np.issubdtype(ARRAYS[names[name]][0].dtype, np.floating)]
    wanted = [name for name in wanted if not name.startswith("teacher") and "sample" not in name]
    values = {name: jnp.asarray(ARRAYS[key][0]) for name, key in names.items()}
    specs = {name: spec_of(ARRAYS[key][1], rows, classes) for name, key in names.items()}
    parts = [
        {name: x[name] for name in x if (name in wanted) is want} for x in (values, specs) for want in (True, False)
    ]
    (first, rest), (first_specs, rest_specs) = parts[:2], parts[2:]
    expected, slopes = jax.jit(step_of(function, others, names))(first, rest)
    spread = {"class_shards": classes, "row_shards": rows}
    spread = {name: axis for name, axis in spread.items() if name in inspect.signature(function).parameters}
    part_specs = tuple(PartitionSpec() if x.ndim == 0 else PartitionSpec(rows) for x in expected)
    mapped = functools.partial(jax.shard_map, mesh=mesh, check_vma=check_vma)
    if outside:

        def loss(first):
            def local(first, rest):
                return loss_and_parts(function, {**first, **rest}, others, **spread)[1]

            found = mapped(local, in_specs=(first_specs, rest_specs), out_specs=part_specs)(first, rest)
            floats = [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(jnp.sum(x) if x.ndim == 0 else jnp.sum(jnp.sin(x)) for x in floats), found

        gradients, found = jax.jit(jax.grad(loss, has_aux=True))(first)
    else:

        def local(first, rest):
            found, gradients = step_of(function, others, names, **spread)(first, rest)
            if not check_vma and rows is not None:  # gradients of shared arrays add up
                add = functools.partial(jax.lax.psum, axis_name=rows)
                gradients = {k: g if "r" in ARRAYS[names[k]][1] else add(g) for k, g in gradients.items()}
            return found, gradients

        mapping = mapped(local, in_specs=(first_specs, rest_specs), out_specs=(part_specs, first_specs))
        found, gradients = jax.jit(mapping)(first, rest)
    pairs = [*zip(found, expected, strict=True), *((gradients[name], slopes[name]) for name in slopes)]
    return max(difference(x, y) for x, y in pairs)


def difference(x, y):
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = (z[x != y] for z in (x, y))  # infinities among those that are equal
    return float(np.max(np.abs(x - y) / np.maximum(1.0, np.abs(y)), initial=0.0))


LAYOUTS = [("data", "model"), (None, "model"), (None, "data"), (None, ("data", "model")), (("data", "model"), None)]
WAYS = [
    (True, False),
    (True, True),
    (False, False),
]  # check_vma, and whether gradients are taken outside of the mapping


def runs():
    """Every case once on rows and classes that are spread, and every layout and way with some of them."""
    for number, (function, given) in enumerate(CASES):
        way = (True, True) if "statistics" in function.__name__ else WAYS[number % len(WAYS)]
        yield function, given, "data", "model", *way
    for number, (rows, classes) in enumerate(LAYOUTS[1:]):
        yield losses.softmax_cross_entropy, {**LOGITS, **OPTIONS}, rows, classes, *WAYS[number % len(WAYS)]
        yield (
            losses.linear_softmax_cross_entropy,
            {**HEAD, **OF_HEAD[1]},
            rows,
            classes,
            *WAYS[(number + 1) % len(WAYS)],
        )


if __name__ == "__main__":
    found = [
        [function.__name__, *rest, compare(function, *rest)]
        for number, (function, *rest) in enumerate(runs())
        if len(sys.argv) == 1 or str(number) in sys.argv
    ]
    print(json.dumps(found))
