"""The protocol of a trainer and of its networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np

from lsmooth.backends import Array
from lsmooth.study.config import Training

Objective = Callable[[Array, Array, float | Array], Array]
"""``objective(targets, logits, setting)``: a scalar loss; the setting is the smoothing or the temperature."""


class Network(Protocol):
    """A network, trained or in training. Arrays are of its framework."""

    def logits(self, inputs: np.ndarray) -> Array:
        """(rows, classes)."""

    def features(self, inputs: np.ndarray) -> Array:
        """(rows, units): the activations of the last hidden layer."""

    def output_weight(self) -> Array:
        """(classes, units): the last layer's weights, one template a class."""


class Trainer(Protocol):
    """Trains networks in a framework."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The versions of the framework's packages."""

    @abstractmethod
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
        after_round: Callable[[Network], None],
    ) -> Network:
        """Train a network from scratch.

        Args:
            inputs: (rows, features) float32.
            targets: (rows,) int32 labels, or (rows, classes) float32, the logits of a teacher.
            objective: the loss.
            setting: the number that the loss takes.
            num_classes: outputs of the network.
            seed: the seed of the initial weights and the batches.
            training: the network's size, the optimiser's settings, the number of steps.
            after_round: called with the network after each of `Training.rounds`.

        Returns:
            The network.
        """


def batches(rows: int, training: Training, seed: int) -> np.ndarray:
    """The rows of the batches, the same in every framework.

    Returns:
        (rounds, steps, batch), row numbers.

    Examples:
        >>> batches(4, Training(steps=2, rounds=1, batch_size=2), seed=0).shape
        (1, 2, 2)
    """
    rng = np.random.default_rng(seed)
    size = min(training.batch_size, rows)
    steps = max(training.steps // training.rounds, 1)
    per_epoch = rows // size
    epochs = -(-training.rounds * steps // per_epoch)
    order = np.concatenate([rng.permutation(rows)[: per_epoch * size] for _ in range(epochs)])
    return order[: training.rounds * steps * size].reshape(training.rounds, steps, size).astype(np.int32)


def layer_sizes(inputs: np.ndarray, num_classes: int, training: Training) -> tuple[int, ...]:
    """Units from the inputs to the outputs."""
    return (inputs.shape[1], *training.hidden, num_classes)
