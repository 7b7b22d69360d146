"""Run by test_jax_shards.py: arrays that eight devices share under ``jax.jit``, compared with one device.

The argument is the type of the mesh's axes. Of each call: the error, and the collectives in the compiled program.
"""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax_shards import ARRAYS, CASES, FEATURES, ROWS, difference, losses, spec_of, split, step_of

MODE = sys.argv[1]
mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType[MODE],) * 2)
COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\(")
SHAPE = re.compile(r"\w+\[([\d,]*)\]")
WANTED = ("logits", "student_logits", "hidden", "weight", "student_hidden", "student_weight")


def placed(x, axes, rows="data", classes="model"):
    return jax.device_put(x, NamedSharding(mesh, spec_of(axes, rows, classes)))


def collectives(compiled):
    """Floats per row of each collective over classes; the number of collectives over rows; and other transfers."""
    over_classes, over_rows, moved = [], 0, 0
    for shapes, kind in COLLECTIVE.findall(compiled.as_text()):
        sizes = [[int(n) for n in shape.split(",") if n] for shape in SHAPE.findall(shapes)]
        if kind != "all-reduce":
            moved += 1
            continue
        sizes = [size for size in sizes if size[-1:] != [FEATURES]]  # the gradients' own
        floats = sum(math.prod(size) for size in sizes)
        if any(math.prod(size) > 2 for size in sizes):
            over_classes.append(floats / max(size[0] for size in sizes if size))
        elif floats:
            over_rows += 1
    return over_classes, over_rows, moved


def compare(function, given):
    """The largest difference between calls on one device and of spread arrays, and the transfers."""
    names, others = split(given)
    arrays = {name: jnp.asarray(ARRAYS[key][0]) for name, key in names.items()}
    spread = {name: placed(*ARRAYS[key]) for name, key in names.items()}
    step = jax.jit(step_of(function, others, names))
    one, many = (
        [{name: x for name, x in some.items() if (name in WANTED) is want} for want in (True, False)]
        for some in (arrays, spread)
    )
    compiled = step.lower(*many).compile()
    pairs = zip(jax.tree.leaves(compiled(*many)), jax.tree.leaves(step(*one)), strict=True)
    return max(difference(x, y) for x, y in pairs), *collectives(compiled)


def cases():
    """Half of the cases in each mode. JAX cannot slice an axis that is explicitly sharded."""
    for function, given in CASES[MODE == "Explicit" :: 2]:
        uneven = function.__name__ == "linear_distillation_loss" or ("num_classes" in given and "weight" in given)
        if MODE == "Auto" or not uneven:
            yield function, given


def transformed():
    """The largest difference in forward mode, in second derivatives and under ``jax.vmap``."""
    names = ("logits", "labels")

    def both(function):
        one = [jnp.asarray(ARRAYS[name][0]) for name in names]
        many = [placed(*ARRAYS[name]) for name in names]
        return difference(jax.jit(function)(*many), jax.jit(function)(*one))

    def loss(z, y):
        return losses.softmax_cross_entropy(y, z, label_smoothing=0.1, temperature=2.0)

    def forward(z, y):
        return jax.jvp(lambda z: loss(z, y), (z,), (jnp.cos(z),))[1]

    def slope_of_slope(z, y):
        return jax.grad(lambda z: jnp.sum(jnp.sin(jax.grad(loss)(z, y))))(z)

    return max(both(x) for x in (forward, slope_of_slope, *([jax.vmap(loss)] if MODE == "Auto" else [])))


def memory():
    """Temporaries and results of a step on each of the devices, over those of one device with the same local shapes."""
    found = {}
    for name, function, axes in (
        ("logits", losses.softmax_cross_entropy, ("rc",)),
        ("head", losses.linear_softmax_cross_entropy, ("r.", "c.")),
    ):
        sizes = {}
        for where, (rows, classes) in {"many": (512, 8192), "one": (256, 2048)}.items():
            length = {"r": rows, "c": classes, ".": 64}

            def place(axis, dtype=np.float32, where=where, length=length):
                x = np.zeros([length[n] for n in axis], dtype)
                return placed(x, axis) if where == "many" else jax.device_put(x, jax.devices()[0])

            options = {"label_smoothing": 0.1, "class_weight": place("c"), "ignore_index": 1}

            def loss(arrays, labels, options, function=function):
                return function(labels, *arrays, **{**options, "ignore_index": 1})

            del options["ignore_index"]
            call = tuple(place(axis) for axis in axes), place("r", np.int32), options
            sizes[where] = jax.jit(jax.value_and_grad(loss)).lower(*call).compile().memory_analysis()
        many, one = (x.temp_size_in_bytes + x.output_size_in_bytes for x in (sizes["many"], sizes["one"]))
        found[name] = many / one
    return found


def memory_of_one():
    """Temporaries of a linear head on one of the visible devices, over the size of its logits."""
    shapes = [((2048, 64), np.float32), ((32768, 64), np.float32), ((2048,), np.int32)]

    def loss(h, w, y):
        return losses.linear_softmax_cross_entropy(y, h, w, label_smoothing=0.1)

    lowered = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*[jax.ShapeDtypeStruct(*shape) for shape in shapes])
    return lowered.compile().memory_analysis().temp_size_in_bytes / (4 * 2048 * 32768)


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "cases": [[function.__name__, given, *compare(function, given)] for function, given in cases()],
                "transformed": transformed(),
                "memory": memory(),
                "memory of one": memory_of_one(),
                "rows": ROWS,
            }
        )
    )
