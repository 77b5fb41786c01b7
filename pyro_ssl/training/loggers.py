"""Logs of training: CSV, TensorBoard, Weights & Biases and MLflow, as callbacks of `fit`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pyro_ssl.utils import files

if TYPE_CHECKING:
    from pyro_ssl.training.callbacks import Epoch

SAME_LOSS = 1e-4
"""Largest relative difference between equal losses, since logs round numbers."""


class Logger(ABC):
    """A callback of `fit` that writes each epoch's measurements to a log, once.

    A resumed run continues its log: epochs that are already in it are not written again. Loggers
    are called after all other callbacks, so that they also write the callbacks' measurements.

    Arguments:
        directory: Folder of the log, or of the file that identifies it; one for each run.
        config: Options to show with the run.
    """

    package = ""
    """Package that the log needs, which is also the name of the extra that installs it."""

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None) -> None:
        self.directory = Path(directory)
        self.config = dict(config or {})
        self._losses: dict[int, float] | None = None
        if find_spec(self.package) is None:
            raise ImportError(
                f"{type(self).__name__} needs {self.package}: "
                f"pip install 'pyro-ssl[{self.package}]'"
            )

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch, unless the log already has it.

        Raises:
            ValueError: The log belongs to another run.
        """
        if self._losses is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._losses = self._open()
        if epoch.epoch not in self._losses:
            self._losses[epoch.epoch] = epoch.metrics["loss"]
            self._write(epoch.epoch, epoch.metrics)
        self._check_is_of_this_run(epoch, self._losses[epoch.epoch])
        if epoch.is_last:
            self.close()

    def close(self) -> None:
        """Close the log. This is done after the last epoch; after an error, call it yourself."""
        if self._losses is not None:
            self._close()
        self._losses = None

    def _check_is_of_this_run(self, epoch: Epoch, logged: float) -> None:
        loss = epoch.metrics["loss"]
        if not math.isclose(loss, logged, rel_tol=SAME_LOSS):
            raise ValueError(
                f"callbacks: the log in {self.directory} belongs to another run: its loss in epoch "
                f"{epoch.epoch} is {logged:.6g}, and here it is {loss:.6g}; give a new directory"
            )

    @abstractmethod
    def _open(self) -> dict[int, float]:
        """Start or continue the log; return the losses in it by epoch."""

    @abstractmethod
    def _write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the measurements of an epoch, and wait until they are in the log."""

    @abstractmethod
    def _close(self) -> None:
        """Close the log."""


class CSVLogger(Logger):
    """Write a table, `DIRECTORY/metrics.csv`, with one row per epoch; nothing else is needed.

    A measurement that an epoch lacks is an empty cell.

    Arguments:
        directory: Folder of the table; one for each run.
        config: Options, which are not part of the table.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     logger = CSVLogger(folder)
    ...     _ = logger._open()
    ...     logger._write(1, {"loss": 0.5, "lr": 0.01})
    ...     print((Path(folder) / "metrics.csv").read_text())
    epoch,loss,lr
    1,0.5,0.01
    <BLANKLINE>
    """

    package = "csv"  # a part of Python

    @property
    def _path(self) -> Path:
        return self.directory / "metrics.csv"

    def _open(self) -> dict[int, float]:
        self._rows: list[dict[str, Any]] = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                self._rows = list(csv.DictReader(file))
        return {int(row["epoch"]): float(row["loss"]) for row in self._rows}

    def _write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._rows.append({"epoch": epoch, **metrics})
        names = dict.fromkeys(name for row in self._rows for name in row)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text(self._path, buffer.getvalue())  # as a whole, so that no row is cut

    def _close(self) -> None:
        self._rows = []


class TensorBoardLogger(Logger):
    """Write event files for TensorBoard: `tensorboard --logdir DIRECTORY`.

    It needs the extra `tensorboard`.

    Arguments:
        directory: Folder of the event files; one for each run.
        config: Options, which are shown as text.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    package = "tensorboard"

    def _open(self) -> dict[int, float]:
        from torch.utils.tensorboard import SummaryWriter

        losses = self._read()
        # hides the events of an epoch that was written only in part
        purge = max(losses) + 1 if losses else None
        self._writer: Any = SummaryWriter(str(self.directory), purge_step=purge)
        if not losses and self.config:
            text = json.dumps(self.config, indent=1, default=str)
            self._writer.add_text("config", f"```\n{text}\n```")
        return losses

    def _read(self) -> dict[int, float]:
        accumulator = import_module("tensorboard.backend.event_processing.event_accumulator")
        events = accumulator.EventAccumulator(str(self.directory), size_guidance={"scalars": 0})
        events.Reload()
        if "loss" not in events.Tags()["scalars"]:
            return {}
        return {event.step: event.value for event in events.Scalars("loss")}

    def _write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        # the loss is written last, so that an epoch with a loss is complete
        for name in sorted(metrics, key=lambda name: name == "loss"):
            self._writer.add_scalar(name, metrics[name], epoch)
        self._writer.flush()

    def _close(self) -> None:
        self._writer.close()


