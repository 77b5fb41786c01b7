"""Small pools, methods and loops that the tests of active learning share."""

import torch

from pyro_ssl import ActiveLearner, data, fit, zoo

# --- draws ----------------------------------------------------------------------------------------


S, N, K = 5, 7, 3


def draws(seed=0, size=(S, N, K)):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-1)


# --- methods --------------------------------------------------------------------------------------


SMALL = {"hidden": (8,), "z_dim": 2}


X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))


LABELS = (X[:, 0] > 0).long().where(torch.arange(30) < 10, -1)


def trained(name, seed=0, **options):
    objective = zoo.build(
        name,
        (4,),
        2,
        seed=seed,
        **{k: v for k, v in (SMALL | options).items() if k in zoo.options_of(name)},
    )
    fit(objective, X, LABELS, epochs=5, batch_size=10, progress=False)
    return objective


# --- loops ----------------------------------------------------------------------------------------


MOONS = data.two_moons(200, 200, noise=0.1, seed=0)


POOL, Y = MOONS.x, MOONS.y
FEW = POOL[:60]
"""A pool of two batches an epoch, where only the queries matter."""


QUICK = {"epochs": 3, "batch_size": 50, "lr": 1e-2}


def m2(seed, **options):
    return zoo.build("m2", (2,), 2, seed=seed, hidden=(16,), z_dim=2, **options)


def learner(**arguments):
    return ActiveLearner(**({"build": m2, "training": QUICK} | arguments))


def rounds(made, n, pool=POOL, each=4):
    """The rows asked for in n rounds, all of them answered."""
    asked = []
    for _ in range(n):
        rows = made.query(pool, each)
        asked.append(rows.tolist())
        made.teach(rows, Y[rows])
    return asked
