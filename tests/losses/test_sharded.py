"""Losses of tensors that several devices or processes share: the same numbers, and nothing large is gathered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend

HERE = Path(__file__).parent


def printed(*commands):
    """What scripts that run side by side print as JSON in their last lines."""
    runs = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    outputs = [run.communicate(timeout=240) for run in runs]
    assert not any(run.returncode for run in runs), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_torch_dtensors_give_the_same_numbers(tmp_path):
    require_backend("torch")
    commands = [(HERE / "sharded_torch.py", rank, 2, tmp_path / "meeting point") for rank in range(2)]
    for found in printed(*commands):
        assert len(found) == 30 + 51
        assert [(loss, along, error) for loss, along, error in found if not error < 1e-12] == []


@pytest.mark.parametrize(("mode", "layouts"), [("Auto", 3), ("Explicit", 1)])
def test_jax_arrays_stay_where_they_are(mode, layouts):
    require_backend("jax")
    (found,) = printed((HERE / "sharded_jax.py", mode))
    assert len(found) == layouts * 8 + 7
    for case in found:
        assert case["error"] < 3e-6, case
        assert case["gathered"] < case["rows"] * 4, case  # at most a few numbers a row
        assert case["in place"], case
