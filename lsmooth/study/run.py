"""The training and the measurements of the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lsmooth.analysis import Projection, teacher_wrong_class_mass
from lsmooth.backends import backend_of
from lsmooth.metrics import negative_log_likelihood, top_k_accuracy
from lsmooth.study.config import Plan
from lsmooth.study.data import Data
from lsmooth.study.measures import Measured, information, measure, noisy_examples, project
from lsmooth.study.objectives import smoothed_labels, teachers_logits
from lsmooth.study.trainers import Network, load_trainer

Progress = Callable[[str], None]
USUAL = 0.1
"""The amount of smoothing that the paper uses most."""


@dataclass(frozen=True)
class Students:
    """Students of one kind, one per seed.

    Attributes:
        teacher: the smoothing that their teachers were trained with; None for no teacher.
        setting: the temperature of distillation; without a teacher, the students' smoothing.
        gamma: the mass of their targets on wrong classes, for each seed.
        error: the test error.
        nll: the test negative log-likelihood.
        validation_error: the validation error.
    """

    teacher: float | None
    setting: float
    gamma: np.ndarray
    error: np.ndarray
    nll: np.ndarray
    validation_error: np.ndarray


@dataclass
class Results:
    """The contents of the report.

    Attributes:
        backend: the framework that trained.
        versions: the versions of its packages.
        data: the data.
        plan: the plan.
        measured: for each alpha, one `Measured` per seed.
        projections: of the first seed with hard labels and with the usual smoothing, by part.
        information: for the same two, (seeds, rounds), in nats.
        examples: the number of examples of the mutual information.
        students: the students of every kind.
        seconds: the time of each part.
    """

    backend: str
    versions: dict[str, str]
    data: Data
    plan: Plan
    measured: dict[float, list[Measured]] = field(default_factory=dict)
    projections: dict[float, dict[str, Projection]] = field(default_factory=dict)
    information: dict[float, np.ndarray] = field(default_factory=dict)
    examples: int = 0
    students: list[Students] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def numbers(self, alpha: float, name: str) -> np.ndarray:
        """One number of every seed, (seeds,)."""
        return np.array([measured.numbers[name] for measured in self.measured[alpha]])


def nearest(alphas: tuple[float, ...], alpha: float) -> float:
    """The smoothing nearest to ``alpha``; hard labels only if there is no other."""
    return min(alphas[1:] or alphas, key=lambda candidate: abs(candidate - alpha))


def total_rounds(plan: Plan) -> int:
    """The number of times that `run_study` reports progress."""
    students = len(plan.student_alphas) + len(plan.temperatures) + len(plan.alphas[1:])
    return len(plan.seeds) * (len(plan.alphas) * plan.training.rounds + students * plan.student.rounds)


def run_study(data: Data, plan: Plan, backend: str, progress: Progress = lambda _: None) -> Results:
    """Train and measure the networks of the plan.

    Args:
        data: from `lsmooth.study.data.load_data`.
        plan: the plan.
        backend: the framework to train with.
        progress: called `total_rounds` times with a description of the training.

    Returns:
        The results.

    Raises:
        ValueError: if no backend has that name.
        ImportError: if its framework is not installed.
    """
    trainer = load_trainer(backend)
    train = partial(trainer.train, data.inputs["train"], num_classes=len(data.classes))
    results = Results(backend, trainer.versions(), data, plan)
    with _timed(results, "networks"):
        teachers = _networks(results, train, progress)
    with _timed(results, "students"):
        _distil(results, train, teachers, progress)
    return results


@contextmanager
def _timed(results: Results, part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    results.seconds[part] = time.perf_counter() - start


def _networks(results: Results, train: Callable, progress: Progress) -> dict[float, list[Network]]:
    """Train and measure networks for each alpha; mutual information is tracked for two of them."""
    plan, data = results.plan, results.data
    examples = noisy_examples(data, plan.draws, plan.noise)
    results.examples = len(examples)
    watched = (plan.alphas[0], nearest(plan.alphas, USUAL))
    teachers: dict[float, list[Network]] = {}
    for alpha in plan.alphas:
        histories = []
        for seed in plan.seeds:
            history: list[float] = []

            def after_round(network: Network, alpha=alpha, seed=seed, history=history) -> None:
                progress(f"smoothing {alpha:g}, seed {seed}")
                if alpha in watched:
                    history.append(information(network, examples))

            network = train(
                data.labels["train"], smoothed_labels, alpha, seed=seed, training=plan.training, after_round=after_round
            )
            teachers.setdefault(alpha, []).append(network)
            results.measured.setdefault(alpha, []).append(measure(network, data, plan.n_bins))
            histories.append(history)
        if alpha in watched:
            results.information[alpha] = np.array(histories)
            results.projections[alpha] = project(teachers[alpha][0], data)
    return teachers


def _distil(results: Results, train: Callable, teachers: dict[float, list[Network]], progress: Progress) -> None:
    """Train students without a teacher, of hard-label teachers, and of smoothed teachers."""
    plan, data = results.plan, results.data
    kinds = [(None, alpha) for alpha in plan.student_alphas]
    kinds += [(plan.alphas[0], temperature) for temperature in plan.temperatures]
    kinds += [(alpha, 1.0) for alpha in plan.alphas[1:]]
    labels = data.labels["train"]
    for teacher, setting in kinds:
        description = f"students alone, smoothing {setting:g}"
        if teacher is not None:
            description = f"students of teachers with smoothing {teacher:g}, temperature {setting:g}"
        rows = []
        for index, seed in enumerate(plan.seeds):
            targets, objective, gamma = labels, smoothed_labels, setting
            if teacher is not None:
                logits = teachers[teacher][index].logits(data.inputs["train"])
                targets, objective = backend_of(logits=logits).to_numpy(logits), teachers_logits
                gamma = float(teacher_wrong_class_mass(labels, logits, temperature=setting))
            student = train(
                targets,
                objective,
                setting,
                seed=1000 + seed,  # other weights and batches than the teacher's
                training=plan.student,
                after_round=lambda _, description=description: progress(description),
            )
            validation, test = (student.logits(data.inputs[part]) for part in ("validation", "test"))
            rows.append(
                (
                    gamma,
                    1.0 - float(top_k_accuracy(data.labels["test"], test)),
                    float(negative_log_likelihood(data.labels["test"], test, from_logits=True)),
                    1.0 - float(top_k_accuracy(data.labels["validation"], validation)),
                )
            )
        results.students.append(Students(teacher, setting, *np.array(rows).T))
