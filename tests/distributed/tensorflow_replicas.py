"""Run by test_tensorflow_replicas.py: losses over the replicas of a MirroredStrategy and on one device; prints JSON.

The first argument is the number of logical CPUs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lsmooth import distillation, losses

COUNT = int(sys.argv[1])
SIZES = {2: [5, 8], 4: [5, 1, 4, 3]}[COUNT]
CLASSES, ROWS, FEATURES = 13, 8, 3

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * COUNT
)
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(COUNT)])
replica = tf.distribute.get_replica_context

rng = np.random.default_rng(0)
logits, teacher = rng.normal(size=(2, ROWS, CLASSES)) * 3 + 100
masked = np.where(np.arange(CLASSES) == 6, -np.inf, logits)
labels = np.array([0, 12, 4, 5, 9, 3, 4, 1])
soft = rng.dirichlet(np.ones(CLASSES), ROWS)
hidden, weight = rng.normal(size=(ROWS, FEATURES)), rng.normal(size=(CLASSES, FEATURES))
teacher_hidden, teacher_weight = rng.normal(size=(ROWS, 2)), rng.normal(size=(CLASSES, 2))
by_class = {"class_weight": rng.uniform(0.5, 2, CLASSES), "smoothing_prior": rng.dirichlet(np.ones(CLASSES))}
by_row = {"sample_weight": rng.uniform(0.5, 2, ROWS), "mask": np.arange(ROWS) != 2}
bias = rng.normal(size=CLASSES)
rows_below = rng.uniform(1, 2, ROWS)


class Case:
    """A call, which arrays are along the classes or the rows, and by which to differentiate."""

    def __init__(self, call: Callable[..., Any], wanted: str, arrays: dict[str, Any], **options: Any):
        self.call, self.wanted, self.arrays, self.options = call, wanted.split(), arrays, options

    def run(self, arrays: dict[str, Any], **shards: Any) -> list[tf.Tensor]:
        """The values and the gradients of their sum."""
        with tf.GradientTape() as tape:
            tape.watch([arrays[name] for name in self.wanted])
            values = self.call(**arrays, **self.options, **shards)
            values = [tf.cast(x, tf.float64) for x in (values if isinstance(values, tuple) else [values])]
            total = tf.add_n([tf.reduce_sum(x) for x in values])
        return [*values, *tape.gradient(total, [arrays[name] for name in self.wanted])]


def statistics(labels: Any, logits: Any, **options: Any) -> tuple[Any, ...]:
    """All fields, in order."""
    return tuple(losses.softmax_statistics(labels, logits, **options))


def with_statistics(labels: Any, logits: Any, **options: Any) -> tuple[Any, ...]:
    """The loss and all fields."""
    loss, fields = losses.softmax_cross_entropy_with_statistics(labels, logits, **options)
    return loss, *fields


cross_entropy, linear = losses.softmax_cross_entropy, losses.linear_softmax_cross_entropy
plain = {"labels": labels, "logits": logits}
head = {"labels": labels, "hidden": hidden, "weight": weight, "bias": bias}
pair = {"teacher_logits": teacher, "student_logits": logits}
heads = {
    "teacher_hidden": teacher_hidden,
    "teacher_weight": teacher_weight,
    "student_hidden": hidden,
    "student_weight": weight,
}
CASES = {
    "smoothing": Case(cross_entropy, "logits", plain, label_smoothing=0.1),
    "weights": Case(cross_entropy, "logits", {**plain, **by_class, **by_row}, label_smoothing=0.1, ignore_index=4),
    "every number": Case(
        cross_entropy, "logits", plain, label_smoothing=0.2, temperature=2.0, logit_softcap=90.0, z_loss=0.01
    ),
    "masked classes": Case(
        cross_entropy, "logits", {**plain, "logits": masked}, label_smoothing=0.1, reduction="none"
    ),
    "padding": Case(cross_entropy, "logits", {**plain, "labels": labels % 7}, label_smoothing=0.1, num_classes=11),
    "distributions": Case(cross_entropy, "logits", {**plain, "labels": soft, **by_class}, label_smoothing=0.1),
    "numbers of rows": Case(
        cross_entropy, "logits temperature label_smoothing",
        {**plain, "temperature": rows_below, "label_smoothing": rows_below / 10}, reduction="sum",
    ),
    "linear": Case(linear, "hidden weight bias", head, label_smoothing=0.1, ignore_index=4, z_loss=0.01, block_size=3),
    "statistics": Case(statistics, "logits", plain),
    "with statistics": Case(with_statistics, "logits", {**plain, **by_class}, label_smoothing=0.1, ignore_index=4),
    "forward KL": Case(distillation.distillation_loss, "student_logits", pair, temperature=2.0),
    "Jensen-Shannon": Case(distillation.distillation_loss, "student_logits", pair, divergence="jensen_shannon"),
    "linear distillation": Case(
        distillation.linear_distillation_loss, "student_hidden student_weight", heads, temperature=2.0
    ),
}  # fmt: skip
ALONG_CLASSES = {
    "logits": -1,
    "teacher_logits": -1,
    "student_logits": -1,
    "weight": 0,
    "bias": 0,
    **dict.fromkeys(by_class, 0),
}
ALONG_CLASSES |= {"teacher_weight": 0, "student_weight": 0}
ALONG_ROWS = (
    "labels", "logits", "teacher_logits", "student_logits", "hidden", "teacher_hidden", "student_hidden",
    "temperature", "label_smoothing", *by_row,
)  # fmt: skip


def part(name: str, x: np.ndarray, index: int, option: str) -> np.ndarray:
    """The part of an array on a replica."""
    if option == "row_shards":
        return np.split(x, [ROWS // 4] if COUNT == 2 else [1, 2, 6])[index] if name in ALONG_ROWS else x
    axis = -1 if name == "labels" and x.ndim == 2 else ALONG_CLASSES.get(name)
    return x if axis is None else np.split(x, np.cumsum(SIZES)[:-1], axis)[index]


def together(name: str, parts: list[np.ndarray], option: str) -> np.ndarray:
    """The gradient of a whole array from its parts on the replicas."""
    if option == "row_shards":
        return np.concatenate(parts) if name in ALONG_ROWS else np.sum(parts, 0)
    if name in ALONG_CLASSES:
        return np.concatenate(parts, ALONG_CLASSES[name])
    np.testing.assert_array_equal(parts, [parts[0]] * COUNT)
    return parts[0]


def spread(arrays: dict[str, np.ndarray], option: str) -> dict[str, Any]:
    """The arrays over the replicas."""
    return {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name, x=x: tf.constant(part(name, x, int(context.replica_id_in_sync_group), option))
        )
        for name, x in arrays.items()
    }


def on_replicas(case: Case, option: str, graph: bool, known: bool = True) -> list[list[np.ndarray]]:
    """The results of each replica, for arrays with known or unknown sizes."""

    def step(arrays: dict[str, Any]) -> list[tf.Tensor]:
        if not known:
            arrays = {
                name: tf.compat.v1.placeholder_with_default(x, [None] * x.shape.rank) for name, x in arrays.items()
            }
        return case.run(arrays, **{option: replica()})

    def run(arrays: dict[str, Any]) -> Any:
        return strategy.run(step, (arrays,))

    outputs = (tf.function(run) if graph else run)(spread(case.arrays, option))
    return [[x.numpy() for x in strategy.experimental_local_results(output)] for output in outputs]


def gap(name: str, option: str, graph: bool = True, known: bool = True) -> float:
    """The largest difference from one device, relative to the largest number."""
    case = CASES[name]
    alone = [x.numpy() for x in case.run({name: tf.constant(x) for name, x in case.arrays.items()})]
    seen, worst = on_replicas(case, option, graph, known), 0.0
    values = len(alone) - len(case.wanted)
    for i, expected in enumerate(alone):
        found = [together(case.wanted[i - values], seen[i], option)] if i >= values else seen[i]
        if i < values and expected.ndim and option == "row_shards":
            found = [np.concatenate(found)]
        for x in found:
            assert x.shape == expected.shape, (name, i)
            worst = max(worst, float(np.abs(x - expected).max() / max(1.0, np.abs(expected).max())))
    return worst


def collectives(name: str, option: str) -> list[list[Any]]:
    """The kind and shape of each collective of the first replica in a call and its gradient."""
    sent: list[list[Any]] = []
    originals = {kind: getattr(tf.distribute.ReplicaContext, kind) for kind in ("all_reduce", "all_gather")}

    def counting(kind: str) -> Callable[..., Any]:
        def call(context: Any, *given: Any, **options: Any) -> Any:
            if int(tf.get_static_value(context.replica_id_in_sync_group)) == 0:
                x = given[1] if kind == "all_reduce" else given[0]
                sent.append([kind, x.shape.as_list()])
            return originals[kind](context, *given, **options)

        return call

    try:
        for kind in originals:
            setattr(tf.distribute.ReplicaContext, kind, counting(kind))
        on_replicas(CASES[name], option, True)
    finally:
        for kind, original in originals.items():
            setattr(tf.distribute.ReplicaContext, kind, original)
    return sent


def message(call: Callable[[], Any]) -> str:
    """The error of a call."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def errors() -> dict[str, str]:
    """The error messages of invalid calls."""
    outside, x, y = replica(), tf.constant(logits), tf.constant(labels)

    def differing() -> tf.Tensor:
        eps = 0.1 * (1 + int(tf.get_static_value(replica().replica_id_in_sync_group)))
        return cross_entropy(y, x, label_smoothing=eps, class_shards=replica())

    seen = {
        "another context": message(lambda: strategy.run(lambda: cross_entropy(y, x, row_shards=outside))),
        "no context": message(lambda: cross_entropy(y, x, class_shards="replica")),
        "options differ": message(lambda: strategy.run(differing)),
        "both": message(
            lambda: strategy.run(lambda: cross_entropy(y, x, class_shards=replica(), row_shards=replica()))
        ),
    }
    with strategy.scope():
        seen["outside strategy.run"] = message(lambda: cross_entropy(y, x, row_shards=outside))
    return seen


