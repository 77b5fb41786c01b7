"""The data of a trained model and their labels, as `evaluate` and `predict` find them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyro_ssl import data
from pyro_ssl.cli.data_options import absolute_path
from pyro_ssl.cli.label_data import with_labels
from pyro_ssl.cli.labels_of_run import is_label_table
from pyro_ssl.cli.run_config import CONFIG, read_config
from pyro_ssl.data.readers import Content, Reading, dataset_of
from pyro_ssl.zoo.saved_model import SavedModel


class DataOfRun(NamedTuple):
    """Where the data that a model was trained on are.

    Arguments:
        name: Name of a data set, or absolute path.
        root: Folder of the image data sets.
        label_file: CSV file of labels, which win over those in the data; None without one.
    """

    name: str
    root: str | None = None
    label_file: str | None = None

    def is_at(self, name: str) -> bool:
        """Return True if a name or path, which may be relative, is that of these data.

        >>> DataOfRun("moons").is_at("moons"), DataOfRun("moons").is_at("./moons")
        (True, False)
        """
        return absolute_path(name) == self.name

    def is_trained_on(self, name: str) -> bool:
        """Return True if a path is that of these data, or of a part of them other than `test`.

        >>> pets = DataOfRun("/pets")
        >>> [pets.is_trained_on(f"/pets/{part}") for part in ("", "train", "test", "test.csv")]
        [True, True, False, False]
        """
        if self.is_at(name):
            return True
        path = Path(name).resolve()
        if not path.is_relative_to(self.name):
            return False
        part = path.relative_to(self.name).parts[0]
        return Path(part).stem != "test"

    def is_table_inside(self, name: str) -> bool:
        """Return True if a path is that of a table for training in the folder of these data."""
        path = Path(name).resolve()
        return path.is_file() and path.parent == Path(self.name) and path.stem != "test"

    def labeled(self, content: Content, name: str, way_out: str = "put it back") -> Content:
        """Add the labels of the file of labels to these data, or to images in a folder of them.

        Arguments:
            content: What was read.
            name: Path that it was read from; content of other data stays as it is.
            way_out: What to do if the file of labels is missing, for the message.

        Raises:
            FileNotFoundError: The file of labels is missing.
            ValueError: The file does not fit the data.
        """
        if self.label_file is None:
            return content
        folder = Path(name).resolve()
        is_inside = bool(content.train.names) and folder.is_relative_to(self.name)
        if not self.is_at(name) and not is_inside:
            return content
        path = Path(self.label_file)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file; it has the labels of {self.name}: {way_out}"
            )
        if self.is_at(name):
            return with_labels(content, path)
        inside = folder.relative_to(self.name)
        names = tuple((inside / name).as_posix() for name in content.train.names)
        return with_labels(content, path, names)


def data_of_run(directory: Path, saved: SavedModel) -> DataOfRun | None:
    """Find the data of a directory of `pyro-ssl train` or `pyro-ssl label`.

    Arguments:
        directory: The directory.
        saved: Its model.

    Returns:
        The data; None if the model does not say which they are.

    Raises:
        ValueError: The configuration of the run is damaged.
    """
    if (directory / CONFIG).exists():
        config = read_config(directory)
        label_file = config["label_file"]
        labels = label_file if is_label_table(label_file) else None
        return DataOfRun(config["data"], config["data_root"], labels)
    name = saved.extra.get("data")
    if not isinstance(name, str):
        return None
    return DataOfRun(name, label_file=str(directory / "labels.csv"))


def read_data(
    of_run: DataOfRun,
    name: str,
    reading: Reading,
    classes: Sequence[str] | None = None,
    *,
    way_out: str = "put it back",
) -> tuple[data.Dataset, Reading]:
    """Load or read data; those of a run with all of its labels.

    Arguments:
        of_run: The data of the run, and the folder of the image data sets.
        name: Name of a data set, or path.
        reading: How to read files.
        classes: Names of a model's classes; None uses those of the labels.
        way_out: See `DataOfRun.labeled`.

    Raises:
        FileNotFoundError: There is no such file, or the file of labels is missing.
        ValueError: There is no such data set, or the labels do not fit.

    >>> read_data(DataOfRun("moons"), "moons", Reading())[0].x_shape
    (2,)
    """
    if name in data.DATASETS:
        dataset, reading = data.load_or_read(name, of_run.root, reading)
        return dataset if classes is None else data.with_class_order(dataset, classes), reading
    content = of_run.labeled(data.read(name, reading), name, way_out)
    return dataset_of(content, Path(name).stem, classes), content.reading
