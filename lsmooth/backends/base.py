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
    """A framework: its `Operations`, and kernels that it may replace by faster ones.

    Each kernel takes all options of its formula and returns the same numbers.

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
            f"overwrite_logits=True needs PyTorch tensors, whose memory can be overwritten; leave it at False for "
            f"arrays of the {self.name} backend."
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
        """The mean of a loss with only these options, if the backend has a faster way to compute it.

        It is called before the arguments are checked, because for 32 x 10 logits the checks take longer than the loss.
        It returns None for unsupported arguments: the caller then checks them and calls the kernel.

        Args:
            loss: ``"softmax_cross_entropy"``.
            labels: unchecked, like the other arguments.
            logits: z.
            label_smoothing: eps.
            ignore_index: class ids that do not count.
            axis: the class axis.
            class_weight: one number per class.
            mask: True for the rows that count.
        """
        return None

    def quick_binary(
        self, labels: Any, logits: Any, given: Any, pos_weight: Any, gamma: float, alpha: float | None
    ) -> Array | None:
        """Like `quick_mean`, for the binary loss of unchecked arguments; ``given`` is a `RowOptions`."""
        return None

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
        """Per-row divergences of two logits, or their sum; see `formulas.softmax_divergence`."""
        return formulas.softmax_divergence(self, teacher, student, options)

    def hard_and_soft(
        self, labels: Array, teacher: Array, student: Array, hard: SoftmaxOptions, soft: DivergenceOptions
    ) -> Array:
        """`softmax_cross_entropy` of the student's logits plus `softmax_divergence`, each with its options.

        One kernel, because both gradients of the student's logits can be accumulated in one array.
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
        """The loss of the logits of linear heads; a kernel may compute them in blocks.

        Args:
            loss: returns a sum over rows or one number per row; see `lsmooth.backends.formulas.linear`.
            call: the heads and the other arrays that the loss depends on.
            block_size: the number of rows in a block; chosen by the backend if None. It bounds memory and does not
                change the result: a backend may ignore it.

        Returns:
            A scalar or (...), depending on the loss; differentiable in every floating-point array of the call.
        """
        return loss_of_all(self, loss, call)

    def columns_of_slice(self, question: Any, slices: Any) -> dict[str, Array]:
        """The columns that a member computes from its slice of the classes; see `formulas.questions.Question`."""
        return question.local(slices)

    def divides_last(self, logits: Array) -> bool:
        """Whether to divide the sum of the losses at the end, because devices share the rows."""
        return False

    def refuse_spread(self, *arrays: Any) -> None:
        """Raise a `SpreadArgumentError` for arrays of which each process holds a part."""

    def members(self, group: Any, option: str) -> Members:
        """The members of a group over which an axis is spread.

        Args:
            group: the value of the option.
            option: ``"class_shards"`` or ``"row_shards"``, for messages.
        """
        raise ValueError(
            f"{option} needs arrays of PyTorch, JAX or TensorFlow, which can be spread over processes or devices; "
            f"leave it at None for arrays of the {self.name} backend."
        )

    def linear_rows_with_statistics(
        self, loss: BlockLoss, call: Call, statistics: BlockLoss, own: Call, block_size: int | None = None
    ) -> tuple[Array, Array]:
        """`linear_rows` of a cross-entropy, and of the statistics of its logits, whose call is ``own``."""
        return self.linear_rows(loss, call, block_size), self.linear_rows(statistics, own, block_size)
