"""Joblib's backends for runs: processes of this machine, Dask or Ray."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joblib import parallel_config
from joblib.parallel import ParallelBackendBase

from pyro_ssl.sweeps.lost_workers import MAX_ATTEMPTS
from pyro_ssl.utils.private_names import dask_backend

BACKENDS = ("loky", "dask", "ray")
"""Names of the backends; `loky` is joblib's own, with processes of this machine."""
CONNECT_SECONDS = 20
"""Time limit for the connection to a Dask scheduler."""
WORKERS_SECONDS = 120
"""Time limit for the first Dask worker to start."""


@contextmanager
def backend(name: str = "loky", scheduler: str | None = None, jobs: int = 1) -> Iterator[None]:
    """Use a joblib backend inside the block, for `sweep` and for any other use of joblib.

    >>> with backend("loky", jobs=2):
    ...     pass

    Arguments:
        name: One of `BACKENDS`.
        scheduler: For Dask, the address of the scheduler, such as `tcp://10.0.0.5:8786`, or its
            scheduler file. For Ray, the address of the cluster; None starts one on this machine.
        jobs: Number of parallel processes of `loky`; 1 runs in this process.

    Raises:
        ValueError: There is no such backend, or the scheduler of Dask is missing.
        ImportError: Its package is not installed.
        OSError: The scheduler does not answer.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend should be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "loky":
        if scheduler is not None:
            raise ValueError(f"scheduler is for the backends dask and ray only, got {scheduler!r}")
        with parallel_config(backend="loky", n_jobs=jobs):
            yield
        return
    connected = _dask(scheduler) if name == "dask" else _ray(scheduler)
    with connected:
        yield


@contextmanager
def _dask(scheduler: str | None) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "the backend dask needs dask and distributed: pip install 'pyro-ssl[dask]' "
            f"({type(error).__name__}: {error})"
        ) from error
    if scheduler is None:
        raise ValueError(
            "scheduler is needed for the backend dask: its address, such as tcp://10.0.0.5:8786, "
            "as `dask scheduler` prints it"
        )
    where: dict[str, Any] = {"address": scheduler}
    if Path(scheduler).is_file():
        where = {"scheduler_file": scheduler}
    try:
        client = Client(**where, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise OSError(
            f"the Dask scheduler {scheduler} does not answer: {error}; give the address that "
            "`dask scheduler` prints, or its scheduler file"
        ) from None
    with client, parallel_config(backend=_reporting_errors(client), n_jobs=-1):
        yield


def _reporting_errors(client: Any) -> Any:
    """Return a variant of joblib's Dask backend that also reports errors of Dask itself.

    Joblib's own backend waits forever for a call that Dask gives up: one that has killed several
    workers, or whose function a worker cannot import. It also runs everything in this process as
    long as the cluster has only one worker.
    """
    backend_class = dask_backend()

    class ReportingBackend(backend_class):  # type: ignore[misc, valid-type]
        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)

            def report(done: Future[Any]) -> None:
                if callback is not None and done.exception() is not None:
                    callback(done)

            future.add_done_callback(report)
            return future

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))  # with 1, joblib uses this process

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, Future):
                return out.result()  # raises
            return super().retrieve_result_callback(out)

    return ReportingBackend(client=client, wait_for_workers_timeout=WORKERS_SECONDS)


@contextmanager
def _ray(scheduler: str | None) -> Iterator[None]:
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "the backend ray needs ray: pip install 'pyro-ssl[ray]' "
            f"({type(error).__name__}: {error})"
        ) from error
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(address=scheduler, log_to_driver=False)
    try:
        with parallel_config(backend=_RayTasks(ray), n_jobs=-1):
            yield
    finally:
        if started_here:
            ray.shutdown()


class _RayTasks(ParallelBackendBase):
    """Joblib backend that makes calls as Ray tasks; Ray repeats a task whose worker is killed.

    The joblib backend that comes with Ray waits forever for such a task.

    Arguments:
        ray: The module `ray`, connected to a cluster.
    """

    supports_retrieve_callback = True

    def __init__(self, ray: Any) -> None:
        super().__init__()
        self.ray = ray
        self.references: list[Any] = []

    def effective_n_jobs(self, n_jobs: int) -> int:
        cores = int(self.ray.cluster_resources().get("CPU", 1))
        return max(2, cores)  # with 1, joblib uses this process

    def configure(self, n_jobs: int = 1, parallel: Any = None, **arguments: Any) -> int:
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        task = self.ray.remote(max_retries=MAX_ATTEMPTS)(_called)
        reference = task.remote(func)
        self.references.append(reference)
        future: Future[Any] = reference.future()
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        for reference in self.references:
            self.ray.cancel(reference, force=True)
        self.references = []


def _called(function: Any) -> Any:
    return function()
