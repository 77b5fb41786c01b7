"""Paper 003 on MNIST: tables, pictures, pretrained weights."""

import pytest
import torch
from experiment_files import made, write_mnist

from pyro_ssl import data, zoo

pytestmark = pytest.mark.slow


def test_latent_classifier(tmp_path, script, scripts, monkeypatch):
    cells = (("m2", 1.0), ("m2", 10000.0))
    monkeypatch.setattr(scripts("latent_classifier"), "PRETRAINED_BY_PAPER", cells)
    write_mnist(tmp_path / "data", 300)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    out = script("latent_classifier", *arguments, cwd=tmp_path)
    assert (
        "92.3 (2.8)" in out
        and "a VAE's" in out
        and "lowest loss" in out
        and "a classifier on z" in out
    )
    pictures = {
        "batches.png",
        "analogies_table.png",
        "analogies_pretraining.png",
        "reconstructions_vae.png",
        "reconstructions_vae_paper.png",
        *(f"analogies_pretraining_paper_{s}.png" for s in ("vae_1", "vae_10000", "random_1")),
    }
    assert pictures <= made(tmp_path / "out/latent_classifier")


def test_pretraining_with_the_papers_settings_has_both_starts(scripts):
    module = scripts("latent_classifier")
    configs = module.configs("cpu", [0])
    own = {n: c for n, c in configs.items() if c["part"] == "pretraining_paper"}
    assert len(own) == 2 * len(module.PRETRAINED_BY_PAPER)
    for name, config in own.items():
        grid = configs[f"paper_{config['method']}_{config['weight']:g}_0"]
        assert config["options"] == grid["options"], name  # a cell of Table 1
        assert config["options"]["sigma"] == 0.6 and config["preset"] == "paper-003"
    random = own["pretraining_paper_m2_10000_random_0"]
    from_vae = own["pretraining_paper_m2_10000_vae_0"]
    assert random | {"start": "vae"} == from_vae
    results = {
        start: {
            "config": config,
            **{k: v for k in ("accuracy", "ece", "log_likelihood", "seconds", "probe")},
            **{k: v for k in ("commonest", "by_reconstruction")},
        }
        for start, config, v in (("random", random, 0.75), ("vae", from_vae, 0.25))
    }
    text = module.starts_by_paper(results)
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()[2:]]
    assert [row[2:5] for row in rows] == [
        ["10000", "random", "75.00"],
        ["10000", "a VAE's", "25.00"],
    ]
    assert [row[-5:-2] for row in rows] == [3 * ["75.0"], 3 * ["25.0"]]
    assert module.starts_by_paper({}) == "No runs yet."


def test_selection_takes_the_epochs_that_it_names(scripts):
    path = {"validation": [0.5, 0.9, 0.7], "loss": [1.0, 3.0, 2.0], "test": [0.1, 0.2, 0.3]}
    rows = scripts("latent_classifier").selection([{"path": path, "config": {"weight": 1.0}}])
    assert [cell.strip() for cell in rows.splitlines()[-1].split("|")[1:-1]] == [
        "1",
        "20.00",
        "10.00",
        "30.00",
    ]


@pytest.mark.parametrize("method", ["m2", "latent_classifier", "latent_classifier_simplified"])
def test_a_pretrained_pair_starts_as_the_vae(method, scripts, tmp_path, monkeypatch):
    module, built = scripts("latent_classifier"), []
    build = zoo.build
    monkeypatch.setattr(
        module.zoo, "build", lambda *a, **k: built.append(build(*a, **k)) or built[-1]
    )
    config = module.configure("pretraining", method, 1, "smoke", 0.5)
    dataset = data.Dataset(
        "noise", *(torch.rand(40, 1, 4, 4), torch.arange(40) % 10) * 2, tuple(map(str, range(10)))
    )
    vae = module.pretrained_vae(config, dataset, tmp_path / "vae", tmp_path)
    ours = module.started_from(vae, config, dataset).eval()
    first, x, z = built[0].eval(), torch.rand(5, 1, 4, 4), torch.randn(5, 50)
    y = torch.eye(10)[:5]
    with torch.no_grad():
        q = ours.guide.q_z(x, y) if method == "m2" else ours.guide.q_z(x)
        p = ours.model.p_x(z) if method.endswith("simplified") else ours.model.p_x(y, z)
        assert torch.allclose(q.mean, first.guide.q_z(x).mean, atol=1e-6) and torch.allclose(
            p.mean, first.model.p_x(z).mean, atol=1e-6
        )


def test_sigma_is_chosen_on_images_set_aside(tmp_path, script):
    write_mnist(tmp_path / "data", 300)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    methods = ["--methods", "latent_classifier"]
    out = script("latent_classifier_sigma", *arguments, *methods, cwd=tmp_path)
    rows = [line for line in out.splitlines() if line.startswith("| latent_classifier")]
    assert [row.split("|")[2].strip() for row in rows] == ["1.0", "0.6", "0.5", "0.3"]
    errors = {row.split("|")[-2].strip() for row in rows}
    assert len(errors) > 1  # sigma reaches the decoder's training
