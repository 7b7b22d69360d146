"""Check every PyTorch kernel on a GPU against float64, then time the losses of a language model and their peers.

    python -m benchmarks.gpu [--output benchmarks/results/gpu.json] [--quick] [--device cuda]

The checks compare losses and gradients with the same call in float64 on the CPU. The times are medians of calls
that alternate between lsmooth and its peers, bfloat16, loss and gradient: a table goes to the console and everything
to the file. Liger-Kernel and cut-cross-entropy are peers where they are installed. It takes about 10 minutes on one
card; ``--quick`` has small sizes, and runs on the CPU too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, linear, log_softmax, softmax

from lsmooth import distillation, losses
from lsmooth.bench.run import describe_machine

EPS, TEMPERATURE = 0.1, 2.0
# Rows, features and classes.
LARGE, SMALL = (8192, 4096, 128256), (64, 32, 500)
CHECKED = (96, 64, 3001)
REPEATS = 7
# How far losses and gradients may be from float64, relative to the largest: gradients are rounded to the dtype.
TOLERANCE = {"float32": (2e-6, 1e-5), "bfloat16": (2e-6, 1e-2), "float16": (2e-6, 2e-3)}

Loss = Callable[..., Tensor]


def checks(classes: int, rows: int) -> Iterator[tuple[str, Loss, str]]:
    """Name, loss and kind: of (labels, logits), of (teacher, student), or of linear heads."""
    weight, prior = torch.linspace(0.5, 2.0, classes), torch.linspace(1.0, 3.0, classes)
    eps, temperature = torch.linspace(0.0, 0.3, rows), torch.linspace(0.5, 2.0, rows)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "smoothed": {"label_smoothing": EPS},
        "prior": {"label_smoothing": EPS, "smoothing_prior": prior},
        "class_weight": {"label_smoothing": EPS, "class_weight": weight},
        "label_smoothing of rows": {"label_smoothing": eps},
        "temperature of rows": {"label_smoothing": EPS, "temperature": temperature},
        "z_loss, softcap": {"label_smoothing": EPS, "z_loss": 1e-3, "logit_softcap": 20.0},
        "ignored rows": {"label_smoothing": EPS, "ignore_index": 1},
        "padding": {"label_smoothing": EPS, "num_classes": classes - 100},
    }
    for name, chosen in options.items():
        yield (
            f"cross-entropy, {name}",
            _with(losses.softmax_cross_entropy, chosen),
            "padded" if "num" in name else "ids",
        )
        if not {"label_smoothing", "temperature"} & {k for k, v in chosen.items() if isinstance(v, Tensor)}:
            yield f"linear cross-entropy, {name}", _with(losses.linear_softmax_cross_entropy, chosen), "linear"
    yield "cross-entropy, distributions", _with(losses.softmax_cross_entropy, {"label_smoothing": EPS}), "soft"
    yield "focal loss", _with(losses.softmax_focal_loss, {"label_smoothing": EPS}), "ids"
    yield (
        "sigmoid cross-entropy",
        _with(losses.sigmoid_cross_entropy, {"label_smoothing": EPS, "reduction": "sum"}),
        "binary",
    )
    for divergence in ("forward_kl", "reverse_kl", "jensen_shannon"):
        chosen = {"divergence": divergence, "temperature": TEMPERATURE}
        yield f"distillation, {divergence}", _with(distillation.distillation_loss, chosen), "pair"
        yield f"linear distillation, {divergence}", _with(distillation.linear_distillation_loss, chosen), "heads"


def _with(function: Loss, options: dict[str, Any]) -> Loss:
    def loss(*arrays: Tensor) -> Tensor:
        on_device = {k: v.to(arrays[-1].device) if isinstance(v, Tensor) else v for k, v in options.items()}
        return function(*arrays, **on_device)

    return loss


def _arrays(kind: str, dtype: torch.dtype) -> list[Tensor]:
    """The arguments in the dtype, on the CPU; those that get a gradient require it."""
    generator = torch.Generator().manual_seed(0)
    rows, features, classes = CHECKED

    def normal(*shape: int) -> Tensor:
        return (3.0 * torch.randn(*shape, generator=generator)).to(dtype)

    ids = torch.randint(0, classes - 100, (rows,), generator=generator)
    logits = normal(rows, classes)
    if kind in ("ids", "padded"):
        return [ids, logits.requires_grad_()]
    if kind == "soft":
        return [torch.softmax(normal(rows, classes).float(), -1).to(dtype), logits.requires_grad_()]
    if kind == "binary":
        return [(normal(rows, classes) > 0).to(dtype), logits.requires_grad_()]
    if kind == "pair":
        return [normal(rows, classes), logits.requires_grad_()]
    hidden, weight = normal(rows, features).requires_grad_(), (normal(classes, features) / 8).requires_grad_()
    if kind == "linear":
        return [ids, hidden, weight]
    return [normal(rows, features), normal(classes, features) / 8, hidden, weight]


def check(device: str) -> list[dict[str, Any]]:
    """The errors of every loss and dtype, and whether they are small enough."""
    found = []
    for dtype, (of_loss, of_gradient) in TOLERANCE.items():
        for name, loss, kind in checks(CHECKED[2], CHECKED[0]):
            given = _arrays(kind, getattr(torch, dtype))
            value, gradients = _value_and_gradients(loss, given, device)
            exact, expected = _value_and_gradients(loss, [_double(x) for x in given], "cpu")
            error = abs(value.item() - exact.item()) / max(abs(exact.item()), 1e-6)
            pairs = zip(gradients, expected, strict=True)
            slope = max(((a.cpu().double() - b).abs().max() / b.abs().max()).item() for a, b in pairs)
            passed = error <= of_loss and slope <= of_gradient
            found.append({"loss": name, "dtype": dtype, "error": error, "gradient_error": slope, "passed": passed})
            print(f"{'ok' if passed else 'WRONG':6}{name}, {dtype}: loss {error:.1e}, gradient {slope:.1e}", flush=True)
    return found


def _double(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def _value_and_gradients(loss: Loss, arrays: list[Tensor], device: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    moved = [x.detach().to(device).requires_grad_(x.requires_grad) for x in arrays]
    value = loss(*moved)
    return value.detach(), torch.autograd.grad(value, [x for x in moved if x.requires_grad])


def works(size: tuple[int, int, int], device: str) -> Iterator[tuple[str, dict[str, Callable[[], Tensor]]]]:
    """Name, and by contender a call that computes the loss and leaves its gradient."""
    rows, features, classes = size

    def normal(*shape: int, gradient: bool = False) -> Tensor:
        return torch.randn(*shape, device=device, dtype=torch.bfloat16).requires_grad_(gradient)

    ids = torch.randint(0, classes, (rows,), device=device)
    z = normal(rows, classes, gradient=True)
    contenders: dict[str, Callable[[], Tensor]] = {
        "lsmooth": lambda: losses.softmax_cross_entropy(ids, z, label_smoothing=EPS),
        "lsmooth, overwrite_logits": lambda: losses.softmax_cross_entropy(
            ids, z.detach().requires_grad_() * 1.0, label_smoothing=EPS, overwrite_logits=True
        ),
        "F.cross_entropy": lambda: cross_entropy(z, ids, label_smoothing=EPS),
    }
    if liger := _liger():
        own = liger.LigerCrossEntropyLoss(label_smoothing=EPS)
        contenders["Liger-Kernel"] = lambda: own(z * 1.0, ids)  # it writes over its logits
    yield "cross-entropy", contenders
    teacher = normal(rows, classes)
    yield (
        "distillation",
        {
            "lsmooth": lambda: distillation.distillation_loss(teacher, z, temperature=TEMPERATURE),
            "F.kl_div": lambda: _kl(teacher, z),
        },
    )
    h, w = normal(rows, features, gradient=True), (normal(classes, features) / features**0.5).requires_grad_()
    contenders = {
        "lsmooth": lambda: losses.linear_softmax_cross_entropy(ids, h, w, label_smoothing=EPS),
        "lsmooth, everything": lambda: losses.linear_softmax_cross_entropy(
            ids, h, w, label_smoothing=EPS, z_loss=1e-4, logit_softcap=30.0, temperature=0.9
        ),
        "linear, F.cross_entropy": lambda: cross_entropy(linear(h, w), ids, label_smoothing=EPS),
    }
    if liger:
        fused = liger.LigerFusedLinearCrossEntropyLoss(label_smoothing=EPS)
        contenders["Liger-Kernel"] = lambda: fused(w, h, ids)
    if cut := _cut_cross_entropy():
        contenders["cut-cross-entropy, no smoothing"] = lambda: cut(h, w, ids)
    yield "linear cross-entropy", contenders
    teacher_h, teacher_w = normal(rows, features), normal(classes, features) / features**0.5
    yield (
        "linear distillation",
        {
            "lsmooth": lambda: distillation.linear_distillation_loss(
                teacher_h, teacher_w, h, w, temperature=TEMPERATURE
            ),
            "linear, F.kl_div": lambda: _kl(linear(teacher_h, teacher_w), linear(h, w)),
        },
    )


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    p, log_q = softmax(teacher / TEMPERATURE, -1), log_softmax(student / TEMPERATURE, -1)
    return TEMPERATURE**2 * kl_div(log_q, p, reduction="batchmean")


def _liger() -> Any:
    try:
        import liger_kernel.transformers as liger  # type: ignore[import-not-found]
    except ImportError:
        return None
    return liger if torch.cuda.is_available() else None


def _cut_cross_entropy() -> Any:
    try:
        from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found]
    except ImportError:
        return None
    return linear_cross_entropy if torch.cuda.is_available() else None


def measure(size: tuple[int, int, int], device: str) -> list[dict[str, Any]]:
    """Median milliseconds and peak memory of every contender; the reason where one does not run."""
    found = []
    for work, contenders in works(size, device):
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        peak: dict[str, float] = {}
        failed: dict[str, str] = {}
        for turn in range(REPEATS + 1):  # the first warms up
            for name, call in contenders.items():
                if name in failed:
                    continue
                try:
                    spent, memory = _run(call, device)
                except (RuntimeError, TypeError, ValueError) as error:  # out of memory is a RuntimeError
                    failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    continue
                if turn:
                    seconds[name].append(spent)
                    peak[name] = memory
        for name in contenders:
            row = {"work": work, "size": size, "contender": name}
            if name in failed:
                row["failed"] = failed[name]
            else:
                ms = 1e3 * statistics.median(seconds[name])
                row |= {"milliseconds": ms, "peak_gib": peak[name]}
            found.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items() if key != "size"), flush=True)
    return found


def _run(call: Callable[[], Tensor], device: str) -> tuple[float, float]:
    """Seconds, and additional GiB of memory."""
    before = 0
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    loss = call()
    inputs = _leaves(loss)
    gradients = torch.autograd.grad(loss, inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    spent = time.perf_counter() - start
    del gradients
    return spent, (torch.cuda.max_memory_allocated() - before) / 2**30 if device == "cuda" else 0.0


def _leaves(loss: Tensor) -> list[Tensor]:
    """The leaf tensors of the loss."""
    nodes: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    leaves: list[Tensor] = []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes.extend(following for following, _ in node.next_functions)
    return leaves


def main() -> None:
    """Run the checks and the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here; --device cpu --quick shows what would run.")
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if chosen.device == "cuda" else None
    result = {"machine": describe_machine(chosen.device, name), "checks": check(chosen.device)}
    result["times"] = measure(SMALL if chosen.quick else LARGE, chosen.device)
    chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    wrong = [row for row in result["checks"] if not row["passed"]]
    print(f"{len(result['checks'])} checks, {len(wrong)} wrong; {chosen.output}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
