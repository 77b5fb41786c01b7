"""scANVI of scvi-tools, for counts."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import scvi


def probabilities(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, seed: int = 0, **training: Any
) -> np.ndarray:
    scvi.settings.seed = seed
    names = np.where(labels < 0, "unknown", labels.astype(str))
    train = anndata.AnnData(x.astype(np.float32), obs={"label": names})
    test = anndata.AnnData(x_test.astype(np.float32), obs={"label": ["unknown"] * len(x_test)})
    scvi.model.SCVI.setup_anndata(train, labels_key="label")
    pretrained = scvi.model.SCVI(train)
    pretrained.train(**training)
    model = scvi.model.SCANVI.from_scvi_model(
        pretrained, unlabeled_category="unknown", labels_key="label"
    )
    model.train(**training)
    p = model.predict(test, soft=True)
    return p[sorted(p.columns, key=int)].to_numpy()
