"""What models read of the neighbours of a corpus' clips: where the tokens lie, and the conditions they make."""

import json
from pathlib import Path

import numpy as np

from foleylib import paths
from foleylib.datasets import features, retrieval
from foleylib.datasets import manifest as manifests
from foleylib.datasets import tokens as stores
from foleylib.params.retrieval import Retrieved
from foleylib.params.settings import Params


def read_key(corpus: str) -> dict | None:
    """What the tokens of a corpus were made from; None where there are none."""
    file = paths.TOKENS / corpus / "tokens.json"
    return json.loads(file.read_text()) if file.is_file() else None


def stores_of(corpus: str, reads: Retrieved) -> dict[str, Path]:
    """The stores that a model reads, "audio" and "text" -> folder."""
    return {kind: paths.TOKENS / corpus / kind for kind in ("audio", "text") if getattr(reads, kind)}


def channels(corpus: str, reads: Retrieved) -> dict[str, int | None]:
    """Channels of the tokens that a model reads, "audio" and "text"; None of what it does not read."""
    if read_key(corpus) is None:
        raise ValueError(f"{paths.TOKENS / corpus} holds no tokens; run the retrieval_index stage of this corpus first")
    found = {
        kind: np.load(folder / "tokens.npy", mmap_mode="r").shape[-1]
        for kind, folder in stores_of(corpus, reads).items()
    }
    return {"audio": None, "text": None} | found


def find(corpus: str, protocol: str) -> retrieval.Neighbours:
    """The neighbours of a corpus' clips under a protocol."""
    return retrieval.Neighbours(paths.RETRIEVAL / corpus, manifests.load(paths.CLIPS / corpus), protocol)


def of_split(corpus: str, split: str, reads: Retrieved, cfg: Params) -> dict[str, stores.Neighbours]:
    """What a model reads of the neighbours of a split's clips, found for the first caption of each."""
    index, _ = features.load(paths.FEATURES / corpus, split)
    found = find(corpus, cfg.retrieval.protocol)(list(index.id), reads.k)
    return conditions(corpus, reads, found.rows)


def keys(corpus: str, cfg: Params) -> list:
    """What changes with all that models of a corpus read."""
    return [cfg.retrieval.protocol, retrieval.read_key(paths.RETRIEVAL / corpus), read_key(corpus)]


def conditions(corpus: str, reads: Retrieved, rows: np.ndarray) -> dict[str, stores.Neighbours]:
    """The conditions of clips with the neighbours `rows` [shape=(N, K), -1 for none], by name."""
    return stores.of_neighbours(rows, **stores_of(corpus, reads))
