"""Run by test_torch_shards.py, once a process: peak memory of calls on slices, compared with calls on whole arrays.

The whole arrays have the shapes of the slices, so that both hold as much before the call.
"""

from itertools import accumulate

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from torch_process import meet, part

from lsmooth.distillation import distillation_loss, linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy

ROWS, CLASSES, FEATURES = 1000, 8192, 32


def peak(call):
    """The peak bytes of tensors, without the arguments, in the second of two calls."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [x for x in profiler.profiler.kineto_results.events() if x.name() == "[memory]"]
    changes = [x.nbytes() for x in sorted(events, key=lambda x: x.start_ns())]
    return max(accumulate(changes))


meet()
torch.manual_seed(0)
labels = torch.randint(CLASSES, (ROWS,))
logits, teacher = torch.randn(ROWS, CLASSES), torch.randn(ROWS, CLASSES)
hidden, head = torch.randn(2 * ROWS, FEATURES), torch.randn(CLASSES, FEATURES)
world = {"class_shards": dist.group.WORLD}
ids = torch.randint(CLASSES, (2 * ROWS,))


def call(loss, *arrays, trains=True):
    """The arguments' bytes, and a function of options that computes the loss and its gradients."""
    arrays = [x.detach().requires_grad_(trains) for x in arrays]

    def step(**options):
        value = loss(*arrays, **options)
        if trains:
            value.backward()
            for x in arrays:
                x.grad = None

    return sum(x.nbytes for x in arrays), step


def cross_entropy(z, **s):
    return softmax_cross_entropy(labels, z, label_smoothing=0.1, **s)


CASES = {
    "logits": call(cross_entropy, logits),
    "logits, no gradient": call(cross_entropy, logits, trains=False),
    "distillation": call(lambda z, **s: distillation_loss(teacher, z, temperature=2.0, **s), logits),
    "linear": call(lambda h, w, **s: linear_softmax_cross_entropy(ids, h, w, label_smoothing=0.1, **s), hidden, head),
    "linear distillation": call(lambda h, w, **s: linear_distillation_loss(hidden, head, h, w, **s), hidden, head),
}
part([[name, given, peak(call), peak(lambda call=call: call(**world))] for name, (given, call) in CASES.items()])
