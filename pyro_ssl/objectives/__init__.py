"""The loss: the ELBO of a pair, terms that are added to it, and encoders that are trained beforehand."""
