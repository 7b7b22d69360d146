"""Members over which an axis is spread: processes of a group, devices of a mesh axis, or replicas of a strategy.

All members must call every method together, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsmooth.backends.base import Array


class Members(ABC):
    """The members of a group, seen by one of them."""

    count: int
    """How many there are."""

    index: Any
    """The index of this member: an int, or a scalar array if one program runs on all of them."""

    @abstractmethod
    def sum(self, x: Array, total: Array | None = None) -> Array:
        """The sum of ``x`` over the members; if ``total`` is given, that sum, without communication.

        The gradient of each member's ``x`` is the gradient of the sum.
        """

    @abstractmethod
    def max(self, x: Array) -> Array:
        """The largest ``x`` of the members, elementwise; a constant."""

    @abstractmethod
    def shared(self, x: Array) -> Array:
        """``x``, of which every member has an equal copy; its gradient is the sum of the members' gradients."""

    def placed(self, x: Array) -> Array:
        """``x``, moved from the host to a device on which the members can reduce it."""
        return x

    def start(self, size: Any) -> Any:
        """The id of the first class of this member, whose slice has ``size`` classes."""
        return self.index * size

    def total(self, size: Any) -> Any:
        """The number of classes of all members."""
        return self.count * size

    def agree(self, x: Array, size: Any, signature: str) -> tuple[Array, bool]:
        """``max(x)``, and whether `start` and `total` were right about the slices of the others.

        If every member runs its own program, the members also compare their calls here.

        Args:
            x: the array to reduce.
            size: the number of classes of this member's slice.
            signature: dtype, shape and options, which must be equal on every member.

        Raises:
            ValueError: if another member's signature differs.
        """
        return self.max(x), True
