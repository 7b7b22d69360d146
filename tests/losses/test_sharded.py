"""Losses of tensors shared by devices or processes: equal numbers, without gathering large arrays."""

from pathlib import Path

import pytest
from conftest import require_backend
from processes import printed

HERE = Path(__file__).parent


@pytest.mark.parametrize(("mode", "layouts"), [("Auto", 3), ("Explicit", 1)])
def test_jax_arrays_stay_where_they_are(mode, layouts):
    require_backend("jax")
    (found,) = printed((HERE / "sharded_jax.py", mode))
    assert len(found) == layouts * 8 + 7
    for case in found:
        assert case["error"] < 3e-6, case
        assert case["gathered"] < case["rows"] * 4, case  # at most a few numbers per row
        assert case["in place"], case
