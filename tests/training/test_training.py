"""`fit`: what it promises about data, random states, modes and failures."""

import math
import time

import pyro
import pytest
import torch
from programs.training_runs import X, Y, run, same, small, weights
from torch import nn

from pyro_ssl import (
    Batch,
    EarlyStopping,
    fit,
    predict_proba,
    zoo,
)
from pyro_ssl.training import DivergedError, DivergedWarning
from pyro_ssl.training.callbacks import ProgressLines
from pyro_ssl.utils.context import eval_mode


def test_training_lowers_the_loss_and_is_a_function_of_its_seed():
    (a, h), (b, _), (c, _) = run(epochs=20), run(epochs=20), run(epochs=20, seed=1)
    assert h["loss"][-1] < h["loss"][0] - 0.3
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


def test_nobody_elses_state_is_touched():
    torch.manual_seed(5)
    pyro.param("mine", torch.tensor(1.0))
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(early_stopping=EarlyStopping(lambda o: torch.rand(()).item()))
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_two_models_in_one_process_share_nothing():
    first = small()
    before = weights(first)
    second, _ = run(small())
    assert same(weights(first), before)
    assert not {p.data_ptr() for p in first.parameters()} & {
        p.data_ptr() for p in second.parameters()
    }


def test_fresh_binarisation_draws_anew_and_keeps_labels():
    seen = []

    def binarise(x):
        seen.append(torch.bernoulli(x))
        return seen[-1]

    x = X.sigmoid()
    fit(small(likelihood="bernoulli"), x, Y, epochs=2, batch_size=70, transform=binarise)
    assert all(set(b.unique().tolist()) <= {0.0, 1.0} for b in seen)
    assert not torch.equal(seen[-1], seen[-3])


def test_evaluation_moves_nothing():
    o, _ = run(small(batch_norm=True, noise=0.3))
    before = weights(o)
    first = predict_proba(o, X)
    o.train()
    assert torch.equal(predict_proba(o, X), first)
    assert o.training and same(weights(o), before)
    assert torch.allclose(first.sum(-1), torch.ones(90))
    assert torch.allclose(predict_proba(o, X, chunk=7), first, atol=1e-6)


def test_the_mode_is_as_it_was_after_an_error():
    def fail(epoch):
        raise RuntimeError("mine")

    o = small().eval()
    with pytest.raises(RuntimeError, match="mine"):
        run(o, callbacks=[fail])
    assert not o.training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_needs_gradients_whatever_the_caller_has_turned_off(mode):
    expected, _ = run()
    with mode():
        o, _ = run(small(), epochs=3)
        assert torch.is_grad_enabled() is False
    assert same(weights(o), weights(expected))


def test_a_callback_may_train_another_objective_and_not_this_one():
    losses, refused = [], []

    def train(epoch):
        losses.append(run(small(seed=9), epochs=1)[1]["loss"])
        with pytest.raises(
            ValueError, match="already being trained by an enclosing call of fit"
        ) as error:
            run(epoch.objective)
        refused.append(error)

    (a, h), (b, g) = run(small(noise=0.2)), run(small(noise=0.2), callbacks=(train,))
    assert same(weights(a), weights(b)) and h["loss"] == g["loss"] and len(refused) == 3
    assert losses == [run(small(seed=9), epochs=1)[1]["loss"]] * 3
    run(b)  # afterwards it may be trained again


def test_a_finite_loss_beyond_all_measure_is_told_once():
    o = zoo.build("classifier", 4, 3, hidden=(20,), noise=0.0, dropout=0.0)
    with pytest.warns(
        DivergedWarning,
        match=r"epoch 1: the mean loss is .*training has diverged; try a smaller lr",
    ) as told:
        _, history = run(o, lr=1e6, epochs=5)
    assert len(told) == 1 and math.isfinite(history["loss"][0])


@pytest.mark.parametrize("arguments", [{}, {"warmup": 2}, {"lr": 0.05}, {"ema": 0.9}])
@pytest.mark.parametrize("options", [{"sigma": None}, {"sigma": 0.01}, {"alpha": 100.0}])
def test_ordinary_training_is_not_told_as_diverged(arguments, options):
    run(small(**options), epochs=5, **arguments)  # a warning is an error


class Blowup(nn.Module):
    """A decoder that is NaN once its optimiser has made n steps."""

    def __init__(self, n: int):
        super().__init__()
        self.left, self.bias = n, nn.Parameter(torch.zeros(4))

    def forward(self, y, z):
        return self.bias + z.sum(-1, keepdim=True) * (math.nan if self.left == 0 else 1.0)

    def optimizer(self, parameters, lr: float) -> torch.optim.Adam:
        adam = torch.optim.Adam(parameters, lr)
        adam.register_step_post_hook(self.count)
        return adam

    def count(self, *_) -> None:
        self.left -= 1


