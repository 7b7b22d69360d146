"""Those over whom an axis is spread: the processes of a group, the devices of a mesh axis, the replicas of a strategy.

Every method is called by all members together, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsmooth.backends.base import Array


class Members(ABC):
    """The members of a group, as one of them sees it."""

    count: int
    """How many there are."""

    index: Any
    """The place of this member: an int, or a scalar array where one program runs on all of them."""

    @abstractmethod
    def sum(self, x: Array, total: Array | None = None) -> Array:
        """The sum of ``x`` over the members; ``total`` if it is known already, and then nothing is sent.

        The gradient of each member's ``x`` is the gradient of the sum.
        """

    @abstractmethod
    def max(self, x: Array) -> Array:
        """The largest ``x`` of the members, elementwise; a constant."""

    @abstractmethod
    def shared(self, x: Array) -> Array:
        """``x``, which every member holds alike and uses for its own part: its gradient is the sum of theirs."""

    def placed(self, x: Array) -> Array:
        """``x``, which was on the host, where the members can add it up."""
        return x

    def start(self, size: Any) -> Any:
        """The number of the first class of this member, whose slice has ``size`` classes."""
        return self.index * size

    def total(self, size: Any) -> Any:
        """The number of classes of all members."""
        return self.count * size

    def agree(self, x: Array, size: Any, signature: str) -> tuple[Array, bool]:
        """``max(x)``, and whether `start` and `total` were right about the slices of the others.

        Where each member runs a program of its own, this is also where they compare their calls.

        Args:
            x: what to take the maximum of.
            size: the number of classes of this member's slice.
            signature: what is to be the same on every member: dtype, shape and options.

        Raises:
            ValueError: if another member's signature differs.
        """
        return self.max(x), True
