"""A compiled step computes what the eager step does, or training continues without it.

Where a test is not about Inductor, the captured graph is run as it is: then results are equal to
the bit, for whole runs.
"""

import json
import random
import re
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.training_runs import X, run, same, small, weights
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import Batch, LabelLogProb, Objective, Term, TraceTopKEnum_ELBO, fit, zoo
from pyro_ssl.infer.decisions import decide
from pyro_ssl.training import DivergedError, NotCompiledWarning, StaleStepError, compiled_step
from pyro_ssl.training.captured_step import LossStep
from pyro_ssl.training.compiled_step import CompiledStep, is_compiled_state
from pyro_ssl.zoo.registry import METHODS

pytestmark = pytest.mark.slow


@pytest.fixture
def graphs(monkeypatch, float64):
    """Run captured graphs as they are; the graphs that were captured."""
    captured = []

    def as_it_is(graph, inputs):
        captured.append(graph)
        return graph

    monkeypatch.setattr(compiled_step, "compiled_graph", as_it_is)
    return captured


def compiled_and_not(build, **arguments):
    """The weights and the histories of the same run with and without compiled steps."""
    results = []
    for compile in (True, False):
        objective, history = run(build(), compile=compile, **arguments)
        results.append((weights(objective), {k: v for k, v in history.items() if k != "seconds"}))
    return results


def check_equal_runs(build, **arguments):
    (weights_a, history_a), (weights_b, history_b) = compiled_and_not(build, **arguments)
    assert history_a == history_b
    assert same(weights_a, weights_b)


# --- equal runs -----------------------------------------------------------------------------------


SIZES = {
    "hidden": (6,),
    "z_dim": 2,
    "a_dim": 2,
    "z_dims": (3, 2),
    "z_y_dim": 2,
    "z1_dim": 3,
    "m1_hidden": (6,),
    "m1_epochs": 1,
    "likelihood": "gaussian",
    "sigma": 1.0,
}


