"""Training: `fit`, its batches, and checkpoints from which a run resumes to the same bits."""

from pyro_ssl.training.fit import (
    SCHEDULES,
    DivergedError,
    DivergedWarning,
    EarlyStopping,
    Epoch,
    fit,
)

__all__ = ["SCHEDULES", "DivergedError", "DivergedWarning", "EarlyStopping", "Epoch", "fit"]
