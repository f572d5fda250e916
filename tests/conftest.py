"""Fixtures shared by the test modules."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """Folder of golden data, papers and real recordings beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}: golden data and recordings are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def draw_weights():
    """Weight recipe of the golden data: rows [key, shape, kind, a, b] and a seed to a dict of arrays."""

    def draw(rows, seed):
        rng, weights = np.random.RandomState(seed), {}
        for key, shape, kind, a, b in rows:
            if kind == "const":
                weights[key] = np.full(shape, a)
            elif kind != "fixed":
                x = rng.standard_normal(tuple(shape))
                x = np.abs(x) if kind == "abs" else x
                weights[key] = np.asarray(a + b * x, dtype=np.float32)
        return weights

    return draw


@pytest.fixture(scope="session")
def golden(shared):
    """Golden case by name: namespace of manifest, inputs, outputs and rows (None where the case has none)."""
    root = shared / "golden"

    def arrays(path):
        return dict(np.load(root / path)) if path else None

    def case(name):
        manifest = json.loads((root / "cases" / f"{name}.json").read_text())
        rows = json.loads((root / manifest["keys"]).read_text()) if manifest.get("keys") else None
        inputs, outputs = arrays(manifest.get("input")), arrays(manifest.get("output"))
        return SimpleNamespace(manifest=manifest, inputs=inputs, outputs=outputs, rows=rows)

    return case
