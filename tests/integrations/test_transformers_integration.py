"""lsmooth.integrations.transformers: the Trainer's loss, under gradient accumulation and causal shift."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.integrations.transformers import (
    compute_linear_loss,
    compute_linear_loss_with_statistics,
    compute_loss_func,
)
from lsmooth.losses import softmax_cross_entropy

torch = pytest.importorskip("torch", reason="torch is not installed")


class Outputs(dict):
    """A model's output, as far as a loss looks at it."""


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.randint(7, (4, 6))
    labels[0, 2:] = -100
    return torch.randn(4, 6, 7, requires_grad=True), labels


def test_without_an_item_count_the_loss_is_the_mean_over_counted_labels(batch):
    logits, labels = batch
    expected = softmax_cross_entropy(labels, logits, ignore_index=-100, label_smoothing=0.1)
    for outputs in (Outputs(logits=logits), (logits, "attentions")):
        torch.testing.assert_close(compute_loss_func(outputs, labels, label_smoothing=0.1), expected)


def test_the_caller_chooses_the_ignored_label(batch):
    logits, labels = batch
    labels = torch.where(labels == -100, 0, labels)
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 7), labels.reshape(-1), ignore_index=3)
    torch.testing.assert_close(compute_loss_func({"logits": logits}, labels, ignore_index=3), expected)


