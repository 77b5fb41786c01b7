"""The committed pages show what the committed tables hold."""

import re

import pytest

from pyro_ssl.evaluation import plots

STUDIES = (
    "active_learning",
    "benchmark",
    "compiled_runs",
    "densities",
    "first_questions",
    "gradient_variance",
    "graphical_models",
    "larger_than_memory",
    "latent_classifier",
    "latent_classifier_sigma",
    "latent_pictures",
    "latent_plane",
    "m2_mnist",
    "mier",
    "mnist_labels",
    "moons",
    "peers",
    "tables",
    "true_latents",
    "time_to_accuracy",
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
def test_a_page_is_what_its_script_makes_of_its_table(scripts, monkeypatch, tmp_path, name):
    """Generating the committed page once more changes nothing, so no number on it is stale."""
    monkeypatch.setattr(plots, "save", lambda figure, path: path)
    results, everything = stored(scripts, name)
    assert results == everything and results  # nothing would run again
    page = (scripts("study").RESULTS / f"{name}.md").read_text()
    blocks = scripts(name).STUDY.report(results, tmp_path)
    blocks["sources"] = scripts("pages").sources(results)
    again = tmp_path / "page.md"
    again.write_text(page)
    scripts("pages").write_page(again, name, blocks)
    assert again.read_text() == page
    generated = re.findall(r"^<!-- (?!/)(.*) -->$", page, flags=re.MULTILINE)
    assert set(generated) == set(blocks)  # no block of an earlier script is left


def test_every_study_has_a_committed_page(scripts):
    folder = scripts("study").RESULTS
    assert {path.stem for path in folder.glob("*.md")} == set(STUDIES)
    scripts_of_studies = {
        path.stem for path in folder.parent.glob("*.py") if "\nSTUDY = " in path.read_text()
    }
    assert scripts_of_studies == set(STUDIES)
