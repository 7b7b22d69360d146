"""Keras' ``compile`` and ``fit``, on TensorFlow."""
# Keras' arguments are typed by their defaults alone.
# pyright: reportArgumentType=false
# ruff: noqa: D102 (documented in lsmooth.study.trainers.base)

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # read once, when Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from lsmooth.study.config import Training
from lsmooth.study.trainers.base import Objective, batches, layer_sizes

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"backend tensorflow needs Keras on TensorFlow, and this process runs it on {keras.backend.backend()}; "
        "start again with KERAS_BACKEND=tensorflow."
    )


class KerasNetwork:
    """Dense layers with ReLUs between; Glorot's initial weights, as in the other frameworks."""

    def __init__(self, sizes: tuple[int, ...], seed: int):
        def dense(units: int, index: int, activation: str | None) -> keras.layers.Dense:
            init = keras.initializers.GlorotUniform(seed=1000 * seed + index)
            return keras.layers.Dense(units, activation=activation, kernel_initializer=init)

        hidden = [dense(units, index, "relu") for index, units in enumerate(sizes[1:-1])]
        self.hidden = keras.Sequential([keras.Input(sizes[:1]), *hidden])
        self.output = dense(sizes[-1], len(sizes), None)
        self.model = keras.Sequential([self.hidden, self.output])

    def logits(self, inputs: np.ndarray) -> tf.Tensor:
        return self.model(inputs)

    def features(self, inputs: np.ndarray) -> tf.Tensor:
        return self.hidden(inputs)

    def output_weight(self) -> tf.Tensor:
        return tf.transpose(self.output.kernel)


class KerasTrainer:
    """`Trainer` over Keras."""

    def versions(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__}

    def train(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        objective: Objective,
        setting: float,
        *,
        num_classes: int,
        seed: int,
        training: Training,
        after_round: Callable[[KerasNetwork], None],
    ) -> KerasNetwork:
        def loss(targets_as_float: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            # Keras casts the targets to the model's dtype.
            return objective(tf.cast(targets_as_float, targets.dtype), logits, setting)

        network = KerasNetwork(layer_sizes(inputs, num_classes, training), seed)
        plan = batches(len(inputs), training, seed)
        rounds, steps, size = plan.shape
        network.model.compile(
            optimizer=keras.optimizers.Adam(training.learning_rate, epsilon=1e-8),
            loss=loss,
            steps_per_execution=steps,
            jit_compile=False,  # XLA takes longer to compile than these networks take to train
        )
        network.model.fit(
            tf.data.Dataset.from_tensor_slices(plan.reshape(-1, size)).map(
                lambda rows: (tf.gather(inputs, rows), tf.gather(targets, rows))
            ),
            epochs=rounds,
            steps_per_epoch=steps,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: after_round(network))],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
        return network


TRAINER = KerasTrainer()
