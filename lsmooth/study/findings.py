"""Comparison of the results with the claims of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from lsmooth.study.run import USUAL, Results, Students, nearest
from lsmooth.study.statistics import mean, sign, text

AGREES, DISAGREES, NOISE = "agrees", "disagrees", "inside the noise"


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and the result here.

    Attributes:
        claim: the claim.
        found: the result, as text.
        verdict: `AGREES`, `DISAGREES` or `NOISE`.
    """

    claim: str
    found: str
    verdict: str


def verdict(direction: int) -> str:
    """The verdict for the sign of a difference that the claim expects to be positive."""
    return {1: AGREES, 0: NOISE, -1: DISAGREES}[direction]


def findings(results: Results) -> list[Finding]:
    """The paper's claims, one by one; differences are paired by seed."""
    alphas = results.plan.alphas
    hard, usual, cifar = alphas[0], nearest(alphas, USUAL), nearest(alphas, 0.05)
    chosen = best_smoothing(results)
    found = [
        _generalisation(results, hard, usual),
        _overconfidence(results, hard),
        _temperature(results, hard),
        _smoothing(results, hard, cifar, f"Smoothing of {cifar:g} calibrates: its ECE is below that of hard labels."),
    ]
    if chosen != cifar:
        claim = (
            f"The amount of smoothing can be chosen so that it calibrates; here {chosen:g}, by the ECE on validation."
        )
        found.append(_smoothing(results, hard, chosen, claim))
    if results.projections[hard]:
        found.append(_tightness(results, hard, usual, "train", "training rows"))
        found.append(_tightness(results, hard, usual, "validation", "validation rows"))
    return [*found, *_distillation(results, hard, usual), _information(results, hard, usual)]


def _generalisation(results: Results, hard: float, usual: float) -> Finding:
    before, after = results.numbers(hard, "error"), results.numbers(usual, "error")
    return Finding(
        f"Smoothing of {usual:g} lowers the test error.",
        f"Test error {text(before, 2, True)}% with hard labels, {text(after, 2, True)}% with smoothing.",
        verdict(sign(before - after)),
    )


def _overconfidence(results: Results, hard: float) -> Finding:
    confidence, accuracy = results.numbers(hard, "confidence"), 1.0 - results.numbers(hard, "error")
    return Finding(
        "A network trained on hard labels is overconfident.",
        f"It is {text(confidence, 1, True)}% confident on average and right in {text(accuracy, 1, True)}% of rows.",
        verdict(sign(confidence - accuracy)),
    )


def _temperature(results: Results, hard: float) -> Finding:
    before, after = results.numbers(hard, "ece"), results.numbers(hard, "ece_scaled")
    return Finding(
        "One temperature, fitted on validation logits, mends most of it.",
        f"ECE {text(before)} before, {text(after)} after, with T = {text(results.numbers(hard, 'temperature'), 2)}.",
        verdict(sign(before - after)),
    )


def _smoothing(results: Results, hard: float, alpha: float, claim: str) -> Finding:
    before, after = results.numbers(hard, "ece"), results.numbers(alpha, "ece")
    found = f"ECE {text(before)} with hard labels, {text(after)} with smoothing of {alpha:g}."
    confidence, accuracy = results.numbers(alpha, "confidence"), 1.0 - results.numbers(alpha, "error")
    side = sign(confidence - accuracy)
    if side:
        found += (
            f" The smoothed networks are {'over' if side > 0 else 'under'}confident: {text(confidence, 1, True)}% "
            f"confident, right in {text(accuracy, 1, True)}%."
        )
    return Finding(claim, found, verdict(sign(before - after)))


def _tightness(results: Results, hard: float, usual: float, part: str, rows: str) -> Finding:
    before, after = (results.numbers(alpha, f"tightness_{part}") for alpha in (hard, usual))
    return Finding(
        f"Smoothing draws the {rows} of a class together, against the distance between classes.",
        f"Scatter within classes over the distance between them: {text(before)} with hard labels, "
        f"{text(after)} with smoothing of {usual:g}.",
        verdict(sign(before - after)),
    )


def best_smoothing(results: Results) -> float:
    """The amount of smoothing with the least validation ECE."""
    return min(results.plan.alphas[1:], key=lambda alpha: mean(results.numbers(alpha, "validation_ece")))


def best_temperature(results: Results) -> Students:
    """The students of hard-label teachers with the least validation error."""
    candidates = [students for students in results.students if students.teacher == results.plan.alphas[0]]
    return min(candidates, key=lambda students: mean(students.validation_error))


def _distillation(results: Results, hard: float, usual: float) -> list[Finding]:
    alone = next(students for students in results.students if students.teacher is None and students.setting == 0)
    taught = best_temperature(results)
    smoothed = next(students for students in results.students if students.teacher == usual)
    teachers = [text(results.numbers(alpha, "error"), 2, True) for alpha in (hard, usual)]
    return [
        Finding(
            "A hard-label teacher, at some temperature, makes a better student than the labels alone.",
            f"Test error {text(alone.error, 2, True)}% alone, {text(taught.error, 2, True)}% with the teacher at "
            f"T = {taught.setting:g}, chosen on validation.",
            verdict(sign(alone.error - taught.error)),
        ),
        Finding(
            "Teachers trained with smoothing distil worse, even where they are the better networks.",
            f"Test error {text(smoothed.error, 2, True)}% of the students of teachers with smoothing of {usual:g}, "
            f"{text(taught.error, 2, True)}% of those of hard-label teachers. The teachers' own: {teachers[1]}% and "
            f"{teachers[0]}%.",
            verdict(sign(smoothed.error - taught.error)),
        ),
    ]


def _information(results: Results, hard: float, usual: float) -> Finding:
    before, after = (results.information[alpha][:, -1] for alpha in (hard, usual))
    return Finding(
        "Smoothing erases what the logits tell about the example, beyond its class.",
        f"Mutual information after training: {text(before, 2)} nats with hard labels, {text(after, 2)} with smoothing "
        f"of {usual:g}.",
        verdict(sign(before - after)),
    )
