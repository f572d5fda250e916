"""The nearest of many vectors by inner product, exact or by an approximate index of FAISS (Douze et al. 2024)."""

import faiss
import numpy as np
import torch

BLOCK = 16384  # vectors that are compared at once
GROUP = 1024  # vectors with which they are compared, to find pairs
PRODUCT = range(8, 256)  # numbers of queries for which torch's product is faster than FAISS (benchmarks.retrieval)
FOR_EACH_LIST = 39  # vectors that FAISS asks for, for each list that IVF makes


def exact(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest vectors of each query, by falling inner product.

    Parameters
    ----------
    queries : [shape=(Q, D), float32]
    vectors : [shape=(N, D), float32], in memory
    k : int >= 1
        all N are returned where there are fewer

    Returns
    -------
    scores [shape=(Q, min(k, N)), float32] and rows of `vectors` [same shape, int64]
    """
    _check(queries, vectors, k)
    k = min(k, len(vectors))
    if len(queries) not in PRODUCT:
        return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)

    # The k best of each block of vectors, and of these the k best.
    queries, vectors, scores, rows = torch.from_numpy(queries), torch.from_numpy(vectors), [], []
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        best, row = (queries @ block.T).topk(min(k, len(block)), dim=1)
        scores.append(best)
        rows.append(row + start)
    best, place = torch.cat(scores, dim=1).topk(k, dim=1)
    return best.numpy(), torch.cat(rows, dim=1).gather(1, place).numpy()


def ivf(vectors: np.ndarray, *, lists: int, probes: int) -> faiss.Index:
    """Vectors in `lists` lists around centres of k-means, of which a query looks into the `probes` nearest."""
    _check(vectors, vectors, 1)
    dim, lists = vectors.shape[1], max(1, min(lists, len(vectors) // FOR_EACH_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 2 * FOR_EACH_LIST
    index.train(vectors)
    index.add(vectors)
    index.nprobe = min(probes, lists)
    return index


def hnsw(vectors: np.ndarray, *, links: int, construction: int, search: int) -> faiss.Index:
    """A graph of `links` neighbours a vector (Malkov and Yashunin 2018), built and searched with lists of these lengths.

    It is built by one thread, since several would build another graph each time.
    """
    _check(vectors, vectors, 1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = construction, search
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def approximate(queries: np.ndarray, index: faiss.Index, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What an index finds among the k nearest, as `exact` gives it; rows are -1 where it finds fewer."""
    if isinstance(index, faiss.IndexHNSW):
        ef = max(index.hnsw.efSearch, k)  # a shorter list cannot hold k
        return index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=ef))
    return index.search(queries, k)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Share of the true rows [shape=(Q, K)] that are among the found ones [shape=(Q, any)]."""
    return float(np.mean([np.isin(own, others).mean() for own, others in zip(true, found)]))


def similar_pairs(vectors: np.ndarray, least: float) -> np.ndarray:
    """Rows (i, j), i < j, of vectors whose inner product is `least` or more [shape=(P, 2), int64]."""
    _check(vectors, vectors, 1)
    vectors, pairs = torch.from_numpy(vectors), [torch.zeros((0, 2), dtype=torch.int64)]
    for first in range(0, len(vectors), GROUP):
        for second in range(first, len(vectors), BLOCK):
            products = vectors[first : first + GROUP] @ vectors[second : second + BLOCK].T
            pairs.append((products >= least).nonzero() + torch.tensor([first, second]))
    pairs = torch.cat(pairs)
    return pairs[pairs[:, 0] < pairs[:, 1]].numpy()


def _check(queries: np.ndarray, vectors: np.ndarray, k: int) -> None:
    for name, array in (("queries", queries), ("vectors", vectors)):
        if array.ndim != 2 or array.dtype != np.float32 or not len(array) or not array.flags.c_contiguous:
            raise ValueError(f"{name} has shape {array.shape}, {array.dtype}: give rows of float32, at least one")
    if queries.shape[1] != vectors.shape[1] or k < 1:
        raise ValueError(
            f"queries of {queries.shape[1]} and vectors of {vectors.shape[1]} numbers, k={k}: they must fit"
        )
