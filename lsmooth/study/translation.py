"""The translators of ``examples/translation.py``, an optional part of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsmooth.study.findings import Finding, verdict
from lsmooth.study.statistics import sign, text

COLUMNS = (
    ("NLL", "NLL", 3),
    ("NLL scaled", "NLL at T", 3),
    ("ECE", "ECE, %", 2),
    ("ECE scaled", "ECE at T, %", 2),
    ("temperature", "T", 2),
    ("exact beam", "exact, %", 1),
    ("BLEU greedy", "BLEU, greedy", 2),
    ("BLEU beam", "BLEU, beam", 2),
    ("BLEU beam scaled", "BLEU, beam at T", 2),
)
"""The columns of the table: measure, heading, digits."""


@dataclass(frozen=True)
class Translation:
    """The measures of the script.

    Attributes:
        framework: the framework that trained.
        runs: for each amount of smoothing and each measure, one number per seed; hard labels come first.
    """

    framework: str
    runs: dict[float, dict[str, np.ndarray]]


def load_translation(path: Path) -> Translation:
    """Read the file that ``examples/translation.py --json`` writes.

    Raises:
        ValueError: if it is not such a file, or has no run with hard labels.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = {
            float(smoothing): {name: np.array([seed[name] for seed in seeds], float) for name, *_ in COLUMNS}
            for smoothing, seeds in content["smoothing"].items()
        }
        framework = str(content["framework"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--translation must be a file that examples/translation.py --json has written; {path} is not ({error!r})."
        ) from error
    counts = {len(values) for measured in runs.values() for values in measured.values()}
    if 0.0 not in runs or len(runs) < 2 or len(counts) != 1:
        raise ValueError(
            f"--translation must have runs with hard labels and with smoothing, as many of each; {path} has smoothing "
            f"{', '.join(f'{smoothing:g}' for smoothing in runs) or 'of no amount'}."
        )
    return Translation(framework, dict(sorted(runs.items())))


def table(translation: Translation) -> list[list[str]]:
    """A row for each amount of smoothing: `COLUMNS` as mean and standard error over seeds."""
    return [
        [f"{smoothing:g}", *(text(measured[name], digits) for name, _, digits in COLUMNS)]
        for smoothing, measured in translation.runs.items()
    ]


def to_json(translation: Translation) -> dict[str, Any]:
    """The measures as plain data."""
    runs = [
        {"alpha": smoothing, **{name: values.tolist() for name, values in measured.items()}}
        for smoothing, measured in translation.runs.items()
    ]
    return {"framework": translation.framework, "runs": runs}


def translation_findings(translation: Translation) -> list[Finding]:
    """The paper's claims on translation for each amount of smoothing; differences are paired by seed."""
    (_, hard), *smoothed = translation.runs.items()
    claims = (
        ("NLL", "makes the likelihood of a translator worse", 3, 1.0),
        ("BLEU beam", "makes its BLEU better", 2, 1.0),
        ("ECE", "calibrates its tokens", 2, -1.0),
    )
    return [
        Finding(
            f"Smoothing of {smoothing:g} {claim}.",
            f"{name} {text(hard[name], digits)} with hard labels, {text(measured[name], digits)} with smoothing.",
            verdict(sign(direction * (measured[name] - hard[name]))),
        )
        for smoothing, measured in smoothed
        for name, claim, digits, direction in claims
    ]
