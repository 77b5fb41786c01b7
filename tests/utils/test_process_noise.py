"""Parts of a batch draw the noise of the whole batch, without any other process."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Gamma, Normal
from torch.nn import functional

from pyro_ssl.utils import process_noise, process_rows
from pyro_ssl.utils.process_noise import drawing_what_all_share, sharded
from pyro_ssl.utils.process_rows import Rows

BATCH = torch.randn(7, 4, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(7, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def in_parts(function, batch: torch.Tensor, processes: int) -> torch.Tensor:
    """The rows of each process, drawn from the same random state, one after the other."""
    parts = []
    for rank in range(processes):
        rows = Rows.of_process(rank, processes, len(batch))
        torch.manual_seed(5)
        with sharded(rows):
            parts.append(function(rows.take(batch)))
        state = torch.get_rng_state()
    torch.manual_seed(5)
    function(batch)
    assert torch.equal(torch.get_rng_state(), state)
    return torch.cat(parts)


def whole(function, batch: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(5)
    return function(batch)


DRAWS = {
    "randn_like": torch.randn_like,
    "rand_like": torch.rand_like,
    "normal of tensors": lambda x: torch.normal(x, x.exp()),
    "normal of a number": lambda x: torch.normal(x, 2.0),
    "normal of a size": lambda x: torch.normal(0.0, 1.0, (len(x), 3)),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "method": lambda x: x.sigmoid().bernoulli(),
    "in place": lambda x: torch.empty_like(x).normal_(1.0, 2.0),
    "in place, of tensors": lambda x: torch.empty_like(x).bernoulli_(x.sigmoid()),
    "exponential": lambda x: torch.empty(len(x), 2).exponential_(),
    "rand": lambda x: torch.rand(len(x), 3, dtype=torch.float64),
    "randn of a tuple": lambda x: torch.randn((len(x), 3)),
    "randint": lambda x: torch.randint(9, (2, len(x), 1)).movedim(1, 0),
    "randint of a size": lambda x: torch.randint(2, 9, size=(len(x),)),
    "dropout": lambda x: functional.dropout(x, 0.4),
    "dropout, in place": lambda x: functional.dropout(x.clone(), 0.4, inplace=True),
    "dropout of channels": nn.Dropout1d(0.4),
    "merged rows": lambda x: (
        nn.Dropout(0.4)(x.expand(3, *x.shape).reshape(-1, 24)).view(3, -1, 24).movedim(0, 1)
    ),
    "normal": lambda x: Normal(x, 1.0).rsample(),
    "samples": lambda x: Normal(x, 1.0).rsample((2, 1)).movedim(2, 0),
    "classes": lambda x: Categorical(logits=x[:, 0]).sample(),
    "classes of samples": lambda x: Categorical(logits=x[:, 0].expand(5, -1, -1)).sample().T,
    "multinomial": lambda x: torch.multinomial(x[:, 0].exp(), 3),
}


@pytest.mark.parametrize("processes", [2, 7])
@pytest.mark.parametrize("name", DRAWS)
def test_parts_have_the_noise_of_the_whole(name, processes):
    function = DRAWS[name]
    assert torch.equal(in_parts(function, BATCH, processes), whole(function, BATCH))


def test_noise_follows_the_layout_of_memory():
    images = IMAGES.to(memory_format=torch.channels_last)
    for function in (torch.randn_like, nn.Dropout(0.5)):
        assert torch.equal(in_parts(function, images, 2), whole(function, images))


def test_rows_in_two_pieces():
    labeled = Rows.of_process(1, 2, 4)
    both = labeled.before(Rows.of_process(1, 2, 3))
    assert both.take(torch.arange(7)).tolist() == [2, 3, 5, 6]
    torch.manual_seed(5)
    with sharded(both):
        part = torch.randn_like(BATCH[:4])
    assert torch.equal(part, both.take(whole(torch.randn_like, BATCH)))


def test_what_all_share_is_drawn_once():
    rows = Rows.of_process(1, 2, 8)
    torch.manual_seed(5)
    with sharded(rows), drawing_what_all_share():
        shared = torch.randn(4)  # as many as rows
    torch.manual_seed(5)
    assert torch.equal(shared, torch.randn(4))


def test_without_training_and_without_rows_nothing_changes():
    rows = Rows.of_process(0, 2, 8)
    with sharded(rows):
        assert torch.equal(functional.dropout(BATCH[:4], 0.5, training=False), BATCH[:4])
        assert torch.randn(3).shape == (3,)
    with sharded(None):
        assert process_rows.current_rows.get() is None
    assert torch.equal(process_rows.all_sum(BATCH), BATCH)
    assert torch.equal(process_rows.batch_mean(BATCH), BATCH.sum(0) / 7)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: Gamma(x.exp(), 1.0).rsample(),
        lambda x: torch.randperm(len(x)),
        functional.gumbel_softmax,
        lambda x: functional.alpha_dropout(x, 0.5, True),
        lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        nn.LSTM(6, 4, 2, dropout=0.5, batch_first=True),
        nn.RReLU(),
    ],
)
def test_what_cannot_be_divided_is_refused(function):
    with sharded(Rows.of_process(0, 2, 14)), pytest.raises(ValueError, match="in one process"):
        function(BATCH)


def test_the_same_layers_without_noise_are_not_refused():
    lstm = nn.LSTM(6, 4, 2, batch_first=True)
    with sharded(Rows.of_process(0, 2, 14)):
        lstm(BATCH)
        nn.RReLU().eval()(BATCH)
        functional.scaled_dot_product_attention(BATCH, BATCH, BATCH)


def test_where_samples_are_as_many_as_rows_noise_is_in_another_order():
    """As the documentation says: as many numbers, from the same random state."""
    function = lambda x: torch.randn(2, len(x), 3).movedim(1, 0)  # noqa: E731
    draws = in_parts(function, BATCH[:4], 2)
    assert draws.flatten().sort().values.equal(whole(function, BATCH[:4]).flatten().sort().values)


# --- sums over processes, of which one has all rows here ---------------------------------------


def test_batch_norm_is_torchs_own(monkeypatch):
    """One process that has all rows."""
    monkeypatch.setattr(process_noise, "all_sum", lambda values: values)
    one, other = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    x = IMAGES.double().requires_grad_()
    expected = one(x)
    (gradient,) = torch.autograd.grad(expected.square().sum() + expected[0].sum(), x)
    with sharded(Rows(((0, 7),), 7)):
        h = other(x)
    (found,) = torch.autograd.grad(h.square().sum() + h[0].sum(), x)
    torch.testing.assert_close(h, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_batch_norm_in_eval_mode_needs_no_other_process():
    norm = nn.BatchNorm2d(3).eval()
    with sharded(Rows.of_process(0, 2, 14)):
        assert torch.equal(norm(IMAGES), norm(IMAGES))


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("total", [5, 6, 17])
def test_every_row_belongs_to_one_process(processes, total):
    rows = [Rows.of_process(rank, processes, total) for rank in range(processes)]
    assert torch.cat([r.take(torch.arange(total)) for r in rows]).tolist() == list(range(total))
    assert sum(r.share for r in rows) == pytest.approx(1)
    assert max(r.size for r in rows) - min(r.size for r in rows) <= 1
