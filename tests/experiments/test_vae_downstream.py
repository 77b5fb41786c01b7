"""Latents: probes, spreading, the paper's claims."""

import json

import pytest
import torch
from experiment_files import cells, made, row, write_mnist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from pyro_ssl import data, zoo

pytestmark = pytest.mark.slow


def test_latents_and_their_samples_belong_to_their_images(monkeypatch, scripts):
    vae_downstream = scripts("vae_downstream")

    objective = zoo.build(
        "vae", (4,), 2, z_dim=3, hidden=(8,), likelihood="gaussian", seed=0
    ).eval()
    x, x_test = torch.randn(40, 4), torch.randn(20, 4)
    points = data.Dataset(
        "points",
        x,
        torch.zeros(40, dtype=torch.long),
        x_test,
        torch.zeros(20, dtype=torch.long),
        ("a", "b"),
    )
    found = vae_downstream.encoded(objective, points, seed=0)
    for part, given in enumerate((x, x_test)):
        q = objective.guide.q_z(given)
        torch.testing.assert_close(found["mean"][part], q.mean)
        several = (found["samples"][part] - q.mean[:, None]) / q.stddev[:, None]
        assert several.shape == (len(given), vae_downstream.SAMPLES, 3)
        assert abs(several.mean()) < 0.2 and abs(several.std() - 1) < 0.15
        assert found["sample"][part].equal(found["samples"][part][:, 0])


