"""Seconds of the Frechet distance's core, Tr (C1 C2)^(1/2), against scipy's sqrtm of the product, by dimension.

OMP_NUM_THREADS=1 ./run python -m benchmarks.frechet
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import linalg

from benchmarks import timing
from foleylib.evaluation.frechet import trace_sqrt

SQRTM, OURS = "scipy.linalg.sqrtm", "frechet.trace_sqrt"


def covariances(dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two covariances of full rank (D, D) whose eigenvalues fall over four decades, as those of embeddings do."""
    rng, scale = np.random.default_rng(seed), np.geomspace(1, 1e-2, dim)
    rows = (rng.normal(size=(2 * dim, dim)) * scale @ linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(2))
    return tuple(np.cov(x, rowvar=False) for x in rows)


def measure(dim: int, repeats: int, seed: int) -> pd.DataFrame:
    """Rows of both for one dimension, with the value that each finds."""
    cov1, cov2 = covariances(dim, seed)
    values = {}

    def case(name: str, root):
        def run(clock: timing.Clock) -> None:
            with clock.part("trace"):
                values[name] = root()

        return run

    cases = {
        f"{SQRTM}, {dim} dimensions": lambda: float(np.trace(linalg.sqrtm(cov1 @ cov2)).real),
        f"{OURS}, {dim} dimensions": lambda: trace_sqrt(cov1, cov2),
    }
    seconds = timing.interleaved({name: case(name, root) for name, root in cases.items()}, repeats)
    table = timing.rows(seconds, baseline=next(iter(cases)), items=1, unit="distance")
    return table.assign(value=table.case.map(values))


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512, 2048], help="VGGish, CLAP, PANNs")
    parser.add_argument("--seed", type=int, default=0, help="of the covariances")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    machine = timing.environment(torch.device("cpu"))
    tables = [measure(dim, arguments.repeats, arguments.seed) for dim in arguments.dims]
    return timing.report("frechet", pd.concat(tables, ignore_index=True), arguments=arguments, machine=machine)


if __name__ == "__main__":
    main()
