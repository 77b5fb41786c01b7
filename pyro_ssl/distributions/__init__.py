"""Modules that map tensors to a distribution: conditionals, priors, flows and mixtures."""
