"""Data sets, classes of labels, draws of labels, and the range of training data."""

from pyro_ssl.data.classes import class_indices_of, encode, names_of
from pyro_ssl.data.datasets import (
    DATASETS,
    Dataset,
    arrays_of,
    circles,
    digits,
    from_arrays,
    from_npz,
    from_torch,
    load,
    two_moons,
    with_class_order,
)
from pyro_ssl.data.images import data_root
from pyro_ssl.data.label_draws import LabelDraw, draw_labels
from pyro_ssl.data.missing_labels import LabelWarning
from pyro_ssl.data.readers import Content, Part, Reading, load_or_read, read

__all__ = [
    "Content",
    "DATASETS",
    "Dataset",
    "LabelDraw",
    "LabelWarning",
    "Part",
    "Reading",
    "arrays_of",
    "circles",
    "class_indices_of",
    "data_root",
    "digits",
    "draw_labels",
    "encode",
    "from_arrays",
    "from_npz",
    "from_torch",
    "load",
    "load_or_read",
    "names_of",
    "read",
    "with_class_order",
    "two_moons",
]
