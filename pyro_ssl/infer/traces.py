"""The traces of a guide and of its model, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.poutine import Trace

from pyro_ssl.infer.sites import Site, data_plates, is_enumerated, is_per_datum, sample_sites


@dataclass
class TracePair:
    """The traces of a guide and of its model replayed on it, with the enumerated site.

    Arguments:
        guide: Trace of the guide.
        model: Trace of the model.
        rows: Number of data; None if neither the arguments nor the plates tell.
        label: The enumerated site of the guide.
        summed_out: The site that the model enumerates, since the guide leaves it out.
        plate_names: Names of the plates around the label or around an observed site of the model.
    """

    guide: Trace
    model: Trace
    rows: int | None
    label: Site | None
    summed_out: Site | None
    plate_names: frozenset[str]

    @classmethod
    def of(cls, guide: Trace, model: Trace, rows: int | None = None) -> TracePair:
        """Pair two traces; `rows` is the number of data by the programs' arguments."""
        label = next((site for _, site in sample_sites(guide) if is_enumerated(site)), None)
        summed_out = _summed_out(guide, model)
        enumerated = label or summed_out
        sites = [site for trace in (guide, model) for _, site in sample_sites(trace)]
        rows = _number_of_data(sites, enumerated, rows)
        return cls(guide, model, rows, label, summed_out, _plate_names(model, sites, enumerated))

    @property
    def values(self) -> int:
        """Number V of values of the enumerated site; 1 without one."""
        site = self.label or self.summed_out
        if site is None:
            return 1
        return int(site["infer"]["log_weights"].shape[-2])

    def is_shared(self, site: Site) -> bool:
        """Whether all data share a site."""
        if not is_per_datum(site, self.rows):
            return True
        plates = data_plates(site)
        # one datum: a plate of size 1 is the data's only by its name
        return self.rows == 1 and bool(plates) and plates[0].name not in self.plate_names


def _summed_out(guide: Trace, model: Trace) -> Site | None:
    for name, site in sample_sites(model):
        if is_enumerated(site) and name not in guide:
            return site
    return None


def _plate_names(model: Trace, sites: list[Site], enumerated: Site | None) -> frozenset[str]:
    """Names of the plates of the label and of observations; of all plates without either."""
    of_data = [site for _, site in sample_sites(model) if site["is_observed"]]
    if enumerated is not None:
        of_data.append(enumerated)
    names = frozenset(plate.name for site in of_data for plate in data_plates(site))
    return names or frozenset(plate.name for site in sites for plate in data_plates(site))


def _number_of_data(sites: list[Site], enumerated: Site | None, given: int | None) -> int | None:
    """Size of the label's plate, else `given`, else size of the plate of the observations."""
    if enumerated is not None:
        return int(data_plates(enumerated)[0].size)
    sizes = {plate.size for site in sites for plate in data_plates(site)}
    if given in sizes or not sizes:
        return given
    observed = {plate.size for site in sites if site["is_observed"] for plate in data_plates(site)}
    return int(max(observed or sizes))
