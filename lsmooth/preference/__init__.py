"""Losses of preferences between two answers, and the log-probabilities of sequences that they need.

Options shared with `lsmooth.losses` are described in `lsmooth.losses.softmax_cross_entropy`, and so are the errors.
"""

from lsmooth.preference._pairs import dpo_loss, reward_loss
from lsmooth.preference._sequences import linear_sequence_log_prob, sequence_log_prob

__all__ = ["dpo_loss", "linear_sequence_log_prob", "reward_loss", "sequence_log_prob"]
