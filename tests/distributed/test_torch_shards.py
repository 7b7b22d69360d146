"""Losses with classes or rows spread over processes match one device, with bounded communication."""

import pytest
from conftest import require_backend
from processes import group, printed

ROWS, NUMBER = 10, 8  # bytes of a number in float64
# Cases with more communication: predicted classes and terms that need both softmaxes take another round; soft labels
# have additional sums.
THREE = ("statistics", "jensen_shannon", "total_variation")
SIX = ("soft", "mask")


@pytest.mark.parametrize(("shards", "size"), [("classes", 2), ("classes", 4), ("rows", 4), ("both", 4)])
def test_every_member_gets_the_loss_of_one_device_and_its_part_of_the_gradient(shards, size, tmp_path):
    require_backend("torch")
    for found in printed(*group("torch_shards.py", size, tmp_path, shards)):
        assert len(found) == 53
        assert [(name, error) for name, error, *_ in found if not (isinstance(error, float) and error < 1e-12)] == []
        for name, _, forward, backward in found:
            assert {kind for kind, _ in forward + backward} <= {"all_reduce"}, name
            over_rows = [size for _, size in forward if size <= 2 * NUMBER]  # a sum, and its divisor
            over_classes = [size for _, size in forward if size > 2 * NUMBER]
            assert len(over_rows) <= (shards != "classes"), (name, forward)
            rounds = 0 if shards == "rows" else 3 if any(word in name for word in THREE) else 2
            assert len(over_classes) <= rounds, (name, forward)
            numbers = (6 if any(word in name for word in SIX) else 4) * ROWS * (2 if name == "cubes" else 1)
            assert max(over_classes, default=0) <= (numbers + 2) * NUMBER, (name, forward)


def test_a_member_uses_no_more_memory_than_one_device_with_its_classes(tmp_path):
    require_backend("torch")
    for found in printed(*group("torch_memory.py", 2, tmp_path)):
        assert len(found) == 5
        for name, arguments, alone, member in found:
            assert alone > 0, name
            assert arguments + member <= 1.2 * (arguments + alone), (name, alone, member)
