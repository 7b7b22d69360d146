"""benchmarks/sharded_peers.py: its formulas, its processes, and the page that shows its results."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import require_backend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def peers(monkeypatch):
    """The script, as a module that its processes can import too."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    spec = importlib.util.spec_from_file_location("benchmarks.sharded_peers", ROOT / "benchmarks" / "sharded_peers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_results_in_the_repository(peers):
    results = json.loads(peers.RESULTS.read_text("utf-8"))
    assert peers.tables(results) in (ROOT / "docs" / "sharded-losses.md").read_text("utf-8")


@pytest.mark.parametrize(("form", "options"), [("hard", {}), ("eps / K", {"label_smoothing": 0.1})])
def test_the_formula_of_one_device_is_the_loss_of_torch(peers, form, options):
    require_backend("torch")
    import torch

    data = {name: torch.from_numpy(x) for name, x in peers.batch().items()}
    z = data["logits"].double().requires_grad_()
    rows = torch.nn.functional.cross_entropy(z, data["labels"], reduction="none", **options)
    rows.sum().backward()
    losses, gradient = peers.one_device(form, peers.batch())
    np.testing.assert_allclose(losses, rows.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, z.grad.numpy(), atol=1e-12)
    mean = torch.nn.functional.cross_entropy(z.detach(), data["labels"], data["class_weight"].double())
    assert peers.weighted_mean(peers.batch()) == pytest.approx(mean.item(), rel=1e-12)


def test_the_megatron_variant_matches_its_compat_function(peers):
    from lsmooth.compat.megatron import vocab_parallel_cross_entropy

    data = peers.batch()
    losses = vocab_parallel_cross_entropy(data["logits"].astype(np.float64), data["labels"], peers.EPS)
    np.testing.assert_allclose(peers.one_device("eps / (K - 1)", data)[0], losses, rtol=1e-12)


def test_each_process_of_lsmooth_gets_the_loss_of_one_device(peers):
    require_backend("torch")
    expected, _ = peers.one_device("eps / K", peers.batch())
    for seen in peers.measure(0, 2):
        np.testing.assert_allclose(seen["losses"], expected, rtol=1e-6)
        assert seen["gradient"] < 1e-6


def test_results_of_a_peer_replace_its_earlier_ones(peers):
    before = {"classes": [{"peer": "Megatron-Core", "at": 0}, {"peer": "flash-attention", "at": 0}], "rows": []}
    after = {"classes": [{"peer": "Megatron-Core", "at": 1}], "rows": []}
    assert [result["at"] for result in peers.merged(before, after)["classes"]] == [1, 0]
