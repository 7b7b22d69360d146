"""Facts about labels of 0 and 1 in the shape of the logits: one-hot rows, or an error that names binary=True."""

from __future__ import annotations

import numpy as np
import pytest
from kinds import KINDS

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling

pytestmark = pytest.mark.usefixtures("memory")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32"])
@pytest.mark.parametrize("shape", [(60,), (20, 3)])
def test_rows_that_are_not_one_hot_are_an_error(backend: Backend, kind, dtype, shape):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal(shape), rng.integers(0, 2, shape)
    with pytest.raises(ValueError, match=r"must be one-hot rows, got \[.* at row .*binary=True"):
        kind().fit(backend.asarray(logits), backend.asarray(labels, dtype))


def test_one_logit_a_row_is_an_error_that_names_it(backend: Backend):
    logits, labels = np.zeros((4, 1)), np.array([0, 1, 1, 0])
    with pytest.raises(ValueError, match="binary=True"):
        TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    with pytest.raises(ValueError, match="binary=True"):
        TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels[:, None]))
    with pytest.raises(ValueError, match="binary=True"):
        TemperatureScaling(ignore_index=-1).fit(backend.asarray(logits), backend.asarray(labels[:, None]))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float32"])
def test_one_hot_rows_match_class_ids(backend: Backend, dtype):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((60, 3)), rng.integers(0, 3, 60)
    got = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(np.eye(3)[labels], dtype))
    np.testing.assert_allclose(got.temperature_, TemperatureScaling().fit(logits, labels).temperature_, rtol=1e-6)


def test_rows_of_weight_0_may_hold_any_values(backend: Backend):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((60, 3)), rng.integers(0, 3, 60)
    one_hot = np.eye(3, dtype=np.int64)[labels]
    one_hot[:4] = 1
    weight = np.repeat([0.0, 1.0], [4, 56])
    got = TemperatureScaling().fit(*(backend.asarray(x) for x in (logits, one_hot, weight)))
    np.testing.assert_allclose(
        got.temperature_, TemperatureScaling().fit(logits[4:], labels[4:]).temperature_, rtol=1e-6
    )
