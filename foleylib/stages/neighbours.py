"""What models read of the neighbours of a corpus' clips: where the tokens lie, and the conditions they make."""

import json
from pathlib import Path

import numpy as np

from foleylib import paths
from foleylib.datasets import features, retrieval
from foleylib.datasets import manifest as manifests
from foleylib.datasets import tokens as stores
from foleylib.params.retrieval import Read
from foleylib.params.settings import Params


def read_key(corpus: str) -> dict | None:
    """What the tokens of a corpus were made from; None where there are none."""
    file = paths.TOKENS / corpus / "tokens.json"
    return json.loads(file.read_text()) if file.is_file() else None


def stores_of(corpus: str, reads: Read) -> dict[str, Path]:
    """The stores that a model reads, "audio" and "text" -> folder; a corpus without them is refused."""
    key, folder = read_key(corpus), paths.TOKENS / corpus
    if key is None:
        raise ValueError(f"{folder} holds no tokens; run the retrieval_index stage of this corpus first")
    for kind in reads.kinds:
        if key["settings"][kind] is None:
            raise ValueError(
                f"{folder} has no {kind} tokens: retrieval.tokens.{kind} is left out; name a network there"
            )
    return {kind: folder / kind for kind in reads.kinds}


def channels(corpus: str, reads: Read) -> dict[str, int | None]:
    """Channels of the tokens that a model reads, "audio" and "text"; None of what it does not read."""
    found = {
        kind: np.load(folder / "tokens.npy", mmap_mode="r").shape[-1]
        for kind, folder in stores_of(corpus, reads).items()
    }
    return {"audio": None, "text": None} | found


def find(corpus: str, protocol: str) -> retrieval.Neighbours:
    """The neighbours of a corpus' clips under a protocol."""
    return retrieval.Neighbours(paths.RETRIEVAL / corpus, manifests.load(paths.CLIPS / corpus), protocol)


def of_split(corpus: str, split: str, reads: Read, cfg: Params) -> dict[str, stores.Neighbours]:
    """What a model reads of the neighbours of a split's clips, found for the first caption of each."""
    index, _ = features.load(paths.FEATURES / corpus, split)
    found = find(corpus, cfg.retrieval.protocol)(list(index.id), reads.k)
    return conditions(corpus, reads, found.rows)


def keys(corpus: str, cfg: Params) -> list:
    """What changes with all that models of a corpus read."""
    return [cfg.retrieval.protocol, retrieval.read_key(paths.RETRIEVAL / corpus), read_key(corpus)]


def conditions(corpus: str, reads: Read, rows: np.ndarray) -> dict[str, stores.Neighbours]:
    """The conditions of clips with the neighbours `rows` [shape=(N, K), -1 for none], by name."""
    return stores.of_neighbours(rows, **stores_of(corpus, reads))
