"""Training: `fit`, its callbacks, and checkpoints from which a run resumes to the same bits."""



__all__ = [
    "SCHEDULES",
    "DivergedError",
    "DivergedWarning",
    "EarlyStopping",
    "Epoch",
    "History",
    "as_device",
    "fit",
]
