"""Helpers of the scripts of PyTorch groups: setup, shutdown, and comparison of numbers."""

import json
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

rank, size, meeting_point, *arguments = sys.argv[1:]
rank, size = int(rank), int(size)


def meet(timeout=60.0):
    torch.set_num_threads(1)
    limit = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size, timeout=limit)


def part(found):
    """Print the results and end the script, after all members are done.

    The destructors are skipped: now and then a thread of gloo is still running, and they would abort the process.
    """
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(found), flush=True)
    os._exit(0)


class Traffic:
    """The collectives that run in a ``with`` block, each as its name and the number of bytes that it takes."""

    NAMES = ("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter", "broadcast", "all_to_all", "send")

    def __enter__(self):
        self.calls, self.kept = [], {name: getattr(dist, name) for name in self.NAMES}
        for name, function in self.kept.items():
            setattr(dist, name, self.counting(name, function))
        return self

    def __exit__(self, *error):
        for name, function in self.kept.items():
            setattr(dist, name, function)

    def counting(self, name, function):
        def counted(x, *args, **options):
            self.calls.append((name, x.numel() * x.element_size() if isinstance(x, torch.Tensor) else -1))
            return function(x, *args, **options)

        return counted


def error(ours, theirs):
    """The largest difference between two lists of tensors, relative to numbers above 1."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ours, theirs, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return str([(tuple(a.shape), tuple(b.shape)) for a, b in pairs])
    return max(((a - b).abs() / b.abs().clamp(min=1.0)).max().item() if a.numel() else 0.0 for a, b in pairs)
