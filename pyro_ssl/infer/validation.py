"""Whether a guide matches its model: the scope of the bound, shapes, supports, and parameters that would not be trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine import Trace
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, nn

from pyro_ssl.infer.enumeration import (
    EnumerateMessenger,
    ReplayMessenger,
    ScopeError,
    batch_shape,
    data_plates,
    is_enumerated,
    is_per_datum,
)
from pyro_ssl.infer.traces import TracePair, log_prob, sample_sites
from pyro_ssl.nn.tensor_notes import weighted_classes
from pyro_ssl.utils.context import (
    empty_param_store,
    parts_in_eval_mode,
    preserve_random_state,
    validation_enabled,
)

SCORELESS = (Distribution.score_parts, ExpandedDistribution.score_parts, MaskedDistribution.score_parts)
"""Pyro's `score_parts` that have no score term for a reparameterised distribution, or ask the wrapped one."""


# --- the scope of TraceTopKEnum_ELBO, at every evaluation --------------------------------------------------------------


def check_scope(pair: TracePair) -> None:
    """Raise ScopeError unless the bound of a pair is right as `TraceTopKEnum_ELBO` computes it.

    It looks at plates, marks and distributions alone, at no tensor's value.
    """
    for who, trace in (("guide", pair.guide), ("model", pair.model)):
        for name, site in sample_sites(trace):
            _check_plates(who, name, site, pair)
    for name, site in sample_sites(pair.guide):
        if not is_enumerated(site):
            _check_reparameterised(name, site)
    _check_dependence(pair)
    _check_scales(pair)


def _check_plates(who: str, name: str, site: Any, pair: TracePair) -> None:
    plates = data_plates(site)
    if not plates:
        return
    if outer := [plate.name for plate in plates if plate.dim != -1]:
        raise ScopeError(
            f"{who} site {name!r} stands in plate {outer[0]!r}, not at dim -1; use .to_event() in its place"
        )
    plate = plates[0]
    if pair.rows is None or plate.size != pair.rows or pair.rows == 1:
        return
    if plate.name not in pair.plate_names:
        raise ScopeError(
            f"{who} site {name!r} stands in plate {plate.name!r}, whose size {plate.size} is the number of data, so it "
            f"cannot be told whether its values are the data's; put it into the plate of what is observed, or, if all data "
            "share it, give another number of data at once"
        )


def _check_reparameterised(name: str, site: Any) -> None:
    if is_reparameterised(site):
        return
    if isinstance(site["fn"], dist.Unit):
        raise ScopeError(
            f"guide: pyro.factor({name!r}) has has_rsample=False or none, whose gradient has a score term; give "
            "has_rsample=True, which is exact for any function of reparameterised samples and parameters"
        )
    if site["is_observed"]:
        raise ScopeError(
            f"guide site {name!r} is observed and has no reparameterised sample, so Pyro gives it a score term; leave it "
            "out of the guide, and add its log-probability as a term such as LabelLogProb"
        )
    raise ScopeError(
        f"guide site {name!r} has no reparameterised sample, or only in part, so its gradient would be wrong; "
        'mark it infer={"enumerate": "parallel"} if it has few values, or use a reparameterised distribution'
    )


def is_reparameterised(site: Any) -> bool:
    """Whether all of the gradient of a guide's site goes through its sample, and none through a score term."""
    fn = site["fn"]
    if not fn.has_rsample:
        return False
    part: Any = fn
    while part is not None:
        if getattr(type(part), "score_parts", Distribution.score_parts) not in SCORELESS:
            return not isinstance(fn.score_parts(site["value"]).score_function, Tensor)
        part = getattr(part, "base_dist", None)
    return True


