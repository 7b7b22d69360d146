"""Run by test_jax_shards.py: one of two processes of ``jax.distributed``, each with four devices.

Arguments: the rank, and the port of the coordinator on this machine.
"""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy

rank, port = map(int, sys.argv[1:])
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank, initialization_timeout=120)
# The classes are spread over both processes.
mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
mesh = jax.sharding.Mesh(mesh.devices.reshape(4, 2, order="F").T, mesh.axis_names, axis_types=mesh.axis_types)
rng = np.random.default_rng(0)
logits, hidden, weight = rng.standard_normal((8, 16)), rng.standard_normal((8, 3)), rng.standard_normal((16, 3))
labels = rng.integers(0, 16, 8)
OPTIONS = {"label_smoothing": 0.1, "ignore_index": int(labels[0])}
ROWS, CLASSES, BOTH = PartitionSpec("data"), PartitionSpec("model"), PartitionSpec("data", "model")
SHARDS = {"class_shards": "model", "row_shards": "data"}


def everywhere(x, spec):
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])


def difference(many, one):
    """The largest difference from the parts of an array that this process has."""
    pairs = zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True)
    each = [np.abs(np.asarray(s.data) - np.asarray(y)[s.index]).max() for x, y in pairs for s in x.addressable_shards]
    return float(max(each))


def of_logits(z, y, **shards):
    return softmax_cross_entropy(y, z, **OPTIONS, **shards)


def of_head(head, y, **shards):
    return linear_softmax_cross_entropy(y, *head, **OPTIONS, block_size=2, **shards)


found = []
for function, arrays, specs in ((of_logits, logits, BOTH), (of_head, (hidden, weight), (ROWS, CLASSES))):
    one = jax.jit(jax.value_and_grad(function))(jax.tree.map(jnp.asarray, arrays), labels)
    placed = jax.tree.map(everywhere, arrays, specs), everywhere(labels, ROWS)
    found.append(difference(jax.jit(jax.value_and_grad(function))(*placed), one))

    def of_device(x, y, function=function):
        return jax.value_and_grad(lambda x: function(x, y, **SHARDS))(x)

    mapped = jax.shard_map(of_device, mesh=mesh, in_specs=(specs, ROWS), out_specs=(PartitionSpec(), specs))
    found.append(difference(jax.jit(mapped)(*placed), one))

# Under pmap, over the devices of this process, each of which holds a slice of the classes.
value, slope = jax.value_and_grad(of_head)((jnp.asarray(hidden), jnp.asarray(weight)), labels)
values, slopes = jax.pmap(
    lambda w: jax.value_and_grad(lambda head: of_head(head, labels, class_shards="model"))((hidden, w)),
    axis_name="model",
    devices=jax.local_devices(),
)(weight.reshape(4, 4, 3))
pairs = (values, value), (slopes[0], slope[0]), (slopes[1].reshape(16, 3), slope[1])
found.append(max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs))
print(json.dumps(found))
