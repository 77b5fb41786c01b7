"""The committed pages show what the committed tables hold."""

import pytest

from pyro_ssl.evaluation import plots

STUDIES = (
    "active_learning",
    "gradient_variance",
    "latent_classifier",
    "latent_plane",
    "m2_mnist",
    "mier",
    "mnist_labels",
    "moons",
    "tables",
    "vae_downstream",
    "variational_classification",
)


def stored(scripts, name):
    """Results of a study whose configs are what the script makes now, and all results."""
    study, module = scripts("study"), scripts(name)
    files = study.Files(study.RESULTS, name)
    default = module.STUDY.draws["cpu"]
    configs = module.STUDY.configs("cpu", study.table_draws(files.table, default, default))
    return study.stored(files.table, configs), scripts("results_table").read_results(files.table)


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_shows_the_numbers_of_its_table(scripts, monkeypatch, tmp_path, name):
    monkeypatch.setattr(plots, "save", lambda figure, path: path)
    results, everything = stored(scripts, name)
    assert results == everything and results  # nothing would run again
    page = (scripts("study").RESULTS / f"{name}.md").read_text()
    blocks = scripts(name).STUDY.report(results, tmp_path)
    for text in (*blocks.values(), scripts("pages").sources(results)):
        assert text in page


def test_the_page_of_the_benchmark_shows_its_table(scripts, monkeypatch, tmp_path):
    monkeypatch.setattr(plots, "save", lambda figure, path: path)
    benchmark, study = scripts("benchmark"), scripts("study")
    results = benchmark._in_order(benchmark.read_results(study.RESULTS / "benchmark.csv"))
    page = (study.RESULTS / "benchmark.md").read_text()
    assert all(text in page for text in benchmark.report(results, tmp_path).values())
