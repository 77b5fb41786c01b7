"""Checks of what users give: arrays, labels and model/guide pairs. Each raises a ValueError that names what to mend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_ssl.enumeration import EnumerateMessenger, ReplayMessenger, is_enumerated, is_of_all, is_shared
from pyro_ssl.layers import weighed
from pyro_ssl.modes import in_evaluation, own_param_store, same_random_state
from pyro_ssl.traces import check_plates, log_prob, sample_sites


def as_data(x: Any, name: str = "x", dtype: torch.dtype | None = None) -> Tensor:
    """Any array-like as a finite tensor `(N, *event)`; rows are data.

    Arguments:
        x: The array.
        name: What the caller calls it, for messages.
        dtype: Of the tensor; by default float64 stays, and all else becomes float32.

    Raises:
        TypeError: The array does not hold numbers.
        ValueError: It is empty, has no feature dimension, or holds NaN or infinity.
    """
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind in "OUS":
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name} should hold numbers, got an array of dtype {array.dtype}: {error}") from None
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} should hold real numbers, got an array of dtype {array.dtype}")
        x = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if x.is_complex():
        raise TypeError(f"{name} should hold real numbers, got {x.dtype}")
    x = x.to(dtype or (torch.float64 if x.dtype == torch.float64 else torch.float32))
    if x.dim() < 2:
        raise ValueError(
            f"{name} should have shape (data, features, ...), got {tuple(x.shape)}; one feature is (data, 1)"
        )
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")
    if not x.isfinite().all():
        row = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}, as {x.dtype}; drop or impute it")
    return x


def as_codes(y: Any, n: int, name: str = "y") -> Tensor:
    """Labels as int64 codes `(n,)`: 0 .. K - 1, and -1 where the label is missing.

    Raises:
        TypeError: The labels are not whole numbers.
        ValueError: There are not n of them, or one is below -1.
    """
    if not isinstance(y, Tensor):
        array = np.asarray(y)
        if array.dtype.kind not in "iufcb":
            raise TypeError(f"{name} should hold integer codes with -1 for unlabeled, got dtype {array.dtype}")
        y = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if y.shape != (n,):
        raise ValueError(f"{name} should have shape ({n},), one label per row of x, got {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{name} should hold integer codes with -1 for unlabeled, got {y.dtype}")
    y = y.to(torch.int64)
    if int(y.min()) < -1:
        raise ValueError(f"{name} should be 0 .. K - 1, or -1 for unlabeled, got {int(y.min())}")
    return y


def as_values(y: Any, n: int, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Real labels `(n, D)`, and which rows have one, `(n,)`: a row of NaN has none.

    Raises:
        TypeError: The labels are not real numbers.
        ValueError: There are not n of them, of size D; one holds infinity, or NaN in part.
    """
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"y should hold real numbers, with NaN for unlabeled, got dtype {array.dtype}")
    values = torch.as_tensor(array.astype(np.float64)).to(dtype)
    values = values[:, None] if values.dim() == 1 else values
    if values.shape != (n, size):
        raise ValueError(f"y should have shape {(n, size)}, one label per row of x, got {tuple(array.shape)}")
    missing = values.isnan()
    if (missing.any(1) != missing.all(1)).any() or values.isinf().any():
        raise ValueError("y should be finite, or NaN in all of a row without a label")
    return values.nan_to_num(), ~missing.all(1)


