"""Run by test_torch_dtensors.py, once a process: losses of DTensors, compared with plain tensors."""

import torch
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch_process import meet, part, size

from lsmooth.distillation import (
    DistillationLoss,
    decoupled_distillation_loss,
    distillation_loss,
    linear_distillation_loss,
)
from lsmooth.integrations.torch import CrossEntropyLoss
from lsmooth.losses import (
    linear_softmax_cross_entropy,
    max_suppression,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    softmax_focal_loss,
)

ROWS, CLASSES, FEATURES, EPS = 8, 12, 4, 0.1
meet()
mesh = init_device_mesh("cpu", (size,))
torch.manual_seed(0)
student, teacher = (torch.randn(ROWS, CLASSES, dtype=torch.float64) for _ in range(2))
hidden, weight = (torch.randn(n, FEATURES, dtype=torch.float64) for n in (ROWS, CLASSES))
per_class = torch.arange(1.0, CLASSES + 1, dtype=torch.float64)
labels = torch.randint(CLASSES, (ROWS,))
weights = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64)


def everywhere(x):
    return distribute_tensor(x, mesh, [Replicate()])


def losses(labels, teacher, per_class):
    """By name, each a function of the logits."""
    options = {"ignore_index": 0, "class_weight": per_class, "smoothing_prior": per_class, "z_loss": 0.1}
    return {
        "cross-entropy": lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS),
        "options": lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS, logit_softcap=5.0, **options),
        "sigmoid": lambda z: sigmoid_cross_entropy((teacher > 0).double(), z, label_smoothing=EPS),
        "focal": lambda z: softmax_focal_loss(labels, z, label_smoothing=EPS),
        "max suppression": lambda z: max_suppression(labels, z),
        "forward KL": lambda z: distillation_loss(teacher, z, temperature=2.0),
        "reverse KL": lambda z: distillation_loss(teacher, z, divergence="reverse_kl"),
        "decoupled": lambda z: decoupled_distillation_loss(teacher, z, labels, temperature=2.0),
        "hard and soft": lambda z: DistillationLoss(temperature=2.0, label_smoothing=EPS)(labels, teacher, z),
    }


def value_and_gradients(loss, *arrays):
    arrays = [x.detach().requires_grad_() for x in arrays]
    value = loss(*arrays)
    value.backward()
    return [x.full_tensor() if hasattr(x, "full_tensor") else x for x in (value.detach(), *(x.grad for x in arrays))]


def error(ours, theirs):
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


found = []
for along, placement in {"rows": Shard(0), "classes": Shard(1), "nothing": Replicate()}.items():
    rows = placement if along == "rows" else Replicate()
    classes = Shard(0) if along == "classes" else Replicate()
    ids = distribute_tensor(labels, mesh, [rows])
    logits, soft = (distribute_tensor(x, mesh, [placement]) for x in (student, teacher))
    plain, spread = losses(labels, teacher, per_class), losses(ids, soft, everywhere(per_class))
    for name, loss in plain.items():
        found.append(
            (name, along, error(value_and_gradients(loss, student), value_and_gradients(spread[name], logits)))
        )
    heads = distribute_tensor(hidden, mesh, [rows]), distribute_tensor(weight, mesh, [classes])
    one, two = (
        value_and_gradients(
            lambda h, w, y=y: linear_softmax_cross_entropy(y, h, w, label_smoothing=EPS, block_size=3), *arrays
        )
        for y, arrays in ((labels, (hidden, weight)), (ids, heads))
    )
    found.append(("linear head", along, error(one, two)))
    # Plain tensors beside DTensor logits, equal on every device.
    mixed = losses(labels.tolist(), teacher, per_class.tolist()) | {
        "weighted": lambda z: softmax_cross_entropy(labels, z, sample_weight=weights, temperature=weights),
        "positive weight": lambda z: sigmoid_cross_entropy(teacher.sigmoid(), z, pos_weight=per_class),
        "module": CrossEntropyLoss(weight=per_class, label_smoothing=EPS),
        "masked": lambda z: distillation_loss(teacher, z, mask=weights > 0.7, sample_weight=weights),
    }
    mixed["module"] = lambda z, module=mixed["module"]: module(z, labels)
    for name, loss in mixed.items():
        found.append(
            (name, f"{along}, mixed", error(value_and_gradients(loss, student), value_and_gradients(loss, logits)))
        )
    for given in ((heads[0], weight), (hidden, heads[1])):
        two = value_and_gradients(lambda h, w: linear_softmax_cross_entropy(labels, h, w, label_smoothing=EPS), *given)
        found.append(("linear head", f"{along}, mixed", error(one, two)))
        one_kd, two_kd = (
            value_and_gradients(lambda h, w: linear_distillation_loss(hidden, 2.0 * weight, h, w), *arrays)
            for arrays in ((hidden, weight), given)
        )
        found.append(("linear distillation", f"{along}, mixed", error(one_kd, two_kd)))
part(found)
