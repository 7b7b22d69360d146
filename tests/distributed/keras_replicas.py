"""Run by test_keras_replicas.py: a Keras model trained under MirroredStrategy and on one device; prints JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lsmooth import losses

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
keras.config.set_floatx("float64")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

rng = np.random.default_rng(0)
x, ids = rng.normal(size=(16, 3)), rng.integers(5, size=16)
one_hot = np.eye(5)[ids]
ignored = np.where(np.arange(16) % 8 < 3, -1, ids)  # of each batch of 8: three of the first replica's rows, no other


class MeanOfAll(keras.losses.Loss):
    """The replica's sum over the number of rows that count on all replicas."""

    def __init__(self):
        super().__init__(reduction="sum")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        ids = tf.cast(y_true, "int64")  # Keras has made floats of them
        counted = tf.reduce_sum(tf.cast(ids != -1, y_pred.dtype))
        replica = tf.distribute.get_replica_context()
        if replica is not None:  # `fit` first infers shapes, outside replicas
            counted = replica.all_reduce("SUM", counted)
        total = losses.softmax_cross_entropy(ids, y_pred, label_smoothing=0.1, ignore_index=-1, reduction="sum")
        return total / counted


def trained(loss: Any, y: np.ndarray) -> list[float]:
    """The losses of two epochs, and the weights after them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    model.set_weights([np.linspace(-1, 1, 15).reshape(3, 5), np.zeros(5)])
    model.compile("sgd", loss)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False).history["loss"]
    return [*history, *np.concatenate([w.ravel() for w in model.get_weights()]).tolist()]


def gap(loss: Callable[[], Any], y: np.ndarray, other: Callable[[], Any] | None = None) -> float:
    """How far two replicas are from one device, or from ``other`` on two replicas."""
    with strategy.scope():
        seen = trained(loss(), y)
    if other is None:
        expected = trained(loss(), y)
    else:
        with strategy.scope():
            expected = trained(other(), y)
    return float(np.abs(np.subtract(seen, expected)).max())


def ignoring(module: Any) -> Callable[[], Any]:
    return lambda: module.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)


sparse = {"from_logits": True, "label_smoothing": 0.1}
print(
    json.dumps(
        {
            "sparse": gap(lambda: losses.SparseCategoricalCrossentropy(**sparse), ids),
            "categorical": gap(lambda: losses.CategoricalCrossentropy(**sparse), one_hot),
            "binary": gap(lambda: losses.BinaryCrossentropy(**sparse), one_hot),
            "focal": gap(lambda: losses.CategoricalFocalCrossentropy(**sparse), one_hot),
            "ignored rows, beside one device": gap(ignoring(losses), ignored),
            "ignored rows, beside Keras": gap(ignoring(losses), ignored, ignoring(keras.losses)),
            "ignored rows, mean of all": gap(MeanOfAll, ignored),
        }
    )
)
