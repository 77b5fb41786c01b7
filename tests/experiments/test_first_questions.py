"""The first questions about MNIST."""

import torch
from experiment_files import cells, write_mnist


def test_first_questions(tmp_path, script):
    write_mnist(tmp_path / "data")
    out = script(
        "first_questions", "--scale", "smoke", "--data-root", "data", "--workers", "1", cwd=tmp_path
    )
    classes = cells(out, "clusters, principal components")
    assert len(classes) == 3 and all("at least" in cell for cell in classes)
    assert "seconds until the first question" in out


def test_questions_from_clusters_are_asked_once(scripts):
    vectors = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    study = scripts("first_questions")
    asked = study.ask("pca", {"pca": vectors}, 60, draw=0)
    assert len(set(asked)) == len(asked) == max(study.COUNTS)
    again = study.ask("pca", {"pca": vectors}, 60, draw=0)
    assert asked == again
