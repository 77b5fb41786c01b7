"""The table of `pyro-ssl evaluate` by class."""

import torch

from pyro_ssl import data
from pyro_ssl.evaluation import reports


def test_rows_and_mistakes_of_each_class(monkeypatch):
    predicted = torch.tensor([0, 0, 1, 2, 1, 1])
    monkeypatch.setattr(reports, "predict_proba", lambda objective, x: torch.eye(4)[predicted])
    x = torch.zeros(6, 2)
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    pets = data.Dataset("pets", x, y, x, y, ("cat", "dog", "eel", "fox"))
    lines = reports.class_report(None, pets).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells == [
        ["cat", "4", "50.0", "dog"],
        ["dog", "2", "100.0", ""],
        ["eel", "0", "", ""],
        ["fox", "0", "", ""],
    ]