def _check_dependence(pair: TracePair) -> None:
    """What depends on the enumerated site stands in a plate of the data: elsewhere its values would not be weighed."""
    label = pair.label or pair.summed_out
    if label is None:
        return
    own = {plate.name for plate in data_plates(label)}
    for who, trace in (("guide", pair.guide), ("model", pair.model)):
        for name, site in sample_sites(trace):
            plates = {plate.name for plate in data_plates(site)}
            of_data = any(plate.size == pair.rows for plate in data_plates(site))
            if of_data or not _depends(site):
                continue
            where = f"in plate {min(plates)!r}" if plates else "outside every plate"
            raise ScopeError(
                f"{who} site {name!r} depends on {label['name']!r}, which is enumerated in plate {min(own)!r}, and stands "
                f"{where}; put it into the plate of {label['name']!r}"
            )


def _depends(site: Any) -> bool:
    """Whether a site differs by the values of the enumerated site, which are dimension -2."""
    shape = batch_shape(site)
    return len(shape) > 1 and shape[-2] > 1


def _check_scales(pair: TracePair) -> None:
    """A site that the model sums out, and what depends on it, need one scale, which stands outside the logarithm."""
    if pair.summed_out is None:
        return
    label = pair.summed_out
    for name, site in sample_sites(pair.model):
        depends = site is not label and _depends(site)
        if depends and not _same_scale(site["scale"], label["scale"]):
            raise ScopeError(
                f"site {name!r} depends on {label['name']!r}, which the model sums out, and has another scale; give both "
                "one poutine.scale"
            )


