"""The preference losses match those of TRL's trainers, read from source without TRL's dependencies."""

from __future__ import annotations

import ast
import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest

from lsmooth.preference import dpo_loss, reward_loss, sequence_log_prob

torch = pytest.importorskip("torch", reason="torch is not installed")

PAIRS = torch.tensor(np.random.default_rng(0).normal(-20.0, 6.0, (4, 8)))
F = torch.nn.functional


def trl_source(path: str, wanted) -> ast.stmt:
    """The first statement of a module of TRL that ``wanted`` accepts, or a skip."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("TRL is not installed")
    tree = ast.parse(Path(spec.submodule_search_locations[0], path).read_text(encoding="utf-8"))
    return next(node for node in ast.walk(tree) if wanted(node))


def run(node: ast.stmt, names: dict) -> dict:
    exec(compile(ast.fix_missing_locations(ast.Module([node], [])), "trl", "exec"), names)
    return names


def trl_dpo(loss_type, chosen, beta, label_smoothing, rejected=0.0, lengths=(1.0, 1.0)):
    """``DPOTrainer``'s loss of each pair, from the log-ratios of both answers and their lengths."""
    chain = trl_source(
        "trainer/dpo_trainer.py",
        lambda node: isinstance(node, ast.If) and ast.unparse(node.test) == "loss_type == 'sigmoid'",
    )
    trainer = types.SimpleNamespace(beta=beta, label_smoothing=label_smoothing)
    names = {
        "self": trainer,
        "loss_type": loss_type,
        "delta_score": chosen - rejected,
        "chosen_scores": chosen,
        "rejected_scores": torch.zeros_like(chosen) + rejected,
        "completion_mask": torch.cat([torch.ones_like(chosen) * x for x in lengths])[:, None],
        "device": "cpu",
        "torch": torch,
        "F": F,
    }
    return run(chain, names)["per_sequence_loss"]


@pytest.mark.parametrize("loss_type", ["sigmoid_norm", "ipo"])
def test_length_normalized_losses_match_trl(loss_type):
    lengths = torch.tensor([3.0, 5.0, 2.0, 7.0, 4.0, 4.0, 6.0, 1.0], dtype=torch.float64)
    others = lengths.flip(0)
    found = [x / (lengths if i % 2 == 0 else others) for i, x in enumerate(PAIRS)]
    loss = dpo_loss(*found, beta=0.3, loss_type=loss_type.removesuffix("_norm"), reduction="none")
    chosen, rejected = PAIRS[0] - PAIRS[2], PAIRS[1] - PAIRS[3]
    torch.testing.assert_close(
        loss, trl_dpo(loss_type, chosen, 0.3, 0.0, rejected, (lengths, others)), rtol=1e-12, atol=0
    )


def trl_cpo(chosen, rejected, **options):
    """``CPOTrainer.cpo_loss`` of each pair."""
    method = trl_source("experimental/cpo/cpo_trainer.py", lambda node: getattr(node, "name", "") == "cpo_loss")
    accelerator = types.SimpleNamespace(device="cpu")
    trainer = types.SimpleNamespace(alpha=0.0, accelerator=accelerator, **options)
    return run(method, {"torch": torch, "F": F})["cpo_loss"](trainer, chosen, rejected)[0]


@pytest.mark.parametrize(
    ("loss_type", "eps"),
    [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.0), ("robust", 0.3), ("exo_pair", 1e-3)],
)
def test_dpo_losses_and_gradients_match_trl(loss_type, eps):
    found, wanted = PAIRS.clone().requires_grad_(), PAIRS.clone().requires_grad_()
    loss = dpo_loss(*found, beta=0.3, loss_type=loss_type, label_smoothing=eps, reduction="none")
    delta = (wanted[0] - wanted[1]) - (wanted[2] - wanted[3])
    theirs = trl_dpo(loss_type, delta, 0.3, eps)
    # TRL's logarithm of the smoothing is float32's.
    torch.testing.assert_close(loss, theirs, rtol=1e-6 if loss_type == "exo_pair" else 1e-12, atol=1e-7)
    gradients = [torch.autograd.grad(x.sum(), leaf)[0][:2] for x, leaf in ((loss, found), (theirs, wanted))]
    torch.testing.assert_close(*gradients, rtol=1e-6 if loss_type == "exo_pair" else 1e-12, atol=1e-8)


def test_the_sigmoid_loss_of_trl_ignores_smoothing():
    """The migration page says so; when this fails, TRL has changed, and so must the page."""
    delta = (PAIRS[0] - PAIRS[1]) - (PAIRS[2] - PAIRS[3])
    torch.testing.assert_close(trl_dpo("sigmoid", delta, 0.3, 0.3), trl_dpo("sigmoid", delta, 0.3, 0.0))
    smoothed = dpo_loss(*PAIRS, beta=0.3, label_smoothing=0.3, reduction="none")
    assert not torch.allclose(smoothed, trl_dpo("sigmoid", delta, 0.3, 0.3))


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_conservative_losses_match_the_cpo_loss_of_trl(eps):
    zero = torch.zeros_like(PAIRS[0])
    found = dpo_loss(*PAIRS[:2], zero, zero, beta=0.3, label_smoothing=eps, reduction="none")
    theirs = trl_cpo(*PAIRS[:2], loss_type="sigmoid", beta=0.3, label_smoothing=eps)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)


def test_simpo_is_a_reward_loss_on_length_normalized_log_probabilities():
    found = reward_loss(2.0 * PAIRS[0], 2.0 * PAIRS[1], margin=0.5, label_smoothing=0.1, reduction="none")
    theirs = trl_cpo(*PAIRS[:2], loss_type="simpo", beta=2.0, simpo_gamma=0.5, label_smoothing=0.1)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length_normalized", [False, True])
def test_sequence_log_probabilities_match_trl(length_normalized):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 6, 11, dtype=torch.float64), torch.randint(11, (3, 6))
    labels[0, :4] = -100
    method = trl_source("experimental/cpo/cpo_trainer.py", lambda node: getattr(node, "name", "") == "get_batch_logps")
    method.decorator_list = []
    helper = trl_source("trainer/utils.py", lambda node: getattr(node, "name", "") == "selective_log_softmax")
    names = run(method, run(helper, {"torch": torch, "F": F, "is_triton_available": lambda: False}))
    theirs = names["get_batch_logps"](logits, labels, average_log_prob=length_normalized)
    found = sequence_log_prob(labels[:, 1:], logits[:, :-1], length_normalized=length_normalized)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)
