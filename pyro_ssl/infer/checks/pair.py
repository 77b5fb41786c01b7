"""Check that a model, its guide and the data match, before training and prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_ssl.infer.checks.data import check_site_support, check_site_units, family_of
from pyro_ssl.infer.checks.scope import all_sites, check_scope, check_shapes, wrong_shape
from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.enumeration import EnumerateMessenger, ReplayMessenger
from pyro_ssl.infer.sites import Site, data_plates, is_enumerated, latent_sites, sample_sites
from pyro_ssl.infer.traces import TracePair
from pyro_ssl.nn.tensor_marks import weighted_classes
from pyro_ssl.types import Guide
from pyro_ssl.utils.context import empty_param_store, preserve_random_state, validation_enabled


def check_programs(model: Any, guide: Any) -> None:
    """Check that model and guide are modules, whose parameters can be trained.

    Arguments:
        model: The model, or None.
        guide: Its guide.

    Raises:
        ValueError: One is not a module; the message says how to fix it.

    >>> check_programs(None, nn.Linear)
    Traceback (most recent call last):
    ValueError: guide should be a module, got the class Linear; call it, Linear(...)
    """
    if model is not None:
        _check_module("model", model)
    _check_module("guide", guide)


def _check_module(name: str, program: Any) -> None:
    if isinstance(program, type):
        raise ValueError(
            f"{name} should be a module, got the class {program.__name__}; call it, "
            f"{program.__name__}(...)"
        )
    if isinstance(program, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"{name} should be the program itself, got {type(program).__name__}; give its .module"
        )
    if not isinstance(program, nn.Module):
        raise ValueError(
            f"{name} should be a pyro.nn.PyroModule or another nn.Module, got "
            f"{_description(program)}, whose parameters would not be trained; make it the "
            "`forward` of a PyroModule, and put decorators such as @config_enumerate on that "
            "method"
        )


def _description(program: Any) -> str:
    if isinstance(program, partial):  # config_enumerate and poutine's handlers make functions
        return "a function that config_enumerate or a poutine handler made from a module"
    if callable(program):
        return f"the function {getattr(program, '__name__', type(program).__name__)}"
    return f"a {type(program).__name__}"


def q_y_of(guide: Any, x: Tensor) -> TorchDistribution:
    """The guide's q(y|x), over one-hot `(*, K)` or real labels `(*, D)`.

    Arguments:
        guide: The guide.
        x: Data `(B, *event)`.

    Raises:
        ValueError: The guide has no `classify`, or `classify` returns something else.

    >>> from pyro_ssl import zoo
    >>> q_y_of(zoo.build("m2", (4,), 3, hidden=(8,)).guide, torch.randn(5, 4)).mean.shape
    torch.Size([5, 3])
    """
    if not isinstance(guide, Guide):
        raise ValueError(
            f"guide: {type(guide).__name__} has no classify(x); give it one that returns q(y|x), "
            "such as a OneHotCategorical"
        )
    q = guide.classify(x)
    if not isinstance(q, torch.distributions.Distribution):
        raise ValueError(
            "guide: classify(x) should return a distribution over one-hot labels, got a "
            f"{type(q).__name__}"
        )
    if len(q.event_shape) != 1:
        raise ValueError(
            f"guide: classify(x) should be over one-hot labels (*, K), got {family_of(q)} with "
            f"event shape {tuple(q.event_shape)}; return a OneHotCategorical with the same logits "
            "([0, logits] for a Bernoulli), and use one-hot y in both programs"
        )
    return q


def check_pair(
    model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None, *, weighted: bool = False
) -> None:
    """Check that the guide's sites, plates and shapes fit the model's; restore the random state.

    Arguments:
        model: The model.
        guide: Its guide.
        x: Data `(B, *event)`.
        y: Labels `(B, K)`, or None.
        weighted: True if the data are weighted in the bound, as in training.

    Raises:
        ValueError: They do not fit; the message says how to fix it.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> check_pair(m2.model, m2.guide, torch.randn(5, 4), None)
    """
    with trial():
        pair = _traces(model, guide, x, y)
        given_traces = (pair.guide, pair.model)
        # with as many data as classes, shapes could not tell the two apart
        if pair.num_values == len(x):
            pair = _traces(model, guide, *_one_row_more(x, y))
        check_parameters(model, guide)
        _check_latents(pair, "without y" if y is None else "with y given")
        check_scope(pair)
        _check_subsampling(pair)
        _check_observations(pair.model)
        _check_data_sites(pair)
        if weighted:
            _check_one_datum(pair)
        _check_rows(given_traces, len(x))  # the data as given, without one row more
        check_shapes(pair)


def check_stock_pair(
    elbo: ELBO, model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None
) -> frozenset[str]:
    """Check a pair for one of Pyro's ELBOs, by evaluating it once with Pyro's validation on.

    Arguments:
        elbo: The ELBO.
        model: The model.
        guide: Its guide.
        x: Data `(B, *event)`.
        y: Labels `(B, K)`, or None.

    Returns:
        Names of the plates that have size B by chance, and that all data share.

    Raises:
        ValueError: The evaluation fails, or the data do not fit.

    >>> from pyro.infer import TraceEnum_ELBO
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> elbo = TraceEnum_ELBO(max_plate_nesting=1)
    >>> check_stock_pair(elbo, m2.model, m2.guide, torch.randn(5, 4), None)
    frozenset()
    """
    with trial(), validation_enabled():
        traces = _plain_traces(model, guide, x, y)
        check_parameters(model, guide)
        _check_rows(traces, len(x))
        _check_observations(traces[1])
        elbo.loss(model, guide, x, y)  # type: ignore[attr-defined]  # every subclass has it
        return _shared_plates(model, guide, x, y, traces)


def check_support(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> None:
    """Check that data are in the support of the model; restore the random state.

    Arguments:
        model: The model.
        guide: Its guide.
        x: Data `(B, *event)`.
        y: Labels `(B, K)`, or None.

    Raises:
        ValueError: A site is observed outside its support; the message says how to fix it.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> check_support(m2.model, m2.guide, torch.randn(5, 4), None)
    """
    with trial():
        _, model_trace = _plain_traces(model, guide, x, y)
        for _, site in sample_sites(model_trace):
            check_site_support(site)


def check_parameters(*programs: nn.Module) -> None:
    """Check that each parameter in Pyro's store belongs to a program: others would not be trained.

    Raises:
        ValueError: `pyro.param` made another parameter.

    >>> with empty_param_store():
    ...     p = pyro.param("scale", torch.ones(2))
    ...     check_parameters(nn.Linear(2, 1))
    Traceback (most recent call last):
    ValueError: pyro.param('scale') is not a parameter of model or guide, ...
    """
    trained = [p for program in programs for p in program.parameters()]
    trained_ids = {id(p) for p in trained}
    strided = [p for p in trained if not p.is_contiguous()]  # the store has copies of these
    for name, p in pyro.get_param_store().named_parameters():
        if id(p) not in trained_ids and not _is_copy_of_one(p, strided):
            raise ValueError(
                f"pyro.param({name!r}) is not a parameter of model or guide, so it would not be "
                "trained; make it an attribute, nn.Parameter or pyro.nn.PyroParam; an autoguide "
                "has its parameters after its first call"
            )


def _is_copy_of_one(p: Tensor, parameters: Sequence[Tensor]) -> bool:
    return any(p.shape == q.shape and p.equal(q) for q in parameters)


@contextmanager
def trial() -> Iterator[None]:
    """Run programs without gradients and without changes of random state and parameter store.

    >>> with trial():
    ...     torch.is_grad_enabled()
    False
    """
    with torch.no_grad(), preserve_random_state(), weighted_classes(), empty_param_store():
        yield


# --- traces ---


def _traces(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> TracePair:
    """The pair of traces, with enumeration."""
    messenger = EnumerateMessenger(1, rows=len(x))
    try:
        guide_trace = poutine.trace(messenger(guide)).get_trace(x, y)
        model_trace = poutine.trace(ReplayMessenger(guide_trace)(model)).get_trace(x, y)
    except ValueError as error:
        if "Shape mismatch" not in str(error):
            raise
        shapes = str(error).partition("Trace Shapes")[0].strip()
        raise ValueError(f"{shapes}; put the site's event dimensions into .to_event()") from None
    return TracePair.of(guide_trace, model_trace, len(x))


def _plain_traces(
    model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None
) -> tuple[Trace, Trace]:
    """Traces of guide and model, by Pyro alone."""
    guide_trace = poutine.trace(guide).get_trace(x, y)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x, y)
    return guide_trace, model_trace


def _one_row_more(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    more_y = None if y is None else torch.cat([y, y[:1]])
    return torch.cat([x, x[:1]]), more_y


# --- checks of traces ---


def _check_latents(pair: TracePair, how: str) -> None:
    """Check that both programs sample the same latents, in the same plates."""
    guided = latent_sites(pair.guide)
    auxiliary = {name for name, site in guided.items() if site["infer"].get("is_auxiliary")}
    latent = {
        name: site
        for name, site in latent_sites(pair.model).items()
        if name in guided or not is_enumerated(site)
    }
    missing = sorted(latent.keys() - guided.keys())
    if missing:
        raise ValueError(
            f"{how}, the guide does not sample {missing}, latent in the model; sample them in the "
            "guide or observe them in the model"
        )
    extra = sorted(guided.keys() - latent.keys() - auxiliary)
    if extra:
        raise ValueError(
            f"{how}, the guide samples {extra}, which the model does not; remove them, give the "
            "model a site of that name, or mark them as auxiliary: "
            'pyro.sample(..., infer={"is_auxiliary": True})'
        )
    _check_same_plates(guided, latent)


def _check_same_plates(guided: dict[str, Site], latent: dict[str, Site]) -> None:
    """Check that a latent is in the same plates in both programs."""
    for name, site in latent.items():
        wanted = [frame.name for frame in site["cond_indep_stack"]]
        plates = [frame.name for frame in guided[name]["cond_indep_stack"]]
        if plates != wanted:
            raise ValueError(
                f"site {name!r} is in plates {wanted} in the model and {plates} in the guide; "
                "put it in the same plates"
            )


def _check_subsampling(pair: TracePair) -> None:
    """Check that all data plates have the same full size.

    The bound is per datum of one data set.
    """
    plates = {
        (plate.name, plate.full_size)
        for _, site in all_sites(pair)
        for plate in data_plates(site)
        if plate.size == pair.rows
    }
    if len({full_size for _, full_size in plates}) > 1:
        sizes = ", ".join(f"{name!r} of {full_size}" for name, full_size in sorted(plates))
        raise ScopeError(
            f"the plates of the data have several sizes, {sizes}; give all of them "
            "pyro.plate(name, len(x)), or pyro.plate(name, N, subsample=x)"
        )


def _check_observations(model_trace: Trace) -> None:
    for _, site in sample_sites(model_trace):
        check_site_support(site)
        check_site_units(site)


def _check_data_sites(pair: TracePair) -> None:
    """Check that each observed site has a value per datum, or is outside every plate."""
    for who, site in all_sites(pair):
        plates = data_plates(site)
        if site["is_observed"] and plates and pair.is_shared(site):
            raise ScopeError(
                f"{who} site {site['name']!r} is observed in plate {plates[0].name!r} of size "
                f"{plates[0].size}, with {pair.rows} data; give it a row for each datum"
            )
        if not plates and _has_rows_in_event(site, pair.rows):
            raise ValueError(wrong_shape(who, site, pair.rows))


def _has_rows_in_event(site: Site, rows: int | None) -> bool:
    """True if an event dimension, of size above 1, has the size of the data."""
    shape = site["fn"].event_shape
    if not site["is_observed"]:
        shape = shape[:-1]  # a latent's last dimension may have any size: it may be a weight vector
    return rows is not None and rows > 1 and rows in shape


def _check_one_datum(pair: TracePair) -> None:
    """Check that the plate of a single datum is not mistaken for a shared plate.

    Sites of a shared plate are not weighted.
    """
    if pair.rows != 1:
        return
    for name, site in sample_sites(pair.guide):
        if data_plates(site) and pair.is_shared(site):
            raise ScopeError(
                f"guide site {name!r} is in a plate of size 1, like the plate of one datum; give "
                "two or more data"
            )


def _check_rows(traces: tuple[Trace, Trace], rows: int) -> None:
    """Check that a plate has the size of the data, so that the loss per datum is defined."""
    sizes = _plate_sizes(traces)
    if rows in sizes.values():
        return
    plates = ", ".join(f"{name!r} of {size}" for name, size in sizes.items()) or "none"
    raise ValueError(
        f"no site is inside a plate of size {rows}, so the loss per datum is undefined "
        f"(plates: {plates}); put the sites of a datum into pyro.plate('data', "
        "len(x)), or pyro.plate('data', N, subsample=x); fit draws the batches, so a plate needs "
        "no subsample_size"
    )


def _plate_sizes(traces: tuple[Trace, Trace]) -> dict[str, int]:
    sites = [site for trace in traces for _, site in sample_sites(trace)]
    return {plate.name: plate.size for site in sites for plate in data_plates(site)}


def _shared_plates(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    y: Tensor | None,
    traces: tuple[Trace, Trace],
) -> frozenset[str]:
    """Names of shared plates that have the size of the data, found by a run with one more row."""
    suspects = {name for name, size in _plate_sizes(traces).items() if size == len(x)}
    if len(suspects) < 2:
        return frozenset()
    sizes = _plate_sizes(_plain_traces(model, guide, *_one_row_more(x, y)))
    return frozenset(name for name in suspects if sizes.get(name) == len(x))
