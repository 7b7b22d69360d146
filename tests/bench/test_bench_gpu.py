"""benchmarks/gpu.py, which needs a card, as far as it runs without one."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend

from lsmooth import losses

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the script on the CPU with small sizes; return the exit code and the output."""
    require_backend("torch")
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    monkeypatch.setattr(gpu, "CHECKED", (8, 8, 201))
    monkeypatch.setattr(gpu, "REPEATS", 1)

    def run(*arguments):
        path = tmp_path / "gpu.json"
        monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick", "--output", str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        return ended.value.code, json.loads(path.read_text())

    return run


def test_the_gpu_script_checks_every_loss_and_times_the_peers(run):
    code, result = run()
    assert code == 0
    assert len(result["checks"]) == 75
    assert all(row["passed"] for row in result["checks"])
    assert {row["work"] for row in result["times"]} == {
        "cross-entropy",
        "distillation",
        "linear cross-entropy",
        "linear distillation",
    }
    assert all(row["milliseconds"] > 0 for row in result["times"])


def test_a_wrong_loss_is_found(run, monkeypatch):
    exact = losses.softmax_focal_loss

    def wrong(labels, logits, **options):
        value = exact(labels, logits, **options)
        return value if value.dtype.itemsize == 8 else value * 1.001

    monkeypatch.setattr(losses, "softmax_focal_loss", wrong)
    code, result = run()
    assert code == 1
    assert {row["loss"] for row in result["checks"] if not row["passed"]} == {"focal loss"}
