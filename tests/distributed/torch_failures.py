"""Run by test_torch_failures.py, once a process: one member makes a different call; prints the errors."""

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch_process import arguments, meet, rank

from lsmooth.losses import softmax_cross_entropy

OTHERWISE = {
    "rows": {"rows": 7},
    "dtype": {"dtype": torch.float64},
    "option": {"label_smoothing": 0.2},
    "array": {"temperature": torch.full((6,), 2.0)},
}


def call(group, rows=6, classes=4, dtype=torch.float32, **options):
    logits, labels = torch.ones(rows, classes, dtype=dtype), torch.zeros(rows, dtype=torch.int64)
    return softmax_cross_entropy(labels, logits, class_shards=group, **options).item()


def outcome(group, otherwise, again=True):
    """The error of this member, its time, and the result of a later common call."""
    started, told = time.monotonic(), None
    try:
        told = call(group, **(otherwise if rank == 1 else {}))
    except (ValueError, RuntimeError) as problem:
        told = [type(problem).__name__, str(problem)]
    return [told, time.monotonic() - started, call(group) if again else None]


def calls_differ():
    """Of each case, in a group without calls before it and in one that knows them all."""
    found = {}
    for name, otherwise in OTHERWISE.items():
        cold, warm = dist.new_group(), dist.new_group()
        for options in (*OTHERWISE.values(), {}):
            call(warm, **options)
        found[name] = [outcome(cold, otherwise), outcome(warm, otherwise, again=name not in ("rows", "dtype"))]
    patient = dist.new_group()
    if rank == 1:
        time.sleep(6.0)
    found["late"] = [outcome(patient, {})]
    found["another slice"] = [outcome(patient, {"classes": 5}), outcome(patient, {"classes": 5})]
    return found


def one_dies():
    """Its group has made calls before, that of another which dies has not."""
    warm, cold = dist.new_group([0, 1]), dist.new_group([0, 2])
    if rank < 2:
        call(warm)
    dist.barrier()
    if rank > 0:
        sys.stdout.flush()
        os._exit(0)
    return {"warm": [outcome(warm, {}, again=False)], "cold": [outcome(cold, {}, again=False)]}


meet(20.0)
print(json.dumps({"differ": calls_differ, "die": one_dies}[arguments[0]]()), flush=True)
if arguments[0] == "differ":
    dist.barrier()
os._exit(0)  # threads of gloo have not finished a collective that some members have left
