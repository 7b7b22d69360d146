"""Run by test_torch_dtensors.py, once a process: uneven rows and classes over a mesh of 2 times 2.

Prints of each case the error, the placements of the gradients, and the kinds of collectives.
"""

import torch
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode
from torch_process import error, meet, part

from lsmooth.distillation import distillation_loss, linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy, softmax_cross_entropy_with_statistics

ROWS, FEATURES = 11, 3  # of 9 rows over both dimensions, PyTorch's own full_tensor() is wrong

meet()
mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("first", "second"))
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
labels, hidden, per_row = torch.arange(ROWS) % 3, torch.randn(ROWS, FEATURES), torch.rand(ROWS) + 0.5
whole, rows, classes = Replicate(), Shard(0), Shard(1)


def compare(name, loss, placements, *arrays):
    """Of a loss of arrays, these at their placements and all in one place.

    An argument without placement is a plain tensor; in one case it needs a gradient, which is gathered.
    """
    needed = [p is not None or "rows, classes" in name for p in placements]
    alone = [x.clone().requires_grad_(need) for x, need in zip(arrays, needed, strict=True)]
    spread = [
        (distribute_tensor(x, mesh, p).detach() if p else x.clone()).requires_grad_(need)
        for x, p, need in zip(arrays, placements, needed, strict=True)
    ]
    expected = loss(*alone)
    with CommDebugMode() as debug:
        value = loss(*spread)
        value.sum().backward()
    expected.sum().backward()
    kept = all(not p or x.grad.placements == tuple(p) for x, p in zip(spread, placements, strict=True))
    full = [getattr(x, "full_tensor", lambda x=x: x)() for x in (value, *[x.grad for x in spread if x.requires_grad])]
    kinds = sorted(str(kind) for kind in debug.get_comm_counts())
    found.append([name, error(full, [expected, *[x.grad for x in alone if x.requires_grad]]), kept, kinds])


found = []
for num_classes in (7, 3):  # over 4 processes one has none of 3 classes
    logits, teacher = torch.randn(2, ROWS, num_classes).unbind()
    weight, head, bias = torch.rand(num_classes), torch.randn(num_classes, FEATURES), torch.randn(num_classes)
    ways = {"rows, classes": [rows, classes], "classes, rows": [classes, rows], "classes": [whole, classes]}
    ways |= {"rows twice": [rows, rows], "classes twice": [classes, classes], "rows": [rows, whole]}
    for way, placements in ways.items():
        name = f"{num_classes}, {way}"
        plain = {"label_smoothing": 0.1, "ignore_index": 1, "smoothing_prior": weight.tolist()}
        compare(
            f"{name}: cross-entropy",
            lambda z, w: softmax_cross_entropy(labels, z, class_weight=w, temperature=per_row, z_loss=0.1, **plain),  # noqa: B023
            [placements, None],
            logits,
            weight,
        )
        compare(
            f"{name}: losses of rows",
            lambda z, s: softmax_cross_entropy(labels, z, sample_weight=s, reduction="none", **plain),  # noqa: B023
            [placements, None],
            logits,
            per_row,
        )
        compare(
            f"{name}: statistics",
            lambda z: softmax_cross_entropy_with_statistics(labels, z, label_smoothing=0.1)[1].entropy,
            [placements],
            logits,
        )
        compare(
            f"{name}: soft labels",
            lambda t, z: softmax_cross_entropy(t, z),
            [None, placements],
            teacher.softmax(-1),
            logits,
        )
        compare(
            f"{name}: distillation",
            lambda t, z: distillation_loss(t, z, temperature=2.0, stop_teacher_gradient=False),
            [None, placements],
            teacher,
            logits,
        )
        of_hidden = [p if p is rows else whole for p in placements]
        of_head = [Shard(0) if p is classes else whole for p in placements]
        compare(
            f"{name}: linear",
            lambda h, w, b: linear_softmax_cross_entropy(labels, h, w, b, block_size=2, **plain),  # noqa: B023
            [of_hidden, of_head, None],
            hidden,
            head,
            bias,
        )
        compare(
            f"{name}: linear distillation",
            lambda h, w, b: linear_distillation_loss(hidden, 2.0 * head, h, w, student_bias=b),  # noqa: B023
            [of_hidden, of_head, of_head],
            hidden,
            head,
            bias,
        )
part(found)
