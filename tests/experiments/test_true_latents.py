"""Data of variational classification's own model, and latents compared with the true ones."""

import pytest
import torch
from experiment_files import names

from pyro_ssl import zoo


@pytest.fixture
def true_latents(scripts):
    return scripts("true_latents")


def test_the_true_network_is_one_to_one(true_latents):
    truth = true_latents.Truth(shared=False, seed=0)
    _, z, x = truth.sample(100)
    assert x.shape == (100, true_latents.X_DIM)
    torch.testing.assert_close(truth.h.inverse(x), z)


def test_the_true_latents_have_the_moments_of_their_class(true_latents):
    truth = true_latents.Truth(shared=False, seed=0)
    y, z, _ = truth.sample(200_000)
    own = z[y == 3]
    assert (own.mean(0) - truth.loc[3]).abs().max() < 0.05 * truth.scale[3].max()
    torch.testing.assert_close(own.std(0), truth.scale[3], rtol=0.03, atol=0)
    torch.testing.assert_close(y.bincount() / 200_000, truth.p_y.probs.float(), rtol=0.05, atol=0)


def test_an_affine_map_of_the_truth_is_found_and_the_class_alone_is_not(true_latents):
    truth = true_latents.Truth(shared=True, seed=1)
    y, z, _ = truth.sample(20_000)
    matrix = torch.randn(4, 4, generator=truth.generator, dtype=torch.float64)
    assert true_latents.explained(z @ matrix + 2, z, y) == pytest.approx(1)
    of_class = torch.nn.functional.one_hot(y).double()
    assert true_latents.explained(of_class, z, y) == pytest.approx(0, abs=0.01)


def test_shifts_of_classes_count_unless_each_may_have_its_own(true_latents):
    truth = true_latents.Truth(shared=True, seed=1)
    y, z, _ = truth.sample(20_000)
    p_z = zoo.build("vc", (8,), 10, z_dim=4).model.p_z
    moved = z + 5 * truth.loc.flip(0)[y]
    shares = true_latents.compared(p_z, moved, z, y, truth)
    assert shares["explained_within"] == pytest.approx(1)
    assert shares["explained"] < 0.9


def test_order_sign_and_scale_do_not_count_in_the_correlation_but_rotations_do(true_latents):
    truth = true_latents.Truth(shared=False, seed=1)
    y, z, _ = truth.sample(20_000)
    changed = z[:, [2, 0, 3, 1]] * torch.tensor([1.0, -2.0, 0.1, 5.0])
    assert true_latents.correlation(changed, z, y) == pytest.approx(1)
    rotated = z @ torch.linalg.qr(torch.randn(4, 4, generator=truth.generator).double()).Q
    assert true_latents.correlation(rotated, z, y) < 0.95


def test_the_true_parameters_are_at_no_distance_after_an_affine_map(true_latents):
    truth = true_latents.Truth(shared=False, seed=2)
    y, z, _ = truth.sample(5000)
    p_z = zoo.build("vc", (8,), 10, z_dim=4).double().model.p_z
    p_z.loc.data = 3 * truth.loc[:, [1, 0, 3, 2]] + 1
    p_z.raw_scale.data = (3 * truth.scale[:, [1, 0, 3, 2]] - p_z.min_scale).expm1().log()
    found = 3 * z[:, [1, 0, 3, 2]] + 1
    assert true_latents.compared(p_z, found, z, y, truth)["kl_of_latents"] == pytest.approx(0)
    p_z.loc.data += 1
    assert true_latents.compared(p_z, found, z, y, truth)["kl_of_latents"] > 0.01


def test_the_script_compares_all_methods(true_latents, script, tmp_path):
    arguments = ["--scale", "smoke", "--workers", "1", "--out", "out", "--truths", "one variance"]
    out = script("true_latents", *arguments, "--methods", "ce", "vc", cwd=tmp_path)
    assert "truth: one variance" in out and "x itself, or Bayes' rule" in out
    found = names(tmp_path / "out/true_latents.csv")
    assert {name.split("_")[0] for name in found} == {"ce", "vc"} and len(found) == 4


def test_a_run_that_diverged_has_a_row(true_latents):
    (name, config), *_ = true_latents.configs("smoke", [0]).items()
    shown = true_latents.latents({name: {"config": config, "diverged": "step 3"}}, "one variance")
    row = next(line for line in shown.splitlines() if line.startswith("| ce "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["0", "1", "–"]