def training() -> list[float]:
    """A step of a linear model whose replicas ignore different numbers of rows: the errors of loss and gradient."""
    ids = tf.constant(np.where(np.arange(ROWS) < 2, -1, labels))
    with strategy.scope():
        kernel = tf.Variable(weight.T)

    def step(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = cross_entropy(y, x @ kernel, label_smoothing=0.1, ignore_index=-1, row_shards=replica())
        return loss, replica().all_reduce("SUM", tape.gradient(loss, kernel))

    data = spread({"hidden": hidden, "labels": ids.numpy()}, "row_shards")
    found = tf.function(lambda: strategy.run(step, (data["hidden"], data["labels"])))()
    with tf.GradientTape() as tape:
        loss = cross_entropy(ids, tf.constant(hidden) @ kernel, label_smoothing=0.1, ignore_index=-1)
    expected = loss, tape.gradient(loss, kernel)
    return [
        float(np.abs(x - y).max())
        for y, per_replica in zip(expected, found, strict=True)
        for x in strategy.experimental_local_results(per_replica)
    ]


def one_replica() -> list[float]:
    """Calls with and without options on a single replica."""
    x, y = tf.constant(logits), tf.constant(labels)
    given = ({}, {"class_shards": replica()}, {"row_shards": replica()})
    return [float(cross_entropy(y, x, label_smoothing=0.1, **options)) for options in given]


NAMES = list(CASES) if COUNT == 2 else ["weights", "linear"]
seen: dict[str, Any] = {
    "class_shards": {name: gap(name, "class_shards") for name in NAMES},
    "row_shards": {name: gap(name, "row_shards") for name in NAMES if name != "statistics"},
    "training": training(),
}
if COUNT == 2:
    seen |= {
        "eager": {option: gap("weights", option, graph=False) for option in ("class_shards", "row_shards")},
        "unknown": {name: gap(name, "class_shards", known=False) for name in ("padding", "with statistics")},
        "sent": {name: collectives(name, "class_shards") for name in ("weights", "linear", "forward KL")},
        "sent by rows": collectives("weights", "row_shards"),
        "errors": errors(),
        "one replica": one_replica(),
    }
print(json.dumps(seen))
