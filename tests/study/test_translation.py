"""The translators' part of the study's report."""

import json

import numpy as np
import pytest

from lsmooth.study.translation import COLUMNS, load_translation, table, to_json, translation_findings

HARD = {name: 50.0 for name, *_ in COLUMNS}


@pytest.fixture
def written(tmp_path):
    """A file as the script writes it: three seeds, smoothing with a worse NLL, a better BLEU, and any ECE."""

    def write(content=None):
        smoothed = [{**HARD, "NLL": 60.0 + i, "BLEU beam": 60.0 + i, "ECE": 50.0 + (-1) ** i} for i in range(3)]
        file = tmp_path / "translation.json"
        runs = {"0.1": smoothed, "0": [HARD] * 3} if content is None else content
        file.write_text(json.dumps({"framework": "torch", "smoothing": runs}), encoding="utf-8")
        return file

    return write


def test_measures_are_means_over_seeds_with_hard_labels_first(written):
    translation = load_translation(written())
    assert list(translation.runs) == [0.0, 0.1]
    hard, smoothed = table(translation)
    assert hard[:2] == ["0", "50.000 ± 0.000"]
    assert smoothed[:2] == ["0.1", f"61.000 ± {1 / np.sqrt(3):.3f}"]
    assert to_json(translation)["runs"][1]["NLL"] == [60.0, 61.0, 62.0]


def test_the_papers_claims_are_decided_from_paired_differences(written):
    pytest.importorskip("scipy", reason="scipy is not installed")
    found = translation_findings(load_translation(written()))
    assert [finding.verdict for finding in found] == ["agrees", "agrees", "inside the noise"]
    assert found[0].claim == "Smoothing of 0.1 makes the likelihood of a translator worse."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": [{"NLL": 1.0}], "0.1": [HARD]}, "must be a file that examples/translation.py --json has written"),
        ([HARD], "must be a file that examples/translation.py --json has written"),
        ({"0.1": [HARD], "0.2": [HARD]}, "must have runs with hard labels and with smoothing.*has smoothing 0.1, 0.2"),
        ({"0": [HARD]}, "must have runs with hard labels and with smoothing"),
        ({"0": [HARD], "0.1": [HARD, HARD]}, "as many of each"),
    ],
)
def test_other_files_are_refused(written, content, message):
    with pytest.raises(ValueError, match=message):
        load_translation(written(content))
