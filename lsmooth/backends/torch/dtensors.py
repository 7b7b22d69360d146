"""Calls with ``DTensor``s, made with the local rows and the local slice of the classes of this process.

Each dimension of the mesh spreads the rows, the classes, or nothing. So the call is one of plain tensors with
``class_shards`` and ``row_shards``, and its results and gradients become ``DTensor``s.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

# Arguments along the last axes of the rows, along the classes, and along both.
ALONG_ROWS = ("sample_weight", "mask", "temperature", "label_smoothing")
ALONG_CLASSES = ("smoothing_prior", "class_weight", "bias", "student_bias", "teacher_bias")
WEIGHTS = ("weight", "student_weight", "teacher_weight")
HIDDEN = ("hidden", "student_hidden", "teacher_hidden")
LOGITS = ("logits", "student_logits", "teacher_logits")


class Layout(NamedTuple):
    """The placement of a call on its mesh."""

    mesh: Any
    roles: tuple[Any, ...]  # for each dimension of the mesh: "classes", the axis of the rows that it spreads, or None
    axis: int  # of the classes, or the features
    shape: tuple[int, ...]  # of the rows
    num_classes: int  # padding included

    @property
    def shards(self) -> tuple[Any, Any]:
        """``class_shards`` and ``row_shards``."""
        classes = [i for i, role in enumerate(self.roles) if role == "classes"]
        rows = [i for i, role in enumerate(self.roles) if isinstance(role, int)]
        return _group(self.mesh, classes), _group(self.mesh, rows)

    @property
    def slices(self) -> list[int]:
        """The number of classes of each process over which they are spread, as in ``torch.chunk``."""
        found = [self.num_classes]
        for role, count in zip(self.roles, self.mesh.shape, strict=True):
            if role == "classes":
                chunks = [(size, math.ceil(size / count)) for size in found]
                found = [min(chunk, max(0, size - i * chunk)) for size, chunk in chunks for i in range(count)]
        return found

    def placements(self, rows: Callable[[int], int | None], classes: int | None) -> list[Any]:
        """Placements of an array with the classes along one axis and rows along ``rows(axis)``; None for no axis."""
        found: list[Any] = []
        for role in self.roles:
            axis = classes if role == "classes" else None if role is None else rows(role)
            found.append(Replicate() if axis is None else Shard(axis))
        return found


def fits(*arrays: Any) -> bool:
    """Whether a call of these logits, or hidden states and weights, has supported ``DTensor``s."""
    spread = [x for x in arrays if isinstance(x, DTensor)]
    known = all(type(p) in (Shard, Replicate, Partial) for x in spread for p in x.placements)
    return bool(spread) and known and all(x.device_mesh == spread[0].device_mesh for x in spread)


def call(function: Any, arguments: inspect.BoundArguments, first: str, elementwise: bool) -> Any:
    """Call the function with the local parts of its arguments."""
    given = arguments.arguments
    if given.get("class_shards") is not None or given.get("row_shards") is not None:
        raise ValueError(
            f"class_shards and row_shards are for plain tensors; the placements of a DTensor say how {first} "
            "is spread. Leave them at None, or pass the tensors' to_local()."
        )
    layout = layout_of(given, first)
    local = {name: _local(layout, name, x) for name, x in given.items()}
    if 0 in layout.slices:
        local = _padded(layout, local)
    class_shards, row_shards = layout.shards
    local |= {"class_shards": class_shards}
    if "row_shards" in inspect.signature(function).parameters:
        local["row_shards"] = row_shards
    return _spread(layout, function(**local))


def layout_of(given: dict[str, Any], first: str) -> Layout:
    """The layout of a call, whose logits, or hidden states, are called ``first``."""
    x = given[first]
    weight = given.get(first.replace("hidden", "weight")) if first in HIDDEN else None
    mesh = next(y.device_mesh for y in (x, weight, *given.values()) if isinstance(y, DTensor))
    shape = tuple(x.shape)
    axis = given.get("axis", -1) % len(shape)
    roles: list[Any] = []
    for dimension in range(mesh.ndim):
        along = _axis(x, dimension)
        role = None if along is None else along - (along > axis) if along != axis else "classes"
        if weight is not None:
            role = None if role == "classes" else role  # every process needs all features
            # Gather the smaller one of two tensors that are spread in the same way.
            if _axis(weight, dimension) == 0 and (role is None or weight.numel() > x.numel()):
                role = "classes"
        roles.append(role)
    num_classes = shape[axis] if weight is None else weight.shape[0]
    return Layout(mesh, tuple(roles), axis, shape[:axis] + shape[axis + 1 :], num_classes)


def _axis(x: Any, dimension: int) -> int | None:
    """Along which axis a dimension of the mesh spreads a tensor."""
    placement = x.placements[dimension] if isinstance(x, DTensor) else None
    return placement.dim % x.ndim if isinstance(placement, Shard) else None


def _local(layout: Layout, name: str, x: Any) -> Any:
    """The local part of an argument, or the argument itself."""
    if x is None or isinstance(x, (int, float, str, bool)):
        return x
    axis = layout.axis
    length = layout.num_classes if "classes" in layout.roles else 0
    if name in WEIGHTS or name in ALONG_CLASSES:
        x = _to_length(_tensor(x), 0, length)
        placements = layout.placements(lambda row: None, 0)
    elif name in LOGITS or name in HIDDEN or name == "labels":
        x = _tensor(x)
        if name == "labels" and x.ndim == len(layout.shape):
            placements = layout.placements(lambda row: row, None)
        else:
            classes = None if name in HIDDEN else axis
            x = x if classes is None else _to_length(x, axis, length)
            placements = layout.placements(lambda row: row + (row >= axis), classes)
    elif name in ALONG_ROWS:
        x = _tensor(x)
        before = len(layout.shape) - x.ndim
        has = [None if row < before or x.shape[row - before] == 1 else row - before for row in range(len(layout.shape))]
        placements = layout.placements(has.__getitem__, None)
    else:
        return x
    return part_of(layout, x, placements)


def part_of(layout: Layout, x: Tensor, placements: Sequence[Any]) -> Tensor:
    """The local part of a tensor with these placements; a plain tensor is equal in every process.

    Each process that spreads the rows contributes a part of the gradient of a replicated tensor.
    """
    replicated = [Replicate()] * layout.mesh.ndim
    spread = x if isinstance(x, DTensor) else DTensor.from_local(x, layout.mesh, replicated, run_check=False)
    gradients = [
        Partial() if isinstance(role, int) and isinstance(placement, Replicate) else placement
        for role, placement in zip(layout.roles, placements, strict=True)
    ]
    spread = _PlacedGradient.apply(spread) if spread.requires_grad else spread
    return spread.redistribute(placements=list(placements)).to_local(grad_placements=gradients)


class _PlacedGradient(torch.autograd.Function):
    """The identity; the gradient gets the placements of the tensor."""

    @staticmethod
    def forward(ctx: Any, x: DTensor) -> Tensor:
        ctx.placements = [Replicate() if isinstance(p, Partial) else p for p in x.placements]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: DTensor) -> Tensor:
        return grad_outputs[0].redistribute(placements=ctx.placements)


def _spread(layout: Layout, result: Any) -> Any:
    """Results of the local rows, or numbers that every process has, as ``DTensor``s."""
    if isinstance(result, tuple):
        parts = [_spread(layout, x) for x in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if not result.ndim:
        return DTensor.from_local(result, layout.mesh, [Replicate()] * layout.mesh.ndim, run_check=False)
    shape = torch.Size(layout.shape)
    stride = tuple([math.prod(shape[i + 1 :]) for i in range(len(shape))])
    placements = layout.placements(lambda row: row, None)
    return DTensor.from_local(result, layout.mesh, placements, run_check=False, shape=shape, stride=stride)


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))


def _to_length(x: Tensor, axis: int, length: int) -> Tensor:
    """With zeros for the padding, which is part of the slices but does not change results."""
    missing = length - x.shape[axis]
    if missing <= 0:
        return x
    return torch.cat([x, x.new_zeros([missing if i == axis else n for i, n in enumerate(x.shape)])], axis)


def _padded(layout: Layout, local: dict[str, Any]) -> dict[str, Any]:
    """With one class of padding on every process that has no class."""
    along = {**dict.fromkeys(WEIGHTS, 0), **dict.fromkeys(ALONG_CLASSES, 0), **dict.fromkeys(LOGITS, layout.axis)}
    if getattr(local.get("labels"), "ndim", 0) > len(layout.shape):
        along["labels"] = layout.axis
    sizes = {name: local[name].shape[axis] for name, axis in along.items() if local.get(name) is not None}
    grown = {name: _to_length(local[name], along[name], max(1, size)) for name, size in sizes.items()}
    return {**local, **grown, "num_classes": local.get("num_classes") or layout.num_classes}


def _group(mesh: Any, dimensions: Sequence[int]) -> Any:
    """The processes along some dimensions of the mesh, as one group."""
    if not dimensions:
        return None
    if len(dimensions) == 1:
        return mesh.get_group(dimensions[0])
    if mesh.mesh_dim_names is None:
        raise ValueError("An axis that several dimensions of a DeviceMesh spread needs mesh_dim_names; give them.")
    return mesh[tuple([mesh.mesh_dim_names[i] for i in dimensions])]._flatten()
