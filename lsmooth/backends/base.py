"""A backend: the array operations of a framework, and the kernels of the losses."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import formulas
from lsmooth.backends.formulas import statistics
from lsmooth.backends.formulas.linear import BlockLoss, Call, loss_of_all
from lsmooth.backends.members import Members
from lsmooth.backends.operations import Array as Array
from lsmooth.backends.operations import Operations
from lsmooth.backends.options import (
    DIVERGENCE,
    SIGMOID,
    SOFTMAX,
    DivergenceOptions,
    SigmoidOptions,
    SoftmaxOptions,
)


class Backend(Operations):
    """A framework, as lsmooth sees it: `Operations`, and kernels that a framework may have something faster for.

    Each kernel takes the options of its formula whole, and gives what the formula gives.

    Examples:
        >>> from lsmooth.backends import load_backend
        >>> xp = load_backend("numpy")
        >>> float(xp.logsumexp(xp.asarray([0.0, 0.0]), axis=-1))
        0.6931471805599453
    """

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
        """Per-row losses, or their sum; the formula and the arguments are those of `formulas.softmax_cross_entropy`."""
        return formulas.softmax_cross_entropy(self, logits, labels, options)

    def overwriting_softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
        """`softmax_cross_entropy` whose backward pass writes the gradient over the logits."""
        raise ValueError(
            f"overwrite_logits=True needs arrays that a gradient may be written over, as PyTorch's are; of the backend "
            f"{self.name}'s leave it at False."
        )

    def softmax_cross_entropy_with_statistics(
        self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX
    ) -> tuple[Array, statistics.RowStatistics]:
        """`softmax_cross_entropy`, and `statistics.row_statistics` of the same softmax, differentiable too."""
        losses = self.softmax_cross_entropy(logits, labels, options)
        return losses, statistics.row_statistics(self, logits, labels, options)

    def quick_mean(
        self,
        loss: str,
        labels: Any,
        logits: Any,
        label_smoothing: Any = 0.0,
        ignore_index: Any = None,
        axis: Any = -1,
        class_weight: Any = None,
        mask: Any = None,
    ) -> Array | None:
        """The mean of a loss with these options alone, where a backend has a quicker way to it.

        It comes before the arguments are checked, because for 32 x 10 logits the checks take longer than the loss.
        None for whatever is not as it should be: the caller then checks the arguments and calls the kernel.

        Args:
            loss: ``"softmax_cross_entropy"``.
            labels: as the user gave them, like the others.
            logits: z.
            label_smoothing: eps.
            ignore_index: class ids that do not count.
            axis: the class axis.
            class_weight: one number a class; of the sigmoid cross-entropy its ``pos_weight``.
            mask: True for the rows that count.
        """
        return None

    def quick_binary(
        self, labels: Any, logits: Any, given: Any, pos_weight: Any, gamma: float, alpha: float | None
    ) -> Array | None:
        """The binary loss of arguments as the user gave them, like `quick_mean`; ``given`` is a `RowOptions`."""
        return None

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
        """Per-row divergences of two logits, or their sum; see `formulas.softmax_divergence`."""
        return formulas.softmax_divergence(self, teacher, student, options)

    def hard_and_soft(
        self, labels: Array, teacher: Array, student: Array, hard: SoftmaxOptions, soft: DivergenceOptions
    ) -> Array:
        """`softmax_cross_entropy` of the student's logits plus `softmax_divergence`, each with its options.

        One kernel because the two gradients of the same logits can be added up in one array.
        """
        losses = self.softmax_cross_entropy(student, labels, hard)
        return losses + self.softmax_divergence(teacher, student, soft)

    def label_log_odds(self, logits: Array, labels: Array) -> Array:
        """Per-row ``log(p_y / (1 - p_y))``; see `formulas.label_log_odds`."""
        return formulas.label_log_odds(self, logits, labels)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
        """Per-element losses, or their sum; see `formulas.sigmoid_cross_entropy`."""
        return formulas.sigmoid_cross_entropy(self, logits, labels, options)

    def linear_rows(self, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
        """``loss`` of the logits of linear heads, which a kernel need not hold whole.

        Args:
            loss: gives a sum over rows, or one number a row; see `lsmooth.backends.formulas.linear`.
            call: the heads, and whatever else the loss depends on.
            block_size: how many rows to take at a time; the backend's choice if None. It bounds memory and changes no
                number: a backend may ignore it.

        Returns:
            A scalar, or (...), as the loss says; differentiable in every floating array of the call.
        """
        return loss_of_all(self, loss, call)

    def columns_of_slice(self, question: Any, slices: Any) -> dict[str, Array]:
        """What a member computes of its slice of the classes; see `lsmooth.backends.formulas.questions.Question`."""
        return question.local(slices)

    def divides_last(self, logits: Array) -> bool:
        """Whether the losses' sum is divided after it is taken: devices may share the rows, and add up both at once."""
        return False

    def refuse_spread(self, *arrays: Any) -> None:
        """Raise a `lsmooth.backends.ragged.SpreadArgumentError` for arrays of which each process holds a part."""

    def members(self, group: Any, option: str) -> Members:
        """The members of a group, over whom an axis is spread.

        Args:
            group: what the user gave for the option.
            option: ``"class_shards"`` or ``"row_shards"``, for messages.
        """
        raise ValueError(
            f"{option} needs arrays of PyTorch, JAX or TensorFlow, whose processes or devices can hold parts of one "
            f"call; of the backend {self.name}'s, leave it at None."
        )

    def linear_rows_with_statistics(
        self, loss: BlockLoss, call: Call, statistics: BlockLoss, own: Call, block_size: int | None = None
    ) -> tuple[Array, Array]:
        """`linear_rows` of a cross-entropy, and of the `StatisticsOfBlock` of its logits, whose call is ``own``."""
        return self.linear_rows(loss, call, block_size), self.linear_rows(statistics, own, block_size)
