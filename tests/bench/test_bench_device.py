"""The choice of the device of benchmarks, and measurements on it. No test needs a GPU."""

import os

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.bench import device, memory
from lsmooth.bench.report import markdown, not_measured
from lsmooth.bench.rows import Plan
from lsmooth.bench.run import COPY, Result, describe_machine, run_suites
from lsmooth.bench.suites import SUITES, suite_rows
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.bench.timing import Timing

GPU = Plan(("torch", "jax", "tensorflow"), device="cuda", listing=True)
GPU_PEERS = {"Liger-Kernel", "cut-cross-entropy"}


@pytest.fixture
def seen(monkeypatch):
    """The accelerators that backends report; empty for none."""
    there = {"torch": {}, "jax": {}, "tensorflow": {}}
    monkeypatch.setattr(device, "_ask", lambda backends: {b: there[b] for b in backends if b in there})
    return there


def test_without_an_accelerator_the_device_is_the_cpu(seen):
    assert device.resolve(None, ("numpy", "torch")) == ("cpu", None, ("numpy", "torch"))
    assert device.resolve("cpu", ("numpy", "torch")) == ("cpu", None, ("numpy", "torch"))


def test_backends_use_a_visible_accelerator(seen):
    seen["torch"] = seen["jax"] = {"cuda": "A GPU"}
    assert device.resolve(None, ("numpy", "jax", "torch", "tensorflow")) == ("cuda", "A GPU", ("jax", "torch"))
    assert device.resolve("cuda", ("torch",)) == ("cuda", "A GPU", ("torch",))
    assert device.resolve("cpu", ("numpy", "torch")).kind == "cpu"
    assert device.resolve(None, ("tensorflow",)).kind == "cpu"


def test_a_device_that_is_not_there(seen):
    seen["jax"] = {"tpu": "A TPU"}
    with pytest.raises(ValueError, match=r"no device 'cuda' here.*torch: cpu; jax: cpu, tpu"):
        device.resolve("cuda", ("numpy", "torch", "jax"))
    with pytest.raises(ValueError, match="the cpu alone"):
        device.resolve("cuda", ("numpy",))


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_backends_report_their_devices(backend):
    require_backend(backend)
    (devices,) = device._ask([backend]).values()
    assert all(kind != "cpu" and name for kind, name in devices.items())


def test_a_backend_without_an_answer_raises_an_error(monkeypatch):
    monkeypatch.setitem(device._SEEN, "no-such-backend", None)
    with pytest.raises(RuntimeError, match="KeyError: 'no-such-backend'"):
        device._ask(["no-such-backend"])


