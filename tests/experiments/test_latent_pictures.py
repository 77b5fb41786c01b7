"""Pictures of latent spaces."""

import torch
from experiment_files import made, write_mnist


def test_latent_pictures(tmp_path, script):
    write_mnist(tmp_path / "data")
    out = script(
        "latent_pictures", "--scale", "smoke", "--data-root", "data", "--workers", "1", cwd=tmp_path
    )
    assert "| vae   | 10 |" in out and "| vc " in out
    pictures = {"samples.png", "plane.png", "encoder_decoder.png", "line.png"}
    assert pictures == made(tmp_path / "runs/smoke/latent_pictures")


def test_the_grid_has_equally_probable_latents(scripts):
    steps = scripts("latent_pictures").quantiles(4)
    below = torch.special.ndtr(steps.double())
    assert torch.allclose(below, torch.tensor([0.125, 0.375, 0.625, 0.875]).double(), atol=1e-6)