def blurred(n: int = 400, seed: int = 0) -> tuple[data.Dataset, tuple[torch.Tensor, torch.Tensor]]:
    """Latents of three classes that overlap, as they are of test data."""
    generator = torch.Generator().manual_seed(seed)
    y = [torch.arange(n) % 3, torch.arange(n // 2) % 3]
    latents = tuple(
        3.0 * torch.eye(3)[of] + 2.0 * torch.randn(len(of), 3, generator=generator) for of in y
    )
    return data.Dataset("blurred", latents[0], y[0], latents[1], y[1], ("a", "b", "c")), latents


@pytest.mark.parametrize("probe", ["logistic", "neighbours", "svm"])
def test_a_probe_is_measured_as_scikit_learn_does(monkeypatch, probe, scripts):
    vae_downstream = scripts("vae_downstream")

    points, latents = blurred()
    rows = list(range(0, 400, 7))
    model = {
        "logistic": LogisticRegression(),
        "neighbours": KNeighborsClassifier(3),
        "svm": SVC(C=3.0),
    }[probe]
    own, test = ((z / latents[0].std()).numpy() for z in latents)
    y, y_test = points.y.numpy(), points.y_test.numpy()
    model.fit(own[rows], y[rows])
    found = vae_downstream.measured(probe, points, latents, rows, seed=0)
    assert found["accuracy"] == pytest.approx(model.score(test, y_test), abs=1e-9)
    assert found["training_accuracy"] == pytest.approx(model.score(own[rows], y[rows]), abs=1e-9)
    assert found["accuracy"] != found["training_accuracy"]


def test_several_samples_of_a_latent_vote_and_weigh_as_one(monkeypatch, scripts):
    vae_downstream = scripts("vae_downstream")

    points, latents = blurred()
    rows = list(range(0, 400, 7))
    alike = tuple(z[:, None].expand(-1, 4, -1) for z in latents)
    for probe in ("logistic", "svm"):
        one, four = (
            vae_downstream.measured(probe, points, z, rows, seed=0) for z in (latents, alike)
        )
        assert four == pytest.approx(one, abs=0.01)


def test_labels_spread_over_the_graph_of_latents(monkeypatch, scripts):
    vae_downstream = scripts("vae_downstream")

    points, _ = blurred()
    apart = tuple(
        torch.eye(3)[y] + 0.05 * torch.randn(len(y), 3) for y in (points.y, points.y_test)
    )
    graph = vae_downstream.neighbours(apart)
    known = torch.full((400,), -1)
    known[:3] = points.y[:3]
    assert vae_downstream.spread(points, graph, known) == {"accuracy": 1, "training_accuracy": 1}
    known[:3] = (points.y[:3] + 1) % 3  # a label of another class is spread as it is
    assert vae_downstream.spread(points, graph, known) == {"accuracy": 0, "training_accuracy": 1}


def test_the_papers_claims_are_held_against_the_results(monkeypatch, scripts):
    vae_downstream = scripts("vae_downstream")

    def results(of_z, of_cnn):
        sizes = list(vae_downstream.SIZES)
        probed = lambda v: [  # noqa: E731
            {
                "labels": n,
                "probe": p,
                "latents": "mean",
                "accuracy": v,
                "training_accuracy": v + 0.1,
            }
            for n in sizes
            for p in ("logistic", "network")
        ]
        found = {
            f"z{z}_0": {"config": {"row": f"z{z}", "probes": sizes}, "probes": probed(v)}
            for z, v in of_z.items()
        }
        cnn = {
            f"cnn_{n}": {"config": {"row": "cnn", "labels": n, "probes": []}, "accuracy": of_cnn}
            for n in sizes
        }
        return found | cnn

    def said(of_z, of_cnn):
        found = results(of_z, of_cnn)
        text = vae_downstream.claims(found, {f"z{z}": [found[f"z{z}_0"]] for z in of_z})
        claims = (
            "accuracy falls with z (logistic, 100 labels)",
            "the CNN is always better than probes (z4)",
        )
        falls, wins = (cells(text, claim) for claim in claims)
        gaps = cells(text, "VAE + logistic: training minus test accuracy, z = 4")
        assert gaps[1].startswith("10.0, 10.0")
        return falls[0], wins[0]

    assert said({4: 0.6, 9: 0.5, 16: 0.4, 25: 0.3}, 0.61) == ("yes", "yes")
    assert said({4: 0.6, 9: 0.5, 16: 0.5, 25: 0.3}, 0.59) == ("no", "no")


def test_rows_of_the_paper_have_its_decoder(scripts):
    config = scripts("vae_downstream").configure("z9_paper", 0, "cpu")
    assert config["options"]["decoder_hidden"] == (256, 256) and config["options"]["z_dim"] == 9
    preset = zoo.preset_of("vae", "paper-001")
    changed = {k for k, v in preset.option_values.items() if config["options"][k] != v}
    assert changed == {"z_dim"}
    changed = {k for k, v in preset.training_values.items() if config["training"][k] != v}
    assert changed == {"epochs"}


def test_vae_downstream_checks_the_papers_claims(tmp_path, script):
    write_mnist(tmp_path / "data", 300, "FashionMNIST")
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    first = script(
        "vae_downstream",
        *arguments,
        "--rows",
        "z2",
        "z4",
        "z9",
        "z16",
        "z25",
        "z4_paper",
        "pixels",
        "cnn",
        cwd=tmp_path,
    )
    assert "accuracy falls with z (logistic, 100 labels)" in first and "| pixels, logistic" in first
    assert "| z4_paper, z = 4 " in first and "| z4_paper, logistic " in first
    pictures = {"labels.png", "plane.png", "reconstructions.png"}
    assert pictures <= made(tmp_path / "out/vae_downstream")
    probes = json.loads(row(tmp_path / "out/vae_downstream.csv", "z4_0")["probes"])
    of_samples = {(p["probe"], p["latents"]) for p in probes if p["latents"] != "mean"}
    assert {p["probe"] for p in probes} == {"logistic", "network", "neighbours", "svm", "spreading"}
    assert of_samples == {
        (probe, kind)
        for probe in ("logistic", "network", "neighbours", "svm")
        for kind in ("sample", "samples")
    }
    again = script("vae_downstream", *arguments, "--rows", "z4", "cnn", cwd=tmp_path)
    assert "seconds" not in again.split("|")[0]