def test_frameworks_are_configured_before_they_are_imported(monkeypatch):
    monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": "1"})
    device.use("cpu")
    assert os.environ == {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    monkeypatch.setattr(os, "environ", {"TF_FORCE_GPU_ALLOW_GROWTH": "false"})
    device.use("cuda")
    assert os.environ == {"TF_FORCE_GPU_ALLOW_GROWTH": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def test_the_run_reports_the_warnings(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # restored after the test
    monkeypatch.setenv("JAX_PLATFORMS", "")
    run_suites(["overhead"], Plan(("numpy",), quick=True))
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_tensors_are_put_where_the_plan_says():
    require_backend("torch")
    assert frameworks.tensor(Plan(device="meta"), "torch", np.ones(3)).device.type == "meta"


@pytest.mark.parametrize("suite", SUITES)
def test_gpu_kernels_are_peers_only_on_gpus(suite, monkeypatch):
    monkeypatch.setattr(frameworks, "is_installed", lambda distribution: True)
    on_gpu = {name for row in suite_rows(suite, GPU) for name in row.contenders} & GPU_PEERS
    expected = {"loss": {"Liger-Kernel"}, "distillation": {"Liger-Kernel"}, "linear": GPU_PEERS}
    assert on_gpu == expected.get(suite, set())
    if suite in expected:
        assert not {name for row in suite_rows(suite, Plan()) for name in row.contenders} & GPU_PEERS


def test_a_peer_that_is_not_installed_is_listed_and_not_run(monkeypatch):
    monkeypatch.setattr(frameworks, "is_installed", lambda distribution: False)
    assert frameworks.has_gpu_peer(GPU, "liger-kernel")
    assert not frameworks.has_gpu_peer(Plan(device="cuda"), "liger-kernel")


def test_bars_and_numpy_rows_are_cpu_only():
    rows = [row for suite in SUITES for row in suite_rows(suite, GPU)]
    assert not any(row.bars for row in rows)
    assert {row.work for row in rows if row.backend == "numpy"} == {
        "import lsmooth, after numpy",
        "import lsmooth.losses, after numpy",
    }


class Cuda:
    """Replaces torch.cuda and counts calls."""

    def __init__(self):
        self.waits, self.taken = 0, 100

    def synchronize(self):
        self.waits += 1

    def reset_peak_memory_stats(self):
        self.taken = 120

    def memory_allocated(self):
        return self.taken

    def max_memory_allocated(self):
        return 500


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch with the CPU in place of CUDA."""
    require_backend("torch")
    import torch

    def to(x, *args, to=torch.Tensor.to, **options):
        return x if args == ("cuda",) else to(x, *args, **options)

    def zeros(*size, zeros=torch.zeros, device=None, **options):
        return zeros(*size, device=None if device == "cuda" else device, **options)

    placed = Cuda()
    for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(placed, name))
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch, "zeros", zeros)
    return placed


def test_a_step_on_a_gpu_waits_until_it_is_done(cuda):
    import torch

    data, kinds = (lambda: np.ones((2, 3), np.float32)), (Plan(), Plan(device="cuda"))
    calls = [frameworks.step(plan, "torch", lambda: [data()], torch.sum)() for plan in kinds]
    calls += [frameworks.copy(plan, "torch", data)() for plan in kinds]
    for call, waits in zip(calls, (0, 1, 1, 2), strict=True):
        call()
        assert cuda.waits == waits


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite not in ("import", "streams")])
def test_every_suite_runs_on_the_device(suite, cuda):
    ran = 0
    for row in suite_rows(suite, Plan(("torch",), quick=True, device="cuda")):
        for name, setup in row.contenders.items() | {(COPY, row.copy)}:
            if setup is not None and "compiled" not in name + row.backend and name not in GPU_PEERS:
                setup()()
                ran += 1
    assert ran
    assert cuda.waits >= ran or suite in ("overhead", "calibration")  # calls return the arrays to wait for


def test_memory_of_a_gpu_is_what_the_framework_has_taken_there(cuda):
    called = []
    assert device.peak_bytes("torch", lambda: called.append(1)) == 380
    assert called == [1]
    assert memory.can_measure(Plan(device="cuda"))


def test_a_report_without_a_gpu_lists_unmeasured_suites():
    size = {"rows": 2048, "classes": 32000}
    seconds = {"lsmooth": Timing(1.0, 1.0, 1.0)}
    text = markdown(describe_machine(), [Result("", "smoothed cross-entropy, loss and gradient", "jax", size, seconds)])
    assert "| jax | 2048 x 32000 | lsmooth; optax, one-hot | not measured |" in text
    assert "No accelerator took part." in text
    assert "## On a GPU: not measured" in text
    lines = [line for line in text.splitlines() if line.endswith("| not measured |")]
    for work in ("smoothed cross-entropy, loss", "distillation, forward_kl, T = 2", "linear layer and smoothed"):
        assert any(line.startswith(f"| {work}") and "| torch |" in line and "Liger-Kernel" in line for line in lines)
    assert any("| jax |" in line for line in lines)
    assert any("cut-cross-entropy" in line for line in lines)


def test_the_gpu_report_lists_missing_suites():
    rows = [row for suite in ("loss", "distillation", "linear") for row in suite_rows(suite, GPU)]
    done = [
        Result("", row.work, row.backend, dict(row.size), dict.fromkeys([*row.contenders, COPY], Timing(1.0, 1.0, 1.0)))
        for row in rows
    ]
    assert not not_measured(done)
    del done[0].seconds["Liger-Kernel"]
    assert not_measured(done).splitlines()[2:] == [
        "| smoothed cross-entropy, loss and gradient | torch | 2048 x 32000 | Liger-Kernel | not measured |"
    ]
    text = markdown(describe_machine("cuda", "A GPU"), done)
    assert text.startswith("# Benchmarks: A GPU, ")
    assert "Measured on A GPU." in text
    assert "the accelerator's memory" in text
    assert "No accelerator" not in text
    assert "On a GPU: not measured" not in markdown(describe_machine("tpu", "A TPU"), [])
