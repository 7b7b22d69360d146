"""The network, its training, and the comparisons, for all frameworks."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = ("torch", "jax", "tensorflow")
"""The frameworks that train, in order of preference."""


@dataclass(frozen=True)
class Training:
    """A multilayer perceptron with ReLUs, and Adam at a constant rate.

    Attributes:
        hidden: units of each hidden layer.
        steps: batches in all.
        rounds: the number of parts of the steps; the study measures the network after each.
        batch_size: rows in a step, at most all.
        learning_rate: Adam's.
    """

    hidden: tuple[int, ...] = (256, 256)
    steps: int = 750
    rounds: int = 10
    batch_size: int = 30
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Plan:
    """The networks and measurements of a run of the study.

    Attributes:
        alphas: amounts of label smoothing; the first is 0, the hard labels.
        seeds: the seeds of the initial weights and the batches, one network for each alpha and seed.
        training: the training of networks, which are the teachers too.
        n_bins: bins of the calibration error.
        student: the training of students.
        student_alphas: the smoothing of students without a teacher; the first is 0.
        temperatures: the temperatures of hard-label teachers; those of smoothed ones are 1.
        draws: noisy copies of an example, for mutual information.
        noise: standard deviation of the noise; that of the inputs is about 1.
    """

    alphas: tuple[float, ...] = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
    seeds: tuple[int, ...] = tuple(range(8))
    training: Training = Training()
    n_bins: int = 15
    student: Training = Training(hidden=(16,))
    student_alphas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3)
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    draws: int = 10
    noise: float = 0.5


FULL = Plan()
QUICK = Plan(
    alphas=(0.0, 0.002, 0.05, 0.1, 0.2), seeds=(0, 1, 2, 3), student_alphas=(0.0, 0.1), temperatures=(2.0, 4.0)
)
