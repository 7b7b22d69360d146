"""The processes of a ``torch.distributed`` group over which an axis is spread.

A collective of tensors with different sizes may abort a process, hang, or return wrong numbers without an error. So
the members compare their calls in the group's store, before the first call of each kind and when its rows change.
"""

from __future__ import annotations

import contextlib
import weakref
import zlib
from collections.abc import Iterator
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lsmooth.backends.members import Members

# The time that a process waits before it checks for an error.
PATIENCE = timedelta(seconds=1)
# The state of a member and of its group is not part of a compiled graph.
_left_to_python: Any = torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]
# The number of fingerprints, which are exact in float32.
FINGERPRINTS = 2**20

_known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


class _Known:
    """The state that the members of a group share."""

    def __init__(self):
        self.meetings = 0
        self.sizes: dict[int, tuple[int, ...]] = {}  # the sizes of all slices, by the size of this member's slice
        self.forget()

    def forget(self) -> None:
        """Forget the expected order of messages."""
        self.last: Any = None
        self.next: dict[Any, Any] = {}

    def expects(self, message: Any) -> bool:
        """Whether this message followed the last one before; at most one message does."""
        return self.next.get(self.last) == message

    def add(self, message: Any) -> None:
        self.next[self.last] = message
        self.last = message


class TorchMembers(Members):
    """`Members` of a process group."""

    def __init__(self, group: Any, option: str):
        self.group, self.option = group, option
        self.count, self.index = dist.get_world_size(group), dist.get_rank(group)
        self.known = _known.setdefault(group, _Known())
        self.call, self.size = "", 0
        self.agreed = False  # whether the members have agreed on the rows of this call
        self.right = True  # whether every member's `start` and `total` were right in this call

    @_left_to_python
    def sum(self, x: Tensor, total: Tensor | None = None) -> Tensor:
        return _Sum.apply(x, total, self)

    @_left_to_python
    def max(self, x: Tensor) -> Tensor:
        return self.reduced(x, dist.ReduceOp.MAX)

    @_left_to_python
    def shared(self, x: Tensor) -> Tensor:
        return _Shared.apply(x, self)

    def placed(self, x: Tensor) -> Tensor:
        kinds = [device.type for device in self.group._device_types]
        return x if "cpu" in kinds else x.to(kinds[0])

    def start(self, size: int) -> int:
        sizes = self.known.sizes.get(size)
        return self.index * size if sizes is None else sum(sizes[: self.index])

    def total(self, size: int) -> int:
        return sum(self.known.sizes.get(size, (size,) * self.count))

    @_left_to_python
    def agree(self, x: Tensor, size: int, signature: str) -> tuple[Tensor, bool]:
        self.right = True
        self._announce(x, size, signature)
        self.agreed = True
        fingerprint = zlib.crc32(f"{self.known.sizes[size]} {self.call}".encode()) % FINGERPRINTS
        wide = x.detach().reshape(-1)
        wide = wide if x.dtype == torch.float64 else wide.float()
        largest = self._all_reduce(torch.cat([wide, wide.new_tensor([fingerprint, -fingerprint])]), dist.ReduceOp.MAX)
        highest, lowest = largest[-2:].tolist()
        if highest != -lowest:  # the messages have equal sizes and different contents
            with self._explained():
                self._meet()
        return largest[:-2].view(x.shape).to(x.dtype), self.right

    def reduced(self, x: Tensor, operation: Any) -> Tensor:
        """The members' numbers, reduced in a new tensor."""
        if not self.agreed:
            self._announce(x, 0, "reduced")
        return self._all_reduce(x.detach().clone(memory_format=torch.contiguous_format), operation)

    def _all_reduce(self, x: Tensor, operation: Any) -> Tensor:
        with self._explained():
            work: Any
            work, announced = dist.all_reduce(x, operation, self.group, async_op=True), False
            while x.is_cpu and not _is_done(work):
                if announced:  # by a member that has not joined this collective, which would be done otherwise
                    self._meet()
                announced = any(self._store.check([place]) for place in self._places())
            work.wait()
        return x

    @property
    def _store(self) -> Any:
        return self.group.get_group_store()

    def _places(self) -> list[str]:
        return [f"lsmooth/{self.known.meetings}/{member}" for member in range(self.count)]

    def _announce(self, x: Tensor, size: int, signature: str) -> None:
        """Announce this call; compare calls if the size of the message is not the expected one."""
        self.size, self.call = size, f"{tuple(x.shape)} in {str(x.dtype).removeprefix('torch.')}, {signature}"
        message = (x.numel(), x.dtype)
        if size not in self.known.sizes or not self.known.expects(message):
            with self._explained():
                self._meet()
        self.known.add(message)

    def _meet(self) -> None:
        """Compare the calls of all members, and learn the sizes of their slices."""
        store, places, size = self._store, self._places(), self.size
        store.set(places[self.index], f"{size}/{self.start(size), self.total(size)}/{self.call}")
        self._wait(store, places)
        brought = [x.decode().split("/", 2) for x in store.multi_get(places)]
        self.known.meetings += 1
        other = next((i for i, (_, _, call) in enumerate(brought) if call != self.call), None)
        if other is not None:
            self.known.forget()
            raise ValueError(
                f"{self.option}: the members of the group make different calls. Member {self.index} has {self.call}; "
                f"member {other} has {brought[other][2]}. Rows, dtype and options must be equal on every member; only "
                "the number of classes may differ."
            )
        sizes = tuple(int(number) for number, _, _ in brought)
        self.known.sizes[size] = sizes
        starts = [0, *accumulate(sizes)]
        right = [str((start, starts[-1])) for start in starts[:-1]]
        self.right = self.right and right == [assumed for _, assumed, _ in brought]

    def _wait(self, store: Any, places: list[str]) -> None:
        """Wait for all members; a collective, unlike the store, reports a member that has died."""
        answer, waited, may_ask = "met", timedelta(), torch.device("cpu") in self.group._device_types
        while not store.check(places):
            try:
                store.wait(places, PATIENCE)
            except RuntimeError:
                waited += PATIENCE
                if waited >= store.timeout:
                    raise
                if may_ask and waited > 4 * PATIENCE:
                    answer = "asked"
                    break
        if store.compare_set(f"lsmooth/{self.known.meetings}", "", answer) == b"asked":
            dist.all_reduce(torch.zeros(1, device="cpu"), group=self.group)
            store.wait(places)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RuntimeError(
                f"{self.option}: the members of the group did not all make the same call. Member {self.index} of "
                f"{self.count} has {self.call}. Another member has stopped, or makes its calls in another order, or "
                f"with another number of rows or dtype. torch.distributed reports: {reason[0]}"
            ) from error


