"""The evidence draws its samples together, whatever `vectorize_particles` says."""

import torch

from pyro_ssl import TraceTopKEnum_ELBO, zoo
from pyro_ssl.utils.context import fixed_seed


def test_log_evidence_does_not_depend_on_vectorize_particles():
    m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2, seed=0).double()
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)
    evidence = []
    for together in (True, False):
        elbo = TraceTopKEnum_ELBO(num_particles=3, vectorize_particles=together)
        with fixed_seed(0), torch.no_grad():
            evidence.append(elbo.log_evidence(m2.model, m2.guide, x))
    assert evidence[0].shape == (5,)
    torch.testing.assert_close(evidence[0], evidence[1], rtol=0, atol=0)
