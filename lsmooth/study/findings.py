"""What agrees with the paper and what does not, decided from the numbers."""

from __future__ import annotations

from dataclasses import dataclass

from lsmooth.study.run import Results
from lsmooth.study.statistics import mean, sign, text

AGREES, DISAGREES, NOISE = "agrees", "disagrees", "inside the noise"


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, and what was found here.

    Attributes:
        claim: in the paper's sense.
        found: our numbers, in words.
        verdict: `AGREES`, `DISAGREES` or `NOISE`.
    """

    claim: str
    found: str
    verdict: str


def verdict(direction: int) -> str:
    """Of a difference that the claim expects to be above 0."""
    return {1: AGREES, 0: NOISE, -1: DISAGREES}[direction]


def nearest(alphas: tuple[float, ...], alpha: float) -> float:
    """The smoothing of the plan that is nearest to the paper's, hard labels left out."""
    return min(alphas[1:], key=lambda candidate: abs(candidate - alpha))


def findings(results: Results) -> list[Finding]:
    """The claims on generalisation and calibration; differences are paired by seed."""
    alphas = results.plan.alphas
    hard = alphas[0]
    if len(alphas) < 2:
        return [_overconfidence(results, hard), _temperature(results, hard)]
    usual, cifar = nearest(alphas, 0.1), nearest(alphas, 0.05)
    chosen = min(alphas[1:], key=lambda alpha: mean(results.numbers(alpha, "validation_ece")))
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
    return found


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
