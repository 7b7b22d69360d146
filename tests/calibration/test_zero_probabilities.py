"""Rows whose label has probability 0, as from forests and rounding."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from kinds import KINDS, LIKELIHOODS, STEPS

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling, load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def forest(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Votes of ten trees, as fractions: the label has none in some of the rows."""
    rng = np.random.default_rng(0)
    votes = rng.multinomial(10, rng.dirichlet(np.ones(3), rows)) / 10
    labels = np.where(rng.random(rows) < 0.7, votes.argmax(axis=1), rng.integers(0, 3, rows))
    assert (votes[np.arange(rows), labels] == 0).sum() > 3
    return votes, labels


@pytest.mark.parametrize("kind", STEPS.values(), ids=STEPS)
def test_binning_and_isotonic_take_them(backend: Backend, memory, kind):
    p, labels = forest()
    got = kind(from_logits=False).fit(backend.asarray(p), backend.asarray(labels)).predict_proba(backend.asarray(p))
    assert np.isfinite(backend.to_numpy(got)).all()
    np.testing.assert_allclose(backend.to_numpy(got).sum(axis=1), 1.0)
    logits = np.where(p == 0, -np.inf, np.log(np.where(p == 0, 1.0, p)))
    same = kind().fit(backend.asarray(logits), backend.asarray(labels)).predict_proba(backend.asarray(logits))
    assert np.isfinite(backend.to_numpy(same)).all()
    binary = kind(from_logits=False, binary=True).fit(backend.asarray(p[:, 0]), backend.asarray(labels == 0))
    assert np.isfinite(backend.to_numpy(binary.predict_proba(backend.asarray(p[:, 0])))).all()


@pytest.mark.parametrize("kind", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("binary", [False, True])
def test_other_calibrators_report_how_many_zeros_there_are(backend: Backend, memory, kind, binary):
    p, labels = forest()
    lost = np.flatnonzero(p[np.arange(len(p)), labels] == 0)
    if binary:
        if kind is LIKELIHOODS["group"]:
            pytest.skip("groups by prediction are of classes")
        p, labels = p[:, 0], (labels == 0).astype(int)
        lost = np.flatnonzero(np.where(labels == 1, p, 1 - p) == 0)
    message = rf"of probability 0 at row {lost[0]}\. {len(lost)} of 300 rows .* sample_weight of 0, or give clip=1e-6"
    with pytest.raises(ValueError, match=message):
        kind(from_logits=False, binary=binary).fit(backend.asarray(p), backend.asarray(labels))
    weight = np.ones(300)
    weight[lost] = 0.0
    kind(from_logits=False, binary=binary).fit(backend.asarray(p), backend.asarray(labels), backend.asarray(weight))


@pytest.mark.parametrize("kind", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_clipped_they_are_rows_of_small_probabilities(backend: Backend, memory, kind, tmp_path):
    p, labels = forest()
    scaler = kind(from_logits=False, clip=1e-3).fit(backend.asarray(p), backend.asarray(labels))
    expected = kind(from_logits=False).fit(np.maximum(p, 1e-3), labels)
    got = scaler.predict_proba(backend.asarray(p))
    assert_close(backend, got, expected.predict_proba(np.maximum(p, 1e-3)), "float64", factor=1e6)
    scaler.save(tmp_path / "c.json")
    np.testing.assert_allclose(load(tmp_path / "c.json").predict_proba(p), backend.to_numpy(got), rtol=1e-9)


def test_clipped_probabilities_of_1_are_clipped_below_too(backend: Backend, memory):
    rng = np.random.default_rng(0)
    p = np.round(rng.random(200), 1)
    labels = (rng.random(200) < 0.2 + 0.6 * p).astype(int)
    options = {"binary": True, "from_logits": False, "clip": 1e-3}
    scaler = TemperatureScaling(**options).fit(backend.asarray(p), backend.asarray(labels))
    two = np.maximum(np.stack([1 - p, p], axis=1), 1e-3)
    expected = TemperatureScaling(from_logits=False).fit(two, labels)
    np.testing.assert_allclose(scaler.temperature_, expected.temperature_, rtol=1e-6)
    assert_close(backend, scaler.predict_proba(backend.asarray(p)), expected.predict_proba(two)[:, 1], "float64", 1e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 1e-6}, "clip=1e-06 is for probabilities"),
        ({"clip": 0.0, "from_logits": False}, "clip must be None or between 0 and 0.5, got 0.0"),
        ({"clip": "small", "from_logits": False}, "clip must be None or between 0 and 0.5, got 'small'"),
    ],
)
@pytest.mark.parametrize("kind", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_clip_is_a_small_number(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).fit([[0.5, 0.5]], [0])


def test_files_of_earlier_releases_have_no_clip(tmp_path):
    scaler = TemperatureScaling().fit(np.random.default_rng(0).standard_normal((50, 3)), np.arange(50) % 3)
    scaler.save(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text()
    (tmp_path / "t.json").write_text(text.replace(',\n    "clip": null', ""))
    assert "clip" not in (tmp_path / "t.json").read_text()
    assert load(tmp_path / "t.json").clip is None


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_predictions_outside_of_0_and_1_are_errors_of_a_fit_and_nan_afterwards(backend: Backend, memory, kind):
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(3), 90), rng.integers(0, 3, 90)
    scaler = kind(from_logits=False).fit(p, labels)
    p[4] = [1.4, -0.3, -0.1]
    with pytest.raises(ValueError, match=r"predictions must be probabilities in \[0, 1\], got .* at row 4"):
        kind(from_logits=False).fit(backend.asarray(p), backend.asarray(labels))
    got = backend.to_numpy(scaler.predict_proba(backend.asarray(p)))
    assert np.isnan(got[4]).any()
    assert np.isfinite(np.delete(got, 4, axis=0)).all()
