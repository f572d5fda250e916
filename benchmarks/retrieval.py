"""Seconds, recall and memory of the top 50 among 400,000 embeddings: exact, FAISS's flat index, numpy, IVF and HNSW.

./run python -m benchmarks.retrieval --threads 1

The embeddings are made up: unit vectors of 512 numbers that vary in 32 directions, in 2,000 clouds, with noise in all
directions. How much IVF and HNSW find depends on that; the stage retrieval_index measures it on a corpus' own.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch.utils.benchmark import set_torch_threads

from benchmarks import timing
from foleylib.datasets import search
from foleylib.params.retrieval import Search

DIRECTIONS, CLOUDS, SPREAD, NOISE = 32, 2000, 0.7, 0.3
AT_ONCE = 100  # queries of numpy's product, whose argpartition needs three times its memory
EXACT, FLAT, NUMPY, IVF, HNSW = "search.exact", "faiss.IndexFlatIP", "numpy", "search.ivf", "search.hnsw"


def made_up(n: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors [shape=(n, dim), float32] around the same centres, whatever the seed."""
    base, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    directions = base.standard_normal((DIRECTIONS, dim), dtype=np.float32)
    centres = base.standard_normal((CLOUDS, DIRECTIONS), dtype=np.float32)
    places = centres[rng.integers(0, CLOUDS, n)] + SPREAD * rng.standard_normal((n, DIRECTIONS), dtype=np.float32)
    vectors = places @ directions
    vectors += NOISE * rng.standard_normal((n, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_numpy(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A product, argpartition, and a sort of the best."""
    found = []
    for start in range(0, len(queries), AT_ONCE):
        scores = queries[start : start + AT_ONCE] @ vectors.T
        rows = np.argpartition(scores, len(vectors) - k, axis=1)[:, -k:]
        best = np.take_along_axis(scores, rows, 1)
        order = np.argsort(-best, axis=1)
        found.append((np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)))
    return tuple(np.concatenate(part) for part in zip(*found))


def built(vectors: np.ndarray) -> tuple[dict[str, faiss.Index], dict[str, dict]]:
    """The indexes of FAISS with the sizes of `retrieval`; seconds and bytes that each took to build."""
    sizes, indexes, cost = Search(), {}, {}
    flat = faiss.IndexFlatIP(vectors.shape[1])
    makers = {
        FLAT: lambda: flat.add(vectors) or flat,
        IVF: lambda: search.ivf(vectors, **sizes.ivf.model_dump()),
        HNSW: lambda: search.hnsw(vectors, **sizes.hnsw.model_dump()),
    }
    for name, maker in makers.items():
        clock = timing.Clock()

        def make(name=name, maker=maker, clock=clock) -> None:
            with clock.part("build"):
                indexes[name] = maker()

        memory = timing.peak_memory(make, torch.device("cpu"))
        cost[name] = {"build_seconds": clock.parts["build"], "build_memory": memory}
    return indexes, cost


def searches(vectors: np.ndarray, indexes: dict[str, faiss.Index], k: int) -> dict[str, Callable]:
    """(scores, rows) of queries, by each way."""
    return {
        EXACT: lambda queries: search.exact(queries, vectors, k),
        FLAT: lambda queries: indexes[FLAT].search(queries, k),
        NUMPY: lambda queries: with_numpy(queries, vectors, k),
        IVF: lambda queries: search.approximate(queries, indexes[IVF], k),
        HNSW: lambda queries: search.approximate(queries, indexes[HNSW], k),
    }


def case(find: Callable, queries: np.ndarray) -> Callable[[timing.Clock], None]:
    def run(clock: timing.Clock) -> None:
        with clock.part("search"):
            find(queries)

    return run


def measure(arguments: argparse.Namespace) -> pd.DataFrame:
    """Rows of all ways for each number of queries; ratios are to the faster of FAISS's flat index and numpy there."""
    vectors = made_up(arguments.items, arguments.dim, 1)
    indexes, cost = built(vectors)
    tables = []
    for n in arguments.queries:
        queries = made_up(n, arguments.dim, 2)
        ways = searches(vectors, indexes, arguments.top)
        seconds = timing.interleaved({name: case(way, queries) for name, way in ways.items()}, arguments.repeats)
        faster = seconds.iloc[:, 1:].median(axis=1).droplevel("part")[[FLAT, NUMPY]].idxmin()
        table = timing.rows(seconds, baseline=faster, items=n, unit="query")
        true = ways[FLAT](queries)[1]
        table["recall"] = [search.recall(ways[name](queries)[1], true) for name in table.case]
        peaks = {name: timing.peak_memory(partial(way, queries), torch.device("cpu")) for name, way in ways.items()}
        table["memory"] = table.case.map(peaks)
        for key in ("build_seconds", "build_memory"):
            table[key] = [cost.get(name, {}).get(key) for name in table.case]
        labels = [f"{{}}, {n} queries", f"{faster}, {n} queries"]
        tables.append(table.assign(case=table.case.map(labels[0].format), baseline=labels[1]))
    return pd.concat(tables, ignore_index=True)


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--items", type=int, default=400_000, help="embeddings that are searched")
    parser.add_argument("--dim", type=int, default=512, help="numbers of an embedding")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 200, 1000], help="searched for at once")
    parser.add_argument("--top", type=int, default=Search().top)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    with set_torch_threads(arguments.threads), threadpool_limits(arguments.threads):
        faiss.omp_set_num_threads(arguments.threads)
        machine = timing.environment(torch.device("cpu")) | {"faiss": faiss.__version__}
        table = measure(arguments)
    more = {"sizes": Search().model_dump(include={"ivf", "hnsw"})}
    return timing.report("retrieval", table, arguments=arguments, machine=machine, more=more)


if __name__ == "__main__":
    main()