def check_positive(**sizes: int) -> None:
    """Raise ValueError, naming the argument, unless each is a whole number above 0."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} should be a whole number above 0, got {size!r}")


def check_probs(probs: Any, classes: int | None = None) -> list[float]:
    """Probabilities of classes as numbers, or a ValueError unless there are as many, above 0, that sum to 1."""
    array = np.asarray(probs)
    fits = array.dtype.kind in "iuf" and array.shape == ((classes,) if classes else (array.size,))
    if not fits or not (array > 0).all() or abs(float(array.sum()) - 1) > 1e-5:
        many = "probabilities" if classes is None else f"{classes} probabilities"
        raise ValueError(f"class_probs should be {many} above 0 that sum to 1, got {probs!r}")
    return array.astype(float).tolist()


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError, naming the argument, unless a value is of an annotated kind, or of one of several.

    For `float` that is a finite number; what has another kind than a number, a truth value or one of some words is let pass.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(_is(value, k) for k in kinds):
        raise ValueError(f"{name} should be {' or '.join(map(_said, kinds))}, got {value!r}")


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(kind))
    if kind is NoneType:
        return value is None
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    return kind is not bool or isinstance(value, bool | np.bool_)


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {int: "a whole number", float: "a finite number", bool: "True or False", NoneType: "None"}
    return names.get(kind, str(kind))


def is_missing(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return value is None or value in ("-1", "nan", "")
    if type(value).__name__ == "NAType":  # pandas', which compares with nothing
        return True
    return bool(value != value or value == -1)


def one_hot(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Codes `(*,)` as one-hot `(*, K)`.

    Raises:
        ValueError: A code is not in 0 .. K - 1.
    """
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"y should be in 0 .. {classes - 1}, got {int(y.min())} .. {int(y.max())}")
    return torch.nn.functional.one_hot(y.long(), classes).to(dtype)


