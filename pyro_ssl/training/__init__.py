"""Training: `fit`, its callbacks, and checkpoints from which a run resumes bit for bit."""

from pyro_ssl.data.worker_processes import LostWorkerError
from pyro_ssl.training.callbacks import EarlyStopping, Epoch
from pyro_ssl.training.checkpoints import CheckpointWarning
from pyro_ssl.training.compiled_step import NotCompiledWarning, StaleStepError
from pyro_ssl.training.distributed import LostProcessError
from pyro_ssl.training.fit import fit, pretrain
from pyro_ssl.training.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger
from pyro_ssl.training.optimizers import OPTIMIZERS, SCHEDULES
from pyro_ssl.training.run import DivergedError, DivergedWarning, History
from pyro_ssl.training.settings import as_device
from pyro_ssl.utils.files import CheckpointError

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "CheckpointError",
    "CheckpointWarning",
    "DivergedError",
    "DivergedWarning",
    "EarlyStopping",
    "Epoch",
    "History",
    "CSVLogger",
    "MLflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "NotCompiledWarning",
    "StaleStepError",
    "LostProcessError",
    "LostWorkerError",
    "as_device",
    "fit",
    "pretrain",
]
