"""Training on rows that are spread over processes: the engines' parameters are those of one process with all rows."""

import pytest
from conftest import require_backend
from processes import group, printed


@pytest.mark.parametrize("size", [2, 4])
def test_engines_train_what_one_process_trains_though_rows_are_spread_unequally(size, tmp_path):
    require_backend("torch")
    for found in printed(*group("torch_training.py", size, tmp_path)):
        assert found["losses"][-1] < 0.9 * found["losses"][0]
        assert found["errors"].keys() == {"summed", "DDP", "FSDP2"}
        assert all(isinstance(x, float) and x < 1e-12 for x in found["errors"].values()), found["errors"]
