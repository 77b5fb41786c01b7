"""The traces of a guide and its model, and what the bound needs to know about them."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.poutine import Trace

from pyro_ssl.infer.sites import Site, data_plates, is_enumerated, is_per_datum, sample_sites


@dataclass
class TracePair:
    """The trace of a guide, and that of its model replayed on it.

    Arguments:
        guide: Trace of the guide.
        model: Trace of the model.
        rows: Number of data; None if neither the arguments nor the plates determine it.
        label: The enumerated site of the guide, or None.
        summed_out: The enumerated site of the model, which is not in the guide, or None.
        plate_names: Names of the plates around the label or around an observed site of the model.

    >>> import torch
    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> pair.label["name"], pair.num_values
    ('y', 3)
    """

    guide: Trace
    model: Trace
    rows: int | None
    label: Site | None
    summed_out: Site | None
    plate_names: frozenset[str]

    @classmethod
    def of(cls, guide: Trace, model: Trace, rows: int | None = None) -> TracePair:
        """Pair two traces; `rows` is the number of data in the programs' arguments, or None."""
        label = next((site for _, site in sample_sites(guide) if is_enumerated(site)), None)
        summed_out = _summed_out(guide, model)
        enumerated = label or summed_out
        sites = [site for trace in (guide, model) for _, site in sample_sites(trace)]
        rows = _number_of_data(sites, enumerated, rows)
        return cls(guide, model, rows, label, summed_out, _plate_names(model, sites, enumerated))

    @property
    def num_values(self) -> int:
        """Number V of values of the enumerated site; 1 if there is none."""
        site = self.label or self.summed_out
        if site is None:
            return 1
        return int(site["infer"]["log_weights"].shape[-2])

    def is_shared(self, site: Site) -> bool:
        """True if all data share the value of a site."""
        if not is_per_datum(site, self.rows):
            return True
        plates = data_plates(site)
        # with one datum, only the name tells its plate from another plate of size 1
        return self.rows == 1 and bool(plates) and plates[0].name not in self.plate_names


def _summed_out(guide: Trace, model: Trace) -> Site | None:
    for name, site in sample_sites(model):
        if is_enumerated(site) and name not in guide:
            return site
    return None


def _plate_names(model: Trace, sites: list[Site], enumerated: Site | None) -> frozenset[str]:
    """Names of the plates of the label and of observed sites; without either, of all plates."""
    of_data = [site for _, site in sample_sites(model) if site["is_observed"]]
    if enumerated is not None:
        of_data.append(enumerated)
    names = frozenset(plate.name for site in of_data for plate in data_plates(site))
    return names or frozenset(plate.name for site in sites for plate in data_plates(site))


def _number_of_data(sites: list[Site], enumerated: Site | None, given: int | None) -> int | None:
    """Size of the label's plate, or else of the data.

    Without a label it is `given` if a plate has that size or there is no plate, and otherwise the
    size of the largest plate of the observations (of all sites, if none is observed in a plate).
    """
    if enumerated is not None:
        return int(data_plates(enumerated)[0].size)
    sizes = {plate.size for site in sites for plate in data_plates(site)}
    if given in sizes or not sizes:
        return given
    observed = {plate.size for site in sites if site["is_observed"] for plate in data_plates(site)}
    return int(max(observed or sizes))