def _same_scale(a: float | Tensor, b: float | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


# --- Pyro's own checks, where its validation is on --------------------------------------------------------------------


def check_shapes(pair: TracePair, samples: int = 1) -> None:
    """Run Pyro's own checks on the traces, and raise ValueError where a log-density has a dimension that nothing explains.

    Arguments:
        pair: The traces.
        samples: Samples S of the guide's sites, in dimension -3.
    """
    try:
        check_model_guide_match(pair.model, pair.guide, 1)
    except ValueError as error:
        raise ValueError(f"{error}; give the site the same event and batch shape in both") from None
    for who, trace in (("guide", pair.guide), ("model", pair.model)):
        for name, site in sample_sites(trace):
            if not _has_site_shape(site, pair, samples):
                raise ValueError(
                    f"{who} site {name!r}: log_prob has shape {tuple(log_prob(site).shape)}, want (*, {pair.rows}), one value "
                    "per datum; put the site into pyro.plate('data', len(x)) and its event dimensions into .to_event()"
                )


def _has_site_shape(site: Any, pair: TracePair, samples: int) -> bool:
    """Whether each dimension of a site's log-density is of a plate, of the label's values, or of the samples."""
    shape = log_prob(site).shape
    # A z before y in the model may differ by y's class, which Pyro takes for a conflict of dimensions.
    unmarked: Any = {**site, "infer": {}, "log_prob": torch.empty(shape, device="meta")}
    try:
        check_site_shape(unmarked, 1)
    except ValueError:
        return False
    left = list(shape[:-1])
    explained = zip(reversed(left), (pair.values, samples), strict=False)
    return len(left) <= 2 and all(size in (1, most) for size, most in explained)


# --- a pair and its data, before training and prediction --------------------------------------------------------------


def check_programs(model: Any, guide: Any) -> None:
    """Raise ValueError unless model, or None, and guide are modules, so that they have parameters to train."""
    for name, program in (("model", model), ("guide", guide)):
        if program is None and name == "model":
            continue
        if isinstance(program, type):
            raise ValueError(
                f"{name} should be a module, got the class {program.__name__}; call it, {program.__name__}(...)"
            )
        if isinstance(program, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ValueError(f"{name} should be the program itself, got {type(program).__name__}; give its .module")
        if not isinstance(program, nn.Module):
            raise ValueError(
                f"{name} should be a pyro.nn.PyroModule or another nn.Module, got {_said(program)}, whose parameters would not "
                "be trained; write it as the forward of a PyroModule, and decorate that (@config_enumerate, @poutine.scale) "
                "inside the class"
            )


def _said(program: Any) -> str:
    """What a thing that is no module is called."""
    if isinstance(program, partial):  # config_enumerate and poutine's handlers make functions of modules
        return "a function made of a module by config_enumerate or a poutine"
    if callable(program):
        return f"the function {getattr(program, '__name__', type(program).__name__)}"
    return f"a {type(program).__name__}"


def classified(guide: Any, x: Tensor) -> Any:
    """The guide's q(y|x): over one-hot `(*, K)`, or over real labels `(*, D)`.

    Raises:
        ValueError: The guide has no `classify`, or it returns something else.
    """
    if not hasattr(guide, "classify"):
        raise ValueError(
            f"guide: {type(guide).__name__} has no classify(x); give it one that returns q(y|x), such as a OneHotCategorical"
        )
    q = guide.classify(x)
    if not isinstance(q, torch.distributions.Distribution):
        raise ValueError(
            f"guide: classify(x) should return a distribution over one-hot labels, got a {type(q).__name__}"
        )
    if len(q.event_shape) != 1:
        raise ValueError(
            f"guide: classify(x) should be over one-hot labels (*, K), got {_family(q)} with event shape "
            f"{tuple(q.event_shape)}; give a OneHotCategorical of the same logits, of [0, logits] for a Bernoulli, and take y "
            "as one-hot in both programs"
        )
    return q


def check_pair(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None, *, weighed: bool = False) -> None:
    """Raise ValueError, with the fix, unless the guide's sites, plates and shapes fit the model's.

    The random state is kept.

    Arguments:
        model: The model.
        guide: Its guide.
        x: Data `(B, *event)`.
        y: Labels `(B, K)`, or None.
        weighed: Whether the bound has weights, as in training.
    """
    with trial():
        pair = _traces(model, guide, x, y)
        traces = pair.guide, pair.model
        if pair.values == len(x):  # a dimension of data can then not be told from one of the label's values
            more = torch.cat([x, x[:1]])
            pair = _traces(model, guide, more, None if y is None else torch.cat([y, y[:1]]))
        check_parameters(model, guide)
        _check_latents(pair, "without y" if y is None else "with y given")
        check_scope(pair)
        _check_subsampling(pair)
        for _, site in sample_sites(pair.model):
            _check_support(site)
            _check_units(site)
        _check_data_sites(pair)
        if weighed:
            _check_one_datum(pair)
        _check_rows(traces, len(x))
        check_shapes(pair)


def check_input_units(x: Tensor, limit: float) -> None:
    """Raise ValueError where more than a tenth of a column of x is beyond a limit, and so in other units than standardised.

    At most 1 % of a standardised column is beyond 10, whatever its distribution (Chebyshev).

    Arguments:
        x: Data `(B, *event)`.
        limit: The largest absolute value of ordinary data.
    """
    if not x.is_floating_point():
        return
    beyond = (x.abs() > limit).flatten(1).sum(0).max().item()
    if beyond > max(1, 0.1 * len(x)):
        raise ValueError(
            f"x: {beyond} of {len(x)} data are beyond {limit:g} in one of their numbers, up to {x.abs().max().item():.4g}; the "
            "networks take numbers of about 1: divide pixels 0 .. 255 by 255, standardise columns"
        )


def check_foreign_pair(elbo: Any, model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> frozenset[str]:
    """Evaluate an ELBO of Pyro's once with Pyro's validation, and raise ValueError if that fails, or data do not fit.

    It returns the names of the plates that are all data's, and have as many places as there are data here by chance.
    """
    with trial(), validation_enabled():
        guide_trace = poutine.trace(guide).get_trace(x, y)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x, y)
        check_parameters(model, guide)
        _check_rows((guide_trace, model_trace), len(x))
        for _, site in sample_sites(model_trace):
            _check_support(site)
            _check_units(site)
        elbo.loss(model, guide, x, y)
        return _plates_of_all_data(model, guide, x, y, (guide_trace, model_trace))


def _sizes_of_plates(traces: tuple[Trace, Trace]) -> dict[str, int]:
    sites = [site for trace in traces for _, site in sample_sites(trace)]
    return {plate.name: plate.size for site in sites for plate in data_plates(site)}


def _check_rows(traces: tuple[Trace, Trace], rows: int) -> None:
    """The loss of a datum is known by the plate that it stands in."""
    sizes = _sizes_of_plates(traces)
    if rows in sizes.values():
        return
    found = ", ".join(f"{name!r} of {size}" for name, size in sizes.items()) or "none"
    raise ValueError(
        f"no site stands in a vectorised plate of the {rows} data, so that the loss of a datum is not known (plates: {found}); "
        "put what belongs to a datum into pyro.plate('data', len(x)), or pyro.plate('data', N, subsample=x); fit draws the "
        "batches, so a plate needs no subsample_size"
    )


def _plates_of_all_data(
    model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None, traces: tuple[Trace, Trace]
) -> frozenset[str]:
    """Names of the plates that are as large as the data by chance, which data of one row more tell."""
    suspects = {name for name, size in _sizes_of_plates(traces).items() if size == len(x)}
    if len(suspects) < 2:
        return frozenset()
    more = torch.cat([x, x[:1]]), None if y is None else torch.cat([y, y[:1]])
    guide_trace = poutine.trace(guide).get_trace(*more)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*more)
    sizes = _sizes_of_plates((guide_trace, model_trace))
    return frozenset(name for name in suspects if sizes.get(name) == len(x))


def check_support(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> None:
    """Raise ValueError unless data are of the model's support; the random state is kept."""
    with trial():
        guide_trace = poutine.trace(guide).get_trace(x, y)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x, y)
        for _, site in sample_sites(model_trace):
            _check_support(site)


@contextmanager
def trial() -> Iterator[None]:
    """Run programs without gradient and leave the random state and the parameter store as they were."""
    with torch.no_grad(), preserve_random_state(), weighted_classes(), empty_param_store():
        yield


def _traces(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> TracePair:
    try:
        guide_trace = poutine.trace(EnumerateMessenger(1, rows=len(x))(guide)).get_trace(x, y)
        model_trace = poutine.trace(ReplayMessenger(guide_trace)(model)).get_trace(x, y)
    except ValueError as error:
        if "Shape mismatch" not in str(error):
            raise
        shapes = str(error).partition("Trace Shapes")[0].strip()
        raise ValueError(f"{shapes}; put the site's event dimensions into .to_event()") from None
    return TracePair.of(guide_trace, model_trace, len(x))


def joint_pass_is_exact(model: nn.Module, guide: Any, batch: Any) -> bool:
    """Whether labeled and unlabeled data can share one pass without changing either bound.

    They can where the guide enumerates `y` and is otherwise the same program without y as with it: every site has the same
    log-density at the same values, and q(y|x) is `classify`'s. Batch norm, which mixes data in training, is looked at as it
    is in evaluation. The random state is kept.
    """
    parts = [part for program in (model, guide) for part in program.modules()]
    x, y, n = batch.x, batch.y, len(batch.x)
    both = torch.cat([x, batch.x_unlabeled])
    try:
        with parts_in_eval_mode(parts), trial():
            joint_messenger = EnumerateMessenger(1, labels=y, rows=len(both))
            joint = poutine.trace(joint_messenger(guide)).get_trace(both)
            together = poutine.trace(poutine.replay(model, joint)).get_trace(both)
            label = dict(sample_sites(joint)).get("y")
            if label is None or not is_enumerated(label):
                return False
            q = torch.cat([guide.classify(part).mean for part in (x, batch.x_unlabeled)])
            same = getattr(guide, "classifies_by_one_draw", False) or _close(label["fn"].mean, q)
            if not same:
                return False
            latents = [(name, site) for name, site in sample_sites(joint) if not site["is_observed"] and name != "y"]
            first = {name: _first(site, n, len(both)) for name, site in latents}
            given = poutine.trace(poutine.condition(guide, first)).get_trace(x, y)
            apart = poutine.trace(poutine.condition(model, first)).get_trace(x, y)
    except (ValueError, RuntimeError, IndexError, TypeError):  # a pair that one call at a time suits may not suit this
        return False
    pairs = [(dict(sample_sites(a)), dict(sample_sites(b))) for a, b in ((given, joint), (apart, together))]
    pairs[0][1].pop("y")
    return all(
        a.keys() == b.keys() and all(_same_log_prob(a[name], b[name], n, len(both)) for name in a) for a, b in pairs
    )


def check_parameters(*programs: nn.Module) -> None:
    """Raise ValueError unless all that the programs put into the parameter store is theirs: nothing else is trained."""
    own = {id(p): p for program in programs for p in program.parameters()}
    strided = [p for p in own.values() if not p.is_contiguous()]  # of which the store holds copies
    for name, p in pyro.get_param_store().named_parameters():
        if id(p) not in own and not any(p.shape == q.shape and p.equal(q) for q in strided):
            raise ValueError(
                f"pyro.param({name!r}) is no parameter of model or guide, so it would not be trained; make it an attribute, "
                "nn.Parameter or pyro.nn.PyroParam; an autoguide has its parameters after it was called once"
            )


def _first(site: dict[str, Any], n: int, rows: int) -> Tensor:
    """The values of the first n data, under the first value of the label; all of what the data share."""
    if not is_per_datum(site, rows):
        return site["value"]
    value, event_dim = site["value"], site["fn"].event_dim
    if value.dim() - event_dim > 1:
        value = value.select(-2 - event_dim, 0)
    return value.narrow(-1 - event_dim, 0, n)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _same_log_prob(apart: dict[str, Any], joint: dict[str, Any], n: int, rows: int) -> bool:
    one, other = log_prob(apart), log_prob(joint)
    if not is_per_datum(joint, rows):
        return one.shape == other.shape and torch.allclose(one, other)
    other = (other[0] if other.dim() > 1 else other)[:n]  # of the first n data, under the first value of the label
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def _check_latents(pair: TracePair, how: str) -> None:
    guided = {n: s for n, s in sample_sites(pair.guide) if not s["is_observed"]}
    auxiliary = {name for name, site in guided.items() if site["infer"].get("is_auxiliary")}
    latent = {
        n: s for n, s in sample_sites(pair.model) if not s["is_observed"] and (n in guided or not is_enumerated(s))
    }
    if missing := sorted(latent.keys() - guided.keys()):
        raise ValueError(
            f"{how}, the guide does not sample {missing}, latent in the model; "
            "sample them in the guide or observe them in the model"
        )
    if extra := sorted(guided.keys() - latent.keys() - auxiliary):
        raise ValueError(
            f"{how}, the guide samples {extra}, which the model does not; "
            "remove them or give the model a site of that name"
        )
    for name, site in latent.items():
        plates, wanted = ([f.name for f in s["cond_indep_stack"]] for s in (guided[name], site))
        if plates != wanted:
            raise ValueError(
                f"site {name!r} stands in plates {wanted} in the model and {plates} in the guide; "
                "put it in the same plates"
            )


def _check_subsampling(pair: TracePair) -> None:
    """One size of the data set in all plates of the data: its ratio to the batch is taken off the bound per datum."""
    plates = {
        (plate.name, plate.full_size)
        for trace in (pair.guide, pair.model)
        for _, site in sample_sites(trace)
        for plate in data_plates(site)
        if plate.size == pair.rows
    }
    if len({full_size for _, full_size in plates}) > 1:
        sizes = ", ".join(f"{name!r} of {full_size}" for name, full_size in sorted(plates))
        raise ScopeError(
            f"the plates of the data have several sizes, {sizes}; give all of them pyro.plate(name, len(x)), or pyro.plate(name, N, subsample=x)"
        )


def _check_data_sites(pair: TracePair) -> None:
    """In training a site is of the batch's data, or of all data: what is observed elsewhere is neither."""
    for who, trace in (("guide", pair.guide), ("model", pair.model)):
        for name, site in sample_sites(trace):
            plates = data_plates(site)
            if site["is_observed"] and plates and pair.is_shared(site):
                raise ScopeError(
                    f"{who} site {name!r} is observed in plate {plates[0].name!r} of size {plates[0].size}, beside "
                    f"{pair.rows} data; give it a row for each datum"
                )
            shape = site["fn"].event_shape
            sizes = shape if site["is_observed"] else shape[:-1]  # of a vector of weights, say, the last is any number
            if not plates and pair.rows in sizes and is_data(pair.rows):
                raise ValueError(
                    f"{who} site {name!r}: log_prob has shape {tuple(log_prob(site).shape)}, want (*, {pair.rows}), one value "
                    "per datum; put the site into pyro.plate('data', len(x)) and its event dimensions into .to_event()"
                )


def _check_one_datum(pair: TracePair) -> None:
    """Weights are put on the data's plate by its size, which one datum shares with a plate of size 1."""
    if pair.rows != 1:
        return
    for name, site in sample_sites(pair.guide):
        if data_plates(site) and pair.is_shared(site):
            raise ScopeError(
                f"guide site {name!r} stands in a plate of size 1, which cannot be told from one datum; give two or more data"
            )


def is_data(rows: int | None) -> bool:
    """Whether a dimension of this size can be told from one that all data share."""
    return rows is not None and rows > 1


def _check_support(site: dict[str, Any]) -> None:
    value = site["value"]
    if not site["is_observed"] or not isinstance(value, Tensor):
        return
    support = site["fn"].support
    if support.check(value).all():
        return
    low, high = value.min().item(), value.max().item()
    raise ValueError(
        f"site {site['name']!r} is observed outside the support of its {_family(site['fn'])}: got values in "
        f"[{low:.4g}, {high:.4g}]; {_support_fix(site['fn'])}"
    )


def _support_fix(fn: Any) -> str:
    family = _family(fn)
    if family.endswith("Bernoulli") or family == "Beta":
        return "for pixels 0 .. 255 divide by 255 (and do not standardise), for other data choose a Gaussian likelihood"
    if family == "Multinomial":
        return f"each row should hold counts, whole numbers that sum to total_count, {int(_innermost(fn).total_count)}"
    if _innermost(fn).support.is_discrete:
        return f"a {family} wants {_innermost(fn).support}, such as counts that are neither scaled nor standardised"
    return f"a {family} wants {fn.support}; give such data, or choose another likelihood"


def _check_units(site: dict[str, Any]) -> None:
    """Observations hundreds of standard deviations from 0 are in other units than the model: pixels 0 .. 255, say."""
    observed = site["is_observed"] and site["name"] != "y"  # y's scale is what is to be learned
    if not observed or _family(site["fn"]) != "Normal":
        return
    sigma, largest = site["fn"].stddev.min().item(), site["value"].abs().max().item()
    if largest > 300 * sigma:
        raise ValueError(
            f"site {site['name']!r} is observed up to {largest:.4g}, more than 300 times its standard deviation {sigma:.4g}; "
            "for pixels 0 .. 255 divide by 255, standardise other data, or give a larger sigma"
        )


def _innermost(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def _family(fn: Any) -> str:
    return type(_innermost(fn)).__name__


def first_nonfinite(*traces: Trace) -> str | None:
    """The first site, guide first, whose value or log-density is not finite."""
    for trace in traces:
        for name, site in sample_sites(trace):
            if not (site["value"].isfinite().all() and log_prob(site).isfinite().all()):
                return name
    return None