def test_divergence_names_site_and_step_and_keeps_the_last_checkpoint(tmp_path):
    o = small()
    o.model.p_x.network = Blowup(9)
    with pytest.raises(
        DivergedError,
        match=r"step 9: .*site 'x'.* smaller lr .*use another directory for the new run",
    ):
        run(o, directory=tmp_path, optimizer=o.model.p_x.network.optimizer)
    assert all(v.isfinite().all() for v in weights(o).values())
    from pyro_ssl.training import checkpoints

    assert checkpoints.load(tmp_path / "checkpoint")[1]["position"]["step"] == 7


def test_a_datum_far_out_is_a_datum():
    x = X.clone()
    x[57] = 250.0
    fit(small(sigma=0.7), x, Y, epochs=1, batch_size=10)


def test_a_callback_that_evaluates_changes_nothing():
    modes = []

    def look(epoch):
        modes.append((epoch.objective.training, torch.is_grad_enabled()))
        epoch.objective.bound(X)

    (a, _), (b, _) = run(small(noise=0.2)), run(small(noise=0.2), callbacks=(look,))
    assert same(weights(a), weights(b)) and modes == [(False, False)] * 3


def test_a_classifier_passes_over_what_has_no_label():
    seen = []
    o = zoo.build("classifier", 4, 3, hidden=(6,))
    fit(o, X, Y, epochs=2, batch_size=10, callbacks=(lambda e: seen.append(e.step),))
    alone = zoo.build("classifier", 4, 3, hidden=(6,))
    fit(alone, X[Y >= 0], Y[Y >= 0], epochs=2, batch_size=10)
    assert seen == [2, 4] and same(weights(o), weights(alone))


def test_progress_is_for_terminals(capsys):
    run()
    assert capsys.readouterr() == ("", "")
    run(progress=True)
    assert "step" in capsys.readouterr().err


def test_progress_as_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr("pyro_ssl.training.callbacks.SECONDS_BETWEEN_LINES", 0.0)
    lines = []
    fit(small(), X, Y, epochs=2, batch_size=10, progress=lines.append)
    assert capsys.readouterr() == ("", "")
    assert lines[0].startswith("epoch 0 of 2, ") and "left" in lines[0]
    assert any(line.startswith("epoch 1 of 2, loss ") for line in lines)


def test_the_time_so_far_is_in_minutes_after_a_while(monkeypatch):
    lines = []
    progress = ProgressLines(lines.append, every=0.0)
    progress.started -= 600
    monkeypatch.setattr("pyro_ssl.training.callbacks.ProgressLines", lambda say, every: progress)
    fit(small(), X, Y, epochs=2, batch_size=10, progress=lines.append)
    assert ", 10 min, about " in lines[0]


def test_lines_about_progress_are_seconds_apart():
    lines = []
    fit(small(), X, Y, epochs=2, batch_size=10, progress=lines.append)
    assert not lines


def test_seconds_are_those_of_the_whole_fit():
    pause = 0.05
    history = fit(small(), X, Y, epochs=3, callbacks=(lambda epoch: time.sleep(pause),))
    first, _, last = history["seconds"]
    assert last - first >= 2 * pause


@pytest.mark.filterwarnings("ignore::pyro_ssl.data.missing_labels.LabelWarning")
def test_only_labeled_only_unlabeled_one_row():
    fit(small(), X[:20], Y[:20], epochs=1)
    fit(small(), X, None, epochs=1)
    fit(small(), X[:1], Y[:1], epochs=1)
    with pytest.raises(ValueError, match="needs labels"):
        fit(zoo.build("classifier", 4, 3), X, None, epochs=1)


def test_evaluating_restores_every_mode():
    o = small(batch_norm=True)
    o.guide.q_y.eval()
    with pytest.raises(RuntimeError), eval_mode(o):
        assert not o.training
        raise RuntimeError
    assert o.training and not o.guide.q_y.training and torch.is_grad_enabled()
    assert o(Batch(x_unlabeled=X[:2])).isfinite()


def test_bfloat16_rounds_the_products_and_nothing_else():
    """Loss and gradient stay near those of float32; weights and densities stay float32."""
    o = zoo.build("m2", 20, 3, hidden=(64,), noise=0.0, dropout=0.0, z_dim=2)
    x, y = torch.rand(60, 20), torch.eye(3).repeat(20, 1)
    losses, gradients = [], []
    for on in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = o(Batch(x, y, x))
            assert (
                o.classify(x).logits.dtype
                == o.model.p_x(y, torch.zeros(60, 2)).mean.dtype
                == torch.float32
            )
        losses.append(loss.item())
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(o.parameters()))])
        )
    assert abs(losses[1] / losses[0] - 1) < 0.01 and losses[0] != losses[1]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    _, half = run(small(), precision="bfloat16")
    assert half["loss"][-1] < half["loss"][0]
    with pytest.raises(
        ValueError, match="precision should be one of float32, bfloat16, got 'float16'"
    ):
        run(small(), precision="float16")
