"""Checks of a model/guide pair: model and guide match, the bound is right, the data fit."""