class WandbLogger(Logger):
    """Write to Weights & Biases.

    Without a network, use mode "offline", and run `wandb sync` later. It needs the extra `wandb`. A
    resumed run continues the same W&B run, whose id is in the file `wandb.json` in the directory.

    Arguments:
        directory: Folder of W&B's files; one for each run.
        config: Options to show with the run.
        project: Project of the run.
        name: Name of the run; by default W&B chooses one.
        mode: "online", "offline" or "disabled"; by default the environment variable WANDB_MODE.

    Raises:
        ImportError: wandb is not installed.
    """

    package = "wandb"

    def __init__(
        self,
        directory: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        project: str = "pyro-ssl",
        name: str | None = None,
        mode: Any = None,
    ) -> None:
        super().__init__(directory, config)
        self.project = project
        self.name = name
        self.mode = mode

    def _open(self) -> dict[int, float]:
        wandb = import_module("wandb")
        path = self.directory / "wandb.json"
        self._state: dict[str, Any] = {"id": uuid4().hex[:12], "losses": {}}
        if path.exists():
            self._state = files.read_sealed(path)
        self._run: Any = wandb.init(
            project=self.project,
            name=self.name,
            id=self._state["id"],
            resume="allow",
            config=self.config,
            dir=str(self.directory),
            mode=self.mode,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        return {int(epoch): loss for epoch, loss in self._state["losses"].items()}

    def _write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=epoch)
        self._state["losses"][str(epoch)] = metrics["loss"]
        files.write_sealed(self.directory / "wandb.json", self._state)

    def _close(self) -> None:
        self._run.finish()


class MLflowLogger(Logger):
    """Write to MLflow: to a database in the directory, or to a server.

    It needs the extra `mlflow`. A resumed run continues the same MLflow run, whose id is in
    the file `mlflow.json` in the directory.
    `mlflow ui --backend-store-uri sqlite:///DIRECTORY/mlflow.db` shows the database.

    Arguments:
        directory: Folder of the database; one for each run.
        config: Options, which are logged as the parameters of the run.
        tracking_uri: Address of the store; by default the environment variable
            MLFLOW_TRACKING_URI, or else `mlflow.db` in the directory.
        experiment: Experiment of the run; it is created if missing.
        name: Name of the run; by default MLflow chooses one.

    Raises:
        ImportError: MLflow is not installed.
    """

    package = "mlflow"

    def __init__(
        self,
        directory: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        tracking_uri: str | None = None,
        experiment: str = "pyro-ssl",
        name: str | None = None,
    ) -> None:
        super().__init__(directory, config)
        database = (self.directory / "mlflow.db").resolve()
        self.tracking_uri = (
            tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"
        )
        self.experiment = experiment
        self.name = name

    def _open(self) -> dict[int, float]:
        client_type = import_module("mlflow").MlflowClient
        self._client: Any = client_type(tracking_uri=self.tracking_uri)
        path = self.directory / "mlflow.json"
        if not path.exists():
            self._run_id = self._new_run()
            files.write_sealed(path, {"run_id": self._run_id})
            return {}
        self._run_id = files.read_sealed(path)["run_id"]
        self._client.update_run(self._run_id, status="RUNNING")
        logged = self._client.get_metric_history(self._run_id, "loss")
        return {metric.step: metric.value for metric in logged}

    def _new_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self.experiment)
        if experiment is None:
            experiment_id = self._client.create_experiment(self.experiment)
        else:
            experiment_id = experiment.experiment_id
        run_id: str = self._client.create_run(experiment_id, run_name=self.name).info.run_id
        for key, value in self.config.items():
            self._client.log_param(run_id, key, value)
        return run_id

    def _write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        metric_type = import_module("mlflow.entities").Metric
        now = int(1000 * time.time())
        values = [metric_type(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)

    def _close(self) -> None:
        self._client.set_terminated(self._run_id)


LOGGERS: dict[str, type[Logger]] = {
    "csv": CSVLogger,
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}
"""Loggers by name; each takes a directory and a config."""
