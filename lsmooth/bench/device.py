"""The device of a run: the devices of each backend, and the peak memory of a call on one.

    python -m lsmooth.bench.device BACKEND...

prints the devices of each backend besides the CPU, as JSON. It is a process of its own, so that the measuring
process imports a framework only when it measures it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

CPU, CUDA = "cpu", "cuda"


class Device(NamedTuple):
    """The device of a run."""

    kind: str
    name: str | None  # of the accelerator; None on the CPU
    backends: tuple[str, ...]  # those of the requested ones that see it


def resolve(kind: str | None, backends: Sequence[str]) -> Device:
    """The device of that kind; if it is None, the accelerator if there is one, else the CPU.

    Raises:
        ValueError: if no backend sees such a device; the message lists those that they see.
    """
    if kind == CPU:
        return Device(CPU, None, tuple(backends))
    seen = _ask(backends)
    if kind is None:
        kind = next((there for devices in seen.values() for there in devices), CPU)
        if kind == CPU:
            return Device(CPU, None, tuple(backends))
    able = tuple(backend for backend, devices in seen.items() if kind in devices)
    if not able:
        there = "; ".join(f"{backend}: {', '.join([CPU, *devices])}" for backend, devices in seen.items())
        raise ValueError(f"there is no device {kind!r} here. The backends see {there or 'the cpu alone'}.")
    return Device(kind, seen[able[0]][kind], able)


def use(kind: str) -> None:
    """Choose the device by environment variables, which JAX and TensorFlow read when they are imported."""
    if kind == CPU:
        os.environ.update(CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")
    else:  # by default each of the two reserves most of the device's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def peak_bytes(backend: str, call: Callable[[], Any]) -> int:
    """The peak of the accelerator's memory during a call, minus the memory in use before it."""
    return _PEAKS[backend](call)


def _torch_peak(call: Callable[[], Any]) -> int:
    import torch

    square = torch.zeros(8, 8, device=CUDA)
    square @ square  # allocates the workspace of matrix products, which is kept
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def _jax_peak(call: Callable[[], Any]) -> int:
    """JAX's peak cannot be reset: it includes the arguments and the compilation."""
    import jax

    device = jax.devices()[0]
    before = device.memory_stats()["bytes_in_use"]
    call()
    return device.memory_stats()["peak_bytes_in_use"] - before


def _tensorflow_peak(call: Callable[[], Any]) -> int:
    import tensorflow as tf

    memory = tf.config.experimental
    memory.reset_memory_stats("GPU:0")
    before = memory.get_memory_info("GPU:0")["current"]
    call()
    return memory.get_memory_info("GPU:0")["peak"] - before


_PEAKS: dict[str, Callable[[Callable[[], Any]], int]] = {
    "torch": _torch_peak,
    "jax": _jax_peak,
    "tensorflow": _tensorflow_peak,
}


def _ask(backends: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each backend, the names of its devices by kind."""
    asked = [backend for backend in backends if backend in _SEEN]
    if not asked:
        return {}
    command = [sys.executable, "-m", "lsmooth.bench.device", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the devices of the backends cannot be listed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _seen_by_torch() -> dict[str, str]:
    import torch

    return {CUDA: torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _seen_by_jax() -> dict[str, str]:
    import jax

    device = jax.devices()[0]
    kind = CUDA if device.platform == "gpu" else device.platform  # PyTorch calls AMD's GPUs cuda too
    return {} if kind == CPU else {kind: device.device_kind}


def _seen_by_tensorflow() -> dict[str, str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return {CUDA: tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")} if gpus else {}


_SEEN: dict[str, Callable[[], dict[str, str]]] = {
    "torch": _seen_by_torch,
    "jax": _seen_by_jax,
    "tensorflow": _seen_by_tensorflow,
}

if __name__ == "__main__":
    print(json.dumps({backend: _SEEN[backend]() for backend in sys.argv[1:]}))
