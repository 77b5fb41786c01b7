"""Bounds and samplers over a Pyro model and guide: the ELBO, enumeration, Gibbs sampling, checks of a pair."""