def _is_done(work: Any) -> bool:
    try:
        work.wait(PATIENCE)
    except RuntimeError:
        if work.is_completed():
            raise
        return False
    return True


class _Sum(torch.autograd.Function):
    """The sum over the members, whose gradient is the gradient of each term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, total: Tensor | None, members: TorchMembers) -> Tensor:
        ctx.members = members
        return members.reduced(x, dist.ReduceOp.SUM) if total is None else total.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return _Shared.apply(grad_outputs[0], ctx.members), None, None


class _Shared(torch.autograd.Function):
    """A value that every member has; its gradient is the sum of the members' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, members: TorchMembers) -> Tensor:
        ctx.members = members
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad_outputs[0], None, ctx.members), None


def members(group: Any, option: str) -> TorchMembers:
    """The members of a ``ProcessGroup`` or of a one-dimensional ``DeviceMesh``."""
    from torch.distributed.device_mesh import DeviceMesh

    if torch.compiler.is_compiling():
        raise ValueError(
            f"{option} cannot be compiled: the members compare their calls in Python. Call the loss outside the "
            "compiled model, or leave fullgraph at False."
        )
    given = group
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"{option} takes one dimension of a DeviceMesh, got one of shape {tuple(group.shape)} with the names "
                f"{group.mesh_dim_names}; pass e.g. mesh['name'] or mesh.get_group(dimension)."
            )
        group = None if group.get_coordinate() is None else group.get_group()
    elif not isinstance(group, dist.ProcessGroup) and group is not dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(
            f"{option} of PyTorch tensors takes a torch.distributed.ProcessGroup or a one-dimensional DeviceMesh, "
            f"got {group!r}."
        )
    if not isinstance(group, dist.ProcessGroup) or dist.get_rank(group) < 0:
        raise ValueError(f"{option}: this process is not a member of {given!r}; only members may make this call.")
    return TorchMembers(group, option)