def check_pair(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> None:
    """Raise ValueError, with the fix, unless the guide's sites, plates and shapes fit the model's; the random state is kept."""
    with _trial():
        guide_trace, model_trace = _traces(model, guide, x, y)
        _check_parameters(model, guide)
        _check_latents(guide_trace, model_trace, "without y" if y is None else "with y given")
        check_plates(guide_trace, model_trace)
        for trace, who in ((guide_trace, "guide"), (model_trace, "model")):
            for name, site in sample_sites(trace):
                _check_site(who, name, site, len(x))


def check_support(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> None:
    """Raise ValueError unless data are of the model's support; the random state is kept."""
    with _trial():
        for name, site in sample_sites(_traces(model, guide, x, y)[1]):
            _check_support(name, site)


@contextmanager
def _trial() -> Iterator[None]:
    with torch.no_grad(), same_random_state(), weighed(), own_param_store():
        yield


def _traces(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor | None) -> tuple[Trace, Trace]:
    try:
        guide_trace = poutine.trace(EnumerateMessenger(1)(guide)).get_trace(x, y)
        return guide_trace, poutine.trace(ReplayMessenger(guide_trace)(model)).get_trace(x, y)
    except ValueError as error:
        if "Shape mismatch" not in str(error):
            raise
        shapes = str(error).partition("Trace Shapes")[0].strip()
        raise ValueError(f"{shapes}; put the site's event dimensions into .to_event()") from None


def treats_labels_alike(model: nn.Module, guide: Any, batch: Any) -> bool:
    """Whether labeled data may stand beside unlabeled in one call, with the same bound as if called apart.

    So it is where the guide enumerates `y` and is otherwise the same program without y as with it: every site has the same
    log-density at the same values, and q(y|x) is `classify`'s. Batch norm, which mixes data in training, is looked at as it
    is in evaluation. The random state is kept.
    """
    parts = [part for program in (model, guide) for part in program.modules()]
    x, y, n = batch.x, batch.y, len(batch.x)
    both = torch.cat([x, batch.x_unlabeled])
    try:
        with torch.no_grad(), in_evaluation(parts), same_random_state(), weighed(), own_param_store():
            joint = poutine.trace(EnumerateMessenger(1, labels=y)(guide)).get_trace(both)
            together = poutine.trace(poutine.replay(model, joint)).get_trace(both)
            label = dict(sample_sites(joint)).get("y")
            if label is None or not is_enumerated(label):
                return False
            q = torch.cat([guide.classify(part).mean for part in (x, batch.x_unlabeled)])
            same = getattr(guide, "classifies_by_one_draw", False) or _close(label["fn"].mean, q)
            if not same:
                return False
            latents = [(name, site) for name, site in sample_sites(joint) if not site["is_observed"] and name != "y"]
            first = {name: _first(site, n) for name, site in latents}
            given = poutine.trace(poutine.condition(guide, first)).get_trace(x, y)
            apart = poutine.trace(poutine.condition(model, first)).get_trace(x, y)
    except (ValueError, RuntimeError, IndexError, TypeError):  # a pair that one call at a time suits may not suit this
        return False
    pairs = [(dict(sample_sites(a)), dict(sample_sites(b))) for a, b in ((given, joint), (apart, together))]
    pairs[0][1].pop("y")
    return all(a.keys() == b.keys() and all(_same_log_prob(a[name], b[name], n) for name in a) for a, b in pairs)


def _check_parameters(*programs: nn.Module) -> None:
    """What the programs put into the parameter store has to be theirs: nothing else is trained."""
    own = {id(p): p for program in programs for p in program.parameters()}
    strided = [p for p in own.values() if not p.is_contiguous()]  # of which the store holds copies
    for name, p in pyro.get_param_store().named_parameters():
        if id(p) not in own and not any(p.shape == q.shape and p.equal(q) for q in strided):
            raise ValueError(
                f"pyro.param({name!r}) is no parameter of model or guide, so it would not be trained; "
                "make it an attribute, nn.Parameter or pyro.nn.PyroParam"
            )


def _first(site: dict[str, Any], n: int) -> Tensor:
    """The values of the first n data, under the first value of the label; all of what the data share."""
    if is_shared(site):
        return site["value"]
    value, event_dim = site["value"], site["fn"].event_dim
    if value.dim() - event_dim > 1:
        value = value.select(-2 - event_dim, 0)
    return value.narrow(-1 - event_dim, 0, n)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _same_log_prob(apart: dict[str, Any], joint: dict[str, Any], n: int) -> bool:
    one, other = log_prob(apart), log_prob(joint)
    if is_shared(joint):
        return one.shape == other.shape and torch.allclose(one, other)
    other = (other[0] if other.dim() > 1 else other)[:n]  # of the first n data, under the first value of the label
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def _check_latents(guide_trace: Trace, model_trace: Trace, how: str) -> None:
    guided = {n: s for n, s in sample_sites(guide_trace) if not s["is_observed"]}
    latent = {
        n: s for n, s in sample_sites(model_trace) if not s["is_observed"] and (n in guided or not is_enumerated(s))
    }
    if missing := sorted(latent.keys() - guided.keys()):
        raise ValueError(
            f"{how}, the guide does not sample {missing}, latent in the model; "
            "sample them in the guide or observe them in the model"
        )
    if extra := sorted(guided.keys() - latent.keys()):
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


def _check_site(who: str, name: str, site: dict[str, Any], n: int) -> None:
    _check_support(name, site)
    if _family(site) == "Normal" and site["is_observed"] and name != "y":  # y's scale is what is to be learned
        _check_units(name, site)
    if is_of_all(site) and n not in site["fn"].event_shape[:-1]:
        return
    shape = tuple(site["value"].shape if is_enumerated(site) else log_prob(site).shape)
    if not is_enumerated(site) and (not shape or shape[-1] not in (1, n) or len(shape) > 2):
        raise ValueError(
            f"{who} site {name!r}: log_prob has shape {shape}, want (*, {n}), one value per datum; "
            "put the site into pyro.plate('data', len(x)) and its event dimensions into .to_event()"
        )


def _check_support(name: str, site: dict[str, Any]) -> None:
    if site["is_observed"] and isinstance(site["value"], Tensor) and not site["fn"].support.check(site["value"]).all():
        low, high = site["value"].min().item(), site["value"].max().item()
        raise ValueError(
            f"site {name!r} is observed outside the support of its {_family(site)}: got values in [{low:.4g}, {high:.4g}]; "
            "for pixels 0 .. 255 divide by 255 (and do not standardise), for other data choose a Gaussian likelihood"
        )


def _check_units(name: str, site: dict[str, Any]) -> None:
    """Observations hundreds of standard deviations from 0 are in other units than the model: pixels 0 .. 255, say."""
    sigma, largest = site["fn"].stddev.min().item(), site["value"].abs().max().item()
    if largest > 300 * sigma:
        raise ValueError(
            f"site {name!r} is observed up to {largest:.4g}, more than 300 times its standard deviation {sigma:.4g}; "
            "for pixels 0 .. 255 divide by 255, standardise other data, or give a larger sigma"
        )


def _family(site: dict[str, Any]) -> str:
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def first_nonfinite(*traces: Trace) -> str | None:
    """The first site, guide first, whose value or log-density is not finite."""
    for trace in traces:
        for name, site in sample_sites(trace):
            if not (site["value"].isfinite().all() and log_prob(site).isfinite().all()):
                return name
    return None
