"""NumPy arrays in a call are converted to the framework of any other argument."""

from __future__ import annotations

import itertools

import numpy as np
import public_calls
import pytest

from lsmooth.distillation import DistillationLoss
from lsmooth.integrations.transformers import compute_loss_func

ROWS = sorted(row for row in public_calls.CALLS if len(public_calls.input_names(row)) > 1)


def carriers(names):
    """Each name, and each pair of them."""
    return [*itertools.combinations(names, 1), *itertools.combinations(names, 2)]


@pytest.mark.parametrize("row", ROWS)
def test_any_one_or_two_arrays_decide_the_framework(backend, row):
    converted = public_calls.converted(backend, row)
    for names in carriers(converted):
        arrays = {name: x if name in names else public_calls.INPUTS[name] for name, x in converted.items()}
        public_calls.check(backend, row, public_calls.call(row, arrays))


INPUTS = {name: public_calls.INPUTS[name] for name in ("ids", "logits", "logits_2", "row_temperature", "row_eps")}
INPUTS["count"] = np.asarray(5)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (
            lambda ids, logits, logits_2, row_temperature, row_eps: DistillationLoss(
                0.5, row_temperature, label_smoothing=row_eps, ignore_index=1
            )(ids, logits_2, logits),
            ("ids", "logits", "logits_2", "row_temperature", "row_eps"),
        ),
        (
            lambda logits, ids, count: compute_loss_func((logits[None],), ids[None], count, shift_labels=True),
            ("logits", "ids", "count"),
        ),
    ],
    ids=["DistillationLoss, options by row", "compute_loss_func"],
)
def test_options_may_decide_the_framework(backend, call, names):
    expected = call(**{name: INPUTS[name] for name in names})
    for chosen in carriers(names):
        result = call(**{name: backend.asarray(INPUTS[name]) if name in chosen else INPUTS[name] for name in names})
        assert backend.is_array(result), chosen
        np.testing.assert_allclose(backend.to_numpy(result), expected, rtol=1e-6, err_msg=str(chosen))
