"""Run by test_sharded.py: losses of arrays spread over four devices, compared with one."""

import json
import math
import re
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lsmooth.distillation import decoupled_distillation_loss, distillation_loss, linear_distillation_loss
from lsmooth.losses import (
    linear_softmax_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    softmax_focal_loss,
)

jax.config.update("jax_num_cpu_devices", 4)

ROWS, CLASSES, FEATURES, EPS = 64, 256, 8, 0.1
MOVES = re.compile(r"= \w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\(")
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType[sys.argv[1]],) * 2)
rng = np.random.default_rng(0)
student, teacher = (rng.standard_normal((ROWS, CLASSES), np.float32) for _ in range(2))
hidden, weight = (rng.standard_normal((n, FEATURES), np.float32) for n in (ROWS, CLASSES))
labels = rng.integers(0, CLASSES, ROWS)
per_class = np.arange(1.0, CLASSES + 1)


HEADS = {
    "linear head": lambda h, w, y: linear_softmax_cross_entropy(y, h, w, label_smoothing=EPS, block_size=12),
    "linear heads": lambda h, w, y: linear_distillation_loss(h, w, 0.5 * h, w, temperature=2.0, block_size=12),
}
LOSSES = {
    "cross-entropy": lambda z, t, y: softmax_cross_entropy(y, z, label_smoothing=EPS),
    "options": lambda z, t, y: softmax_cross_entropy(
        y, z, label_smoothing=EPS, class_weight=per_class, smoothing_prior=per_class, ignore_index=0, z_loss=0.1
    ),
    "sigmoid": lambda z, t, y: sigmoid_cross_entropy(t > 0, z, label_smoothing=EPS),
    "focal": lambda z, t, y: softmax_focal_loss(y, z, label_smoothing=EPS),
    "forward KL": lambda z, t, y: distillation_loss(t, z, temperature=2.0),
    "decoupled": lambda z, t, y: decoupled_distillation_loss(t, z, y, temperature=2.0),
}


def linear_distillation(h, w, y):
    return linear_distillation_loss(h, w, 0.5 * h, w, temperature=2.0, block_size=12)


def of_each_device(loss, shards):
    """The mean of the results of each device for its own rows."""

    def mean(*arrays):
        return jax.lax.pmean(loss(*arrays), ("data", "model"))

    return jax.shard_map(mean, mesh=mesh, in_specs=shards, out_specs=PartitionSpec())


def place(x, *axes):
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))


def compare(name, along, loss, wanted, plain, arrays, spread_loss=None):
    """The differences of loss and gradients between spread and plain arrays, and the communication."""
    step = jax.jit(jax.value_and_grad(spread_loss or loss, wanted))
    compiled = step.lower(*arrays).compile()
    value, gradients = compiled(*arrays)
    there = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss, wanted))(*plain))
    errors = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()), (value, gradients), there)
    moved = [math.prod(map(int, filter(None, shape.split(",")))) for shape in MOVES.findall(compiled.as_text())]
    return {
        "loss": name,
        "along": along,
        "error": max(jax.tree.leaves(errors)),
        "gathered": max(moved, default=0),
        "rows": ROWS,
        "in place": all(g.sharding.is_equivalent_to(x.sharding, 2) for g, x in zip(gradients, arrays, strict=False)),
    }


found = []
# Under explicit sharding, a layout along both axes covers layouts along one.
layouts = [("data", "model")] if sys.argv[1] == "Explicit" else [("data", None), (None, "model"), ("data", "model")]
for rows, classes in layouts:
    spread = place(student, rows, classes), place(teacher, rows, classes), place(labels, rows)
    for name, loss in LOSSES.items():
        found.append(compare(name, [rows, classes], loss, (0,), (student, teacher, labels), spread))
    heads = place(hidden, rows, None), place(weight, classes, None), place(labels, rows)
    for name, loss in HEADS.items():
        found.append(compare(name, [rows, classes], loss, (0, 1), (hidden, weight, labels), heads))

both, everywhere = ("data", "model"), PartitionSpec()
for name, loss in (LOSSES | HEADS).items():
    if name == "options":
        continue  # a mean by class weights is not the mean of the devices' means
    plain, wanted, second = (student, teacher, labels), (0,), PartitionSpec(both)
    if name in HEADS:
        plain, wanted, second = (hidden, weight, labels), (0, 1), everywhere
    shards = PartitionSpec(both), second, PartitionSpec(both)
    arrays = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(plain, shards, strict=True)]
    found.append(compare(name, "shard_map", loss, wanted, plain, arrays, of_each_device(loss, shards)))
print(json.dumps(found))