def built(method: str, **options) -> Objective:
    taken = zoo.method(method).options
    return zoo.build(
        method, 4, 3, seed=0, **{k: v for k, v in (SIZES | options).items() if k in taken}
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_captured_and_equal_to_the_bit(graphs, method):
    check_equal_runs(lambda: built(method), epochs=2, warmup=1, labeled_batch_size=5)
    assert graphs


OPTIONS = {
    "regularised": {"noise": 0.1, "dropout": 0.2, "batch_norm": True, "l2": 0.1, "entropy": 0.1},
    "all classes": {"top_k": None},
    "likeliest class": {"top_k": 1},
    "random weights": {"bayesian": ("p_x",), "local_reparameterisation": True},
    "flow": {"flow": 1},
    "vamp": {"prior": "vamp", "pseudo_inputs": 3},
    "importance weighted": {"num_particles": 2, "importance_weighted": True},
    "free bits": {"free_bits": 0.1},
    "labels weigh as data": {"labeled_weight": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_captured(graphs, name):
    check_equal_runs(lambda: small(**OPTIONS[name]), epochs=2, warmup=1)
    assert graphs


TRAININGS = {
    "warm-up, average, clipped": {"warmup": 2, "ema": 0.9, "clip_norm": 0.5},
    "another optimiser": {"optimizer": torch.optim.SGD, "lr": 1e-3, "schedule": "cosine"},
    "noisy data": {"transform": lambda x: x + 0.1 * torch.randn_like(x)},
    "half precision": {"precision": "bfloat16"},
    "one pass": {"batch_size": 70, "labeled_batch_size": 20},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_settings_of_training_reach_the_graph(graphs, name):
    check_equal_runs(small, **TRAININGS[name])
    assert graphs


@pytest.mark.parametrize("y", [None, torch.arange(90) % 3], ids=["unlabeled", "labeled"])
def test_one_kind_of_data_alone_is_captured(graphs, y):
    results = []
    for compile in (True, False):
        objective = small()
        fit(objective, X, y, epochs=2, batch_size=10, compile=compile)
        results.append(weights(objective))
    assert same(*results)
    assert graphs


def test_the_first_steps_of_a_run_need_one_graph_for_each_kind_of_step(graphs):
    run(small(top_k=None), compile=True, warmup=1)
    assert len(graphs) == 2  # with the weight of the KL as an input, and without


def test_a_new_number_of_classes_gets_a_graph_of_its_own(graphs):
    def build():
        return small(top_k="auto", labeled_weight=0.0, alpha=100.0)

    check_equal_runs(build, epochs=60, lr=0.05)
    assert len(graphs) > 1


def test_the_training_of_a_pretrained_encoder_is_captured_too(graphs):
    compiled, _ = run(built("m1_m2"), compile=True, epochs=1)
    assert len(graphs) == 2  # of the encoder's training and of the run itself
    assert same(weights(compiled), weights(run(built("m1_m2"), epochs=1)[0]))


def test_a_run_that_needs_too_many_graphs_says_so_and_goes_on(graphs, monkeypatch):
    monkeypatch.setattr(compiled_step, "MOST_GRAPHS", 1)
    with pytest.warns(
        NotCompiledWarning, match="more than 1 graphs were needed, since batch shapes"
    ):
        objective, _ = run(small(), compile=True, warmup=1)  # one more after the warm-up
    assert len(graphs) == 1
    assert same(weights(objective), weights(run(small(), warmup=1)[0]))


# --- programs of one's own ------------------------------------------------------------------------


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2 + 3, 4)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            lead = torch.broadcast_shapes(y.shape[:-1], z.shape[:-1])
            both = torch.cat([y.expand(*lead, 3), z.expand(*lead, 2)], -1)
            pyro.sample("x", dist.Normal(self.decoder(both), 0.5).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.label = nn.Linear(4, 3)
        self.latent = nn.Linear(4, 2)

    def classify(self, x):
        return dist.OneHotCategorical(logits=self.label(self.seen(x)))

    def seen(self, x):
        return x

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(self.latent(x), 0.3).to_event(1))


def own(guide=Guide, terms=(), **arguments) -> Objective:
    torch.manual_seed(0)
    return Objective(Model(), guide(), [LabelLogProb(1.0), *terms], **arguments)


def test_a_pair_of_ones_own_is_captured(graphs):
    check_equal_runs(own, warmup=1)
    check_equal_runs(lambda: own(elbo=TraceTopKEnum_ELBO(top_k=None)))
    assert graphs


def test_an_elbo_of_pyros_that_branches_is_refused(graphs):
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pytest.raises(NotCompiledWarning, match="branches on the value .* in stock_elbo.py"):
        run(own(elbo=elbo), compile=True)
    assert not graphs


class Counting(Guide):
    """Noise that fades with the number of calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def seen(self, x):
        self.calls += 1
        return x / self.calls


class Listing(Guide):
    """A branch on numbers that are taken out of a tensor."""

    def seen(self, x):
        return -x if x.mean().tolist() > 0.05 else x


class Branching(Guide):
    """A branch on a tensor."""

    def seen(self, x):
        return -x if x.mean() > 0.05 else x


class OfNumpy(Guide):
    """Noise of NumPy."""

    def seen(self, x):
        return x + torch.as_tensor(np.random.randn(*x.shape))


class OfPython(Guide):
    """Noise of Python."""

    def seen(self, x):
        return x + random.random()


class Masking(Guide):
    """A mean over rows whose number depends on their values."""

    def seen(self, x):
        return x - x[x[:, 0] > 0].mean()


REFUSED = {
    Counting: r"a step changes attributes, .* Objective\.guide\.calls was",
    Listing: r"reads the numbers of a tensor with \.tolist\(\), in test_compiled_steps.py",
    Branching: "branches on the value of a tensor, .* in test_compiled_steps.py, line",
    OfNumpy: "draws numbers from numpy.random",
    OfPython: "draws numbers from random",
    Masking: "shape of the result of aten.index.Tensor depends on values",
}


@pytest.mark.parametrize("guide", REFUSED)
def test_what_a_graph_cannot_hold_is_refused_and_training_goes_on(graphs, guide):
    results = []
    for compile in (True, False):
        random.seed(0)
        np.random.seed(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            objective, _ = run(own(guide), compile=compile)
        results.append(weights(objective))
        messages = [str(w.message) for w in caught if w.category is NotCompiledWarning]
        assert len(messages) == compile  # once in a run
        assert all(re.search(REFUSED[guide], message) for message in messages)
    assert not graphs
    assert same(*results)


class Deciding(Guide):
    """A branch that a graph can hold."""

    def seen(self, x):
        return -x if decide(x.mean() > 0.05) else x


def test_a_branch_by_decide_is_captured_with_both_outcomes(graphs):
    check_equal_runs(lambda: own(Deciding), epochs=3)
    assert len(graphs) > 1


# --- what changes between steps -------------------------------------------------------------------


class Fading(Term):
    """A term whose weight a callback changes."""

    needs = "unlabeled"

    def formula(self, context):
        return context.q_unlabeled.mean.square().sum()


def test_a_weight_that_a_callback_changes_reaches_the_graph(graphs):
    results = []
    for compile in (True, False):
        objective = own(terms=[Fading(1.0)])

        def fade(epoch, objective=objective):
            objective.terms[1].weight = 1.0 / epoch.epoch

        run(objective, compile=compile, epochs=3, callbacks=[fade])
        results.append(weights(objective))
    assert same(*results)
    assert len(graphs) > 1


def check_step(compiled: CompiledStep, batch: Batch, kl_weight: float = 1.0) -> None:
    """The compiled step gives the numbers and gradients of the eager step."""
    step = compiled.step
    state = torch.get_rng_state()
    expected = step(batch, kl_weight)
    torch.set_rng_state(state)
    names, numbers = compiled(batch, kl_weight)
    assert names == expected.names
    assert numbers == expected.values.tolist()
    for parameter, gradient in zip(step.parameters, expected.gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)


def test_sizes_weights_and_shapes_that_change_reach_the_graph(graphs):
    objective = small(labeled_weight=None).double().train()
    compiled = CompiledStep(LossStep(objective, [list(objective.parameters())]))
    x = X.double()
    y = torch.eye(3)[torch.arange(6) % 3]
    batch = Batch(x[:6], y, x[6:16])
    check_step(compiled, batch)
    objective.sizes = (20, 70)
    check_step(compiled, batch)
    objective.labeled_weight = 2.0
    check_step(compiled, batch)
    next(objective.parameters()).requires_grad_(False)
    check_step(compiled, batch)
    for weight in (0.1, 0.2, 1.0):
        check_step(compiled, batch, weight)
    check_step(compiled, Batch(x[:5], y[:5], x[6:16]))
    check_step(compiled, Batch(x_unlabeled=x[6:16]))
    check_step(compiled, Batch(x[:6], y))
    objective.eval()
    check_step(compiled, batch)


def test_a_parameter_outside_of_modules_is_read_anew(graphs):
    """`L2` holds parameters in a list, and a program may hold any tensor."""

    class Shifting(Guide):
        def __init__(self):
            super().__init__()
            self.shift = [torch.zeros(4)]

        def seen(self, x):
            return x + self.shift[0]

    objective = own(Shifting)
    compiled = CompiledStep(LossStep(objective, [list(objective.parameters())]))
    batch = Batch(X[:6].double(), torch.eye(3)[torch.arange(6) % 3])
    for _ in range(3):
        check_step(compiled, batch)
        objective.guide.shift[0] += 1  # in place
    assert len(graphs) == 1
    objective.guide.shift[0] = torch.ones(4)
    check_step(compiled, batch)


SCALE = np.ones(1)


class OfArray(Guide):
    """A factor in an array, which can change in place without being seen."""

    def seen(self, x):
        return float(SCALE[0]) * x


def test_a_graph_that_has_gone_out_of_date_ends_the_run(graphs):
    SCALE[0] = 1.0

    def change(epoch):
        SCALE[0] = 2.0

    with pytest.raises(StaleStepError, match="after .* compiled steps .* compile=False"):
        run(own(OfArray), compile=True, epochs=3, callbacks=[change])


def test_a_divergence_is_told_as_without_a_graph(graphs):
    messages = []
    for compile in (True, False):
        objective = small(top_k=None)
        before = weights(objective)
        with pytest.raises(DivergedError) as error:
            run(objective, compile=compile, lr=1e200, optimizer=torch.optim.SGD)
        messages.append(str(error.value))
        assert not same(weights(objective), before)  # the steps before were made
        assert all(value.isfinite().all() for value in weights(objective).values())
    assert messages[0] == messages[1]


# --- compiled by Inductor -------------------------------------------------------------------------


def test_the_second_run_of_a_process_compiles_nothing(monkeypatch):
    compiled = []

    def counted(graph, inputs, save_memory):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(compiled_step, "compiled_by_inductor", counted)
    monkeypatch.setattr(compiled_step, "_COMPILED", type(compiled_step._COMPILED)())
    run(small(seed=1, top_k=None), compile=True)
    assert compiled
    first = len(compiled)
    run(small(seed=2, top_k=None), compile=True)
    assert len(compiled) == first


def test_a_graph_whose_random_numbers_are_in_another_order_is_compiled_again(monkeypatch, float64):
    attempts = []

    def compiled(graph, inputs, save_memory=False):
        attempts.append(save_memory)

        def other_noise(*inputs):
            torch.rand(1)
            return graph(*inputs)

        return graph if save_memory else other_noise

    monkeypatch.setattr(compiled_step, "compiled_graph", compiled)
    check_equal_runs(lambda: small(top_k=1))
    assert attempts == [False, True]


def test_a_captured_run_resumes_to_its_own_bits(graphs, tmp_path):
    class Stopped(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 3:
            raise Stopped

    arguments = {"compile": True, "epochs": 4, "warmup": 2, "ema": 0.9}
    with pytest.raises(Stopped):
        run(directory=tmp_path, callbacks=[stop], **arguments)
    resumed_objective, _ = run(directory=tmp_path, resume=True, **arguments)
    whole, _ = run(**arguments)
    assert same(weights(resumed_objective), weights(whole))


def test_a_run_resumes_only_as_it_was_started(tmp_path):
    run(directory=tmp_path, epochs=2)
    with pytest.raises(ValueError, match="compile: the run to resume had False, got True"):
        run(directory=tmp_path, epochs=2, resume=True, compile=True)


def test_a_changed_state_in_a_checkpoint_is_noticed():
    objective = small()
    compiled = CompiledStep(LossStep(objective, [list(objective.parameters())]))
    state = json.loads(json.dumps(compiled.state()))
    assert is_compiled_state(state)
    assert is_compiled_state(state | {"decisions": [1, 2], "reason": "none"})
    for changed in (None, {}, state | {"decisions": [0.5]}, state | {"reason": 1}):
        assert not is_compiled_state(changed)


def test_without_a_compiler_training_goes_on_with_a_hint(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    monkeypatch.setattr(compiled_step, "_COMPILED", type(compiled_step._COMPILED)())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        objective, _ = run(built("classifier"), compile=True)
    messages = [str(w.message) for w in caught if w.category is NotCompiledWarning]
    assert len(messages) == 1
    assert "no working C++ compiler was found; install g++" in messages[0]
    assert same(weights(objective), weights(run(built("classifier"))[0]))
