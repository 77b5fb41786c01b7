"""Did the unlabeled rows help? Methods against the labels alone, by cross-validation."""

from pyro_ssl.comparison.compare import compare
from pyro_ssl.comparison.intervals import Interval
from pyro_ssl.comparison.picture import draw_comparison
from pyro_ssl.comparison.result import Comparison, Competitor

__all__ = ["Comparison", "Competitor", "Interval", "compare", "draw_comparison"]
