"""Run many configurations in parallel with joblib: a directory for each run, a table for all."""

from pyro_ssl.sweeps.backends import BACKENDS, backend
from pyro_ssl.sweeps.runs import Outcome, run_name
from pyro_ssl.sweeps.search import Range, Search, search
from pyro_ssl.sweeps.sweep import sweep
from pyro_ssl.sweeps.tables import group_by, statistics, write_table

__all__ = [
    "BACKENDS",
    "Outcome",
    "Range",
    "Search",
    "backend",
    "group_by",
    "run_name",
    "search",
    "statistics",
    "sweep",
    "write_table",
]
