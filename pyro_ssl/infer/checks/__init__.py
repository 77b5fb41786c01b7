"""Checks of a model/guide pair: it matches, it is in the scope of the bound, the data fit."""
