"""The study from data to results; nothing here draws or writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lsmooth.study.config import Plan
from lsmooth.study.data import Data
from lsmooth.study.measures import Measured, measure
from lsmooth.study.objectives import smoothed_labels
from lsmooth.study.trainers import Network, load_trainer

Progress = Callable[[str], None]


@dataclass
class Results:
    """All that the report tells.

    Attributes:
        backend: the framework that trained.
        versions: of the packages that did.
        data: what it trained on.
        plan: what was compared.
        measured: for each alpha, one `Measured` per seed.
        seconds: the time of each part.
    """

    backend: str
    versions: dict[str, str]
    data: Data
    plan: Plan
    measured: dict[float, list[Measured]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def numbers(self, alpha: float, name: str) -> np.ndarray:
        """One number of every seed, (seeds,)."""
        return np.array([measured.numbers[name] for measured in self.measured[alpha]])


def total_rounds(plan: Plan) -> int:
    """How often `run_study` reports progress."""
    return len(plan.alphas) * len(plan.seeds) * plan.training.rounds


def run_study(data: Data, plan: Plan, backend: str, progress: Progress = lambda _: None) -> Results:
    """Train and measure all that the plan asks for.

    Args:
        data: from `lsmooth.study.data.load_data`.
        plan: what to compare.
        backend: the framework to train with.
        progress: called with what is being done, `total_rounds` times in all.

    Returns:
        The results.

    Raises:
        ValueError: if no backend has that name.
        ImportError: if its framework is not installed.
    """
    trainer = load_trainer(backend)
    results = Results(backend, trainer.versions(), data, plan)
    start = time.perf_counter()
    for alpha in plan.alphas:
        for seed in plan.seeds:

            def after_round(network: Network, alpha: float = alpha, seed: int = seed) -> None:
                progress(f"smoothing {alpha:g}, seed {seed}")

            network = trainer.train(
                data.inputs["train"],
                data.labels["train"],
                smoothed_labels,
                alpha,
                num_classes=len(data.classes),
                seed=seed,
                training=plan.training,
                after_round=after_round,
            )
            results.measured.setdefault(alpha, []).append(measure(network, data, plan.n_bins))
    results.seconds["networks"] = time.perf_counter() - start
    return results
