"""Losses of DTensors: the numbers of the same arrays in one place, gradients where these are, no logits gathered."""

from conftest import require_backend
from processes import group, printed


def test_dtensors_give_the_same_numbers_in_every_loss(tmp_path):
    require_backend("torch")
    for found in printed(*group("torch_dtensors.py", 2, tmp_path)):
        assert len(found) == 30 + 51
        assert [(loss, along, error) for loss, along, error in found if not error < 1e-12] == []


def test_a_mesh_of_rows_and_classes_exchanges_only_small_tensors(tmp_path):
    require_backend("torch")
    for found in printed(*group("torch_dtensor_meshes.py", 4, tmp_path)):
        assert len(found) == 2 * 6 * 7
        assert [case for case in found if not (isinstance(case[1], float) and case[1] < 1e-12)] == []
        assert [case for case in found if not case[2]] == []
        for name, _, _, kinds in found:
            assert "rows, classes" in name or set(kinds) <= {"c10d.allreduce_", "c10d_functional.all_reduce"}, name
