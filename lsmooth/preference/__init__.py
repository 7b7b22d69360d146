"""Losses of preferences between two answers, and the log-probabilities of sequences that they are computed from."""

from lsmooth.preference._pairs import dpo_loss, reward_loss
from lsmooth.preference._sequences import linear_sequence_log_prob, sequence_log_prob

__all__ = ["dpo_loss", "linear_sequence_log_prob", "reward_loss", "sequence_log_prob"]