def test_causal_models_predict_the_next_label(batch):
    logits, labels = batch
    loss = compute_loss_func({"logits": logits}, labels, shift_labels=True, label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 7), labels[:, 1:].reshape(-1), label_smoothing=0.1
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("as_count", [int, torch.as_tensor])
def test_accumulated_batches_add_up_to_the_large_one(batch, as_count):
    logits, labels = batch
    loss = partial(compute_loss_func, label_smoothing=0.1)
    (whole,) = torch.autograd.grad(loss({"logits": logits}, labels), logits)
    count = as_count(int((labels != -100).sum()))
    parts = sum(loss({"logits": logits[i : i + 1]}, labels[i : i + 1], count) for i in range(4))
    (accumulated,) = torch.autograd.grad(parts, logits)
    torch.testing.assert_close(accumulated, whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("head", ["logits", "linear"])
def test_eight_accumulated_steps_equal_one_batch(head, dtype):
    """The Trainer's convention: a sum over each part, divided by the labels of all parts."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 7, dtype=dtype)
    hidden, labels = torch.randn(16, 9, 5, dtype=dtype), torch.randint(7, (16, 9))
    labels[torch.rand(16, 9) < 0.5] = -100  # so the parts have different counts
    labels[:2] = -100  # and the first none

    def loss(rows, count):
        options = {"shift_labels": True, "label_smoothing": 0.1}
        if head == "linear":
            return compute_linear_loss(labels[rows], hidden[rows], layer.weight, layer.bias, count, **options)
        return compute_loss_func({"logits": layer(hidden[rows])}, labels[rows], count, **options)

    count = (labels[:, 1:] != -100).sum()
    (whole,) = torch.autograd.grad(loss(slice(None), None), layer.weight)
    for start in range(0, 16, 2):
        loss(slice(start, start + 2), count).backward()
    torch.testing.assert_close(layer.weight.grad, whole, rtol=1e-6, atol=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (3, 1)])
@pytest.mark.parametrize("count", [None, 3, 0])
def test_the_linear_loss_matches_the_loss_of_the_logits(backend, shape, count):
    rng = np.random.default_rng(0)
    labels, weight, bias = rng.integers(7, size=shape), rng.normal(size=(7, 4)), rng.normal(size=7)
    labels.flat[:2] = -100
    labels, weight, bias = (backend.asarray(x) for x in (labels, weight, bias))
    hidden = backend.asarray(rng.normal(size=(*shape, 4)))
    options = {"shift_labels": True, "label_smoothing": 0.1}

    def linear(x):
        return compute_linear_loss(labels, x, weight, bias, count, **options)

    def of_logits(x):
        logits = backend.sum(x[..., None, :] * weight, axis=-1) + bias
        return compute_loss_func({"logits": logits}, labels, count, **options)

    assert_close(backend, linear(hidden), backend.to_numpy(of_logits(hidden)), "float64", 4.0)
    if backend.name != "numpy":
        gradients = [backend.value_and_grad(loss, hidden)[1] for loss in (linear, of_logits)]
        assert_close(backend, gradients[0], backend.to_numpy(gradients[1]), "float64", 4.0)


@pytest.mark.parametrize("count", [None, 20])
def test_the_linear_loss_comes_with_the_statistics_of_its_labels(batch, count):
    hidden, labels = batch
    torch.manual_seed(0)
    weight, options = torch.randn(7, 7), {"shift_labels": True, "label_smoothing": 0.1}
    loss, statistics = compute_linear_loss_with_statistics(labels, hidden, weight, None, count, **options)
    torch.testing.assert_close(loss, compute_linear_loss(labels, hidden, weight, None, count, **options))
    counted, logits = labels[:, 1:] != -100, (hidden @ weight.T)[:, :-1]
    log_p = logits.log_softmax(-1)
    torch.testing.assert_close(statistics.entropy.sum(), -(log_p.exp() * log_p).sum(-1)[counted].sum())
    assert (statistics.predicted >= 0).sum() == counted.sum()
    assert statistics.correct.sum() == (logits.argmax(-1) == labels[:, 1:]).sum()


@pytest.mark.parametrize("count", [0, torch.tensor(0), torch.tensor(0.0)])
@pytest.mark.parametrize("shift_labels", [False, True])
def test_accumulated_batches_without_labels_have_zero_loss(batch, count, shift_labels):
    logits, labels = batch
    loss = compute_loss_func({"logits": logits}, torch.full_like(labels, -100), count, shift_labels=shift_labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert not gradient.any()


def test_another_ignored_label_is_refused_with_num_items_in_batch(batch):
    logits, labels = batch
    with pytest.raises(ValueError, match=r"ignore_index must be -100 with num_items_in_batch.*; got 3"):
        compute_loss_func({"logits": logits}, labels.clamp(min=0), 24, ignore_index=3)
    with pytest.raises(ValueError, match=r"ignore_index must be -100 with num_items_in_batch.*; got 3"):
        compute_linear_loss(labels.clamp(min=0), logits, torch.eye(7), None, 24, ignore_index=3)
    for ignore_index in (None, True, "3"):
        with pytest.raises(TypeError, match="ignore_index must be an integer"):
            compute_loss_func({"logits": logits}, labels, ignore_index=ignore_index)


def test_a_batch_without_labels_or_logits_is_named(batch):
    logits, labels = batch
    with pytest.raises(ValueError, match=r"labels must be class ids, got None.*data collator"):
        compute_loss_func({"logits": logits}, None)
    with pytest.raises(ValueError, match=r"labels must be class ids, got None.*data collator"):
        compute_linear_loss(None, logits, torch.eye(7))
    with pytest.raises(ValueError, match="outputs must hold 'logits', got a mapping with loss, hidden"):
        compute_loss_func({"loss": None, "hidden": None}, labels)


def test_a_model_may_return_the_logits_themselves(batch):
    logits, labels = batch
    torch.testing.assert_close(compute_loss_func(logits, labels), compute_loss_func((logits,), labels))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (3, 1), (3, 0)])
def test_shifted_labels_give_the_value_and_gradient_of_sliced_logits(backend, shape):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(7, size=shape), backend.asarray(rng.normal(size=(*shape, 7)))
    labels.flat[:2] = -100
    labels = backend.asarray(labels)

    def shifted(x):
        return compute_loss_func({"logits": x}, labels, shift_labels=True, label_smoothing=0.1)

    def sliced(x):
        return softmax_cross_entropy(labels[..., 1:], x[..., :-1, :], ignore_index=-100, label_smoothing=0.1)

    assert_close(backend, shifted(logits), backend.to_numpy(sliced(logits)), "float64")
    if backend.name != "numpy":
        gradients = [backend.value_and_grad(loss, logits)[1] for loss in (shifted, sliced)]
        assert_close(backend, gradients[0], backend.to_numpy(gradients[1]), "float64")


def test_shifting_labels_copies_no_logits():
    logits, labels = torch.randn(4, 256, 512, requires_grad=True), torch.randint(512, (4, 256))

    def allocated(shift_labels):
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            compute_loss_func({"logits": logits}, labels, shift_labels=shift_labels).backward()
        logits.grad = None
        return sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())

    allocated(True)
    assert allocated(True) < 1.1 * allocated(False)


def test_a_tiny_language_model_learns_under_the_trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    rows = [{"input_ids": (row := torch.arange(start, start + 8) % 16), "labels": row} for start in range(32)]
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=8,
            learning_rate=1e-2,
            logging_steps=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        compute_loss_func=partial(compute_loss_func, label_smoothing=0.1, shift_labels=True),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] < 4.0, "a sum over accumulated batches was not divided by their labels"
    assert losses[-1] < 0.7 * losses[0]


def trained(output, *settings, processes=1):
    """The parameters after a few steps of each Trainer in trainer_processes.py."""
    arguments = [sys.executable, str(Path(__file__).with_name("trainer_processes.py")), str(output), *settings]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting_point = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": processes}
    running = []
    for rank in range(processes):
        own = {**meeting_point, "RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {}
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        running.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait(timeout=300) for process in running] == [0] * processes
    return json.loads(output.read_text(encoding="utf-8"))


def test_trainers_take_the_step_of_one_batch_over_accumulated_ones_and_processes(tmp_path):
    """Batches with different numbers of labels: 8 of one row, 1 of 8 rows, and 2 processes with 4 of one row."""
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    alone = trained(tmp_path / "alone.json", "8x1", "1x8")
    together = trained(tmp_path / "together.json", "1x4", processes=2)
    for example, (whole, accumulated) in alone.items():
        np.testing.assert_allclose(accumulated, whole, rtol=0, atol=1e-6, err_msg=example)
        np.testing.assert_allclose(together[example][0], whole, rtol=0, atol=1e-6, err_msg=example)
