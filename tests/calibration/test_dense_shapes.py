"""Every calibrator takes segmentation maps and padded sequences: its fit is that on the rows that count."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from kinds import KINDS

from lsmooth.backends import Backend

CLASSES = 3


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_padded_map_equals_its_counted_rows(backend: Backend, kind, axis):
    if hasattr(kind(), "tol"):
        pytest.importorskip("scipy", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    honest = rng.normal(0.0, 2.0, (4, 20, 5, CLASSES))
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=-1)
    logits, weight = 2.0 * honest, rng.random((4, 1, 5))
    labels[:, 15:] = -100
    logits[:, 15:] = np.nan
    moved = np.moveaxis(logits, -1, axis)
    scaler = kind(axis=axis, ignore_index=-100)
    scaler.fit(backend.asarray(moved), backend.asarray(labels), backend.asarray(weight))
    counted = labels != -100
    flat = kind().fit(logits[counted], labels[counted], np.broadcast_to(weight, labels.shape)[counted])
    expected = np.moveaxis(flat.predict_proba(2.0 * honest), -1, axis)
    got = scaler.predict_proba(backend.asarray(np.moveaxis(2.0 * honest, -1, axis)))
    assert_close(backend, got, expected, "float64", factor=1e6 if hasattr(scaler, "tol") else 1e3)
