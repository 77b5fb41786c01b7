"""Which labels to ask for: acquisition functions, the learner that uses them, and a page for a person."""

from pyro_ssl.active.learner import ActiveLearner

__all__ = ["ActiveLearner"]
