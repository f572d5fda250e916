"""Stage retrieval_index, second half: the tokens of each clip of a corpus and of its caption, for whoever retrieves it; and
the conditions that a model makes of its clips' neighbours."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from foleylib import paths
from foleylib.datasets import features, retrieval
from foleylib.datasets import manifest as manifests
from foleylib.datasets import tokens as stores
from foleylib.networks import clap as claps
from foleylib.networks import tokens
from foleylib.params.retrieval import Read
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, progress, weights_sha256, write_json


def make(corpus: str, cfg: Params) -> Path:
    """Write data/tokens/`corpus`: a store (`datasets.tokens`) "audio" of the clips, and one "text" of their first captions,
    as far as `retrieval.tokens` has both. Nothing is done where the folder was made from the same."""
    rate, settings, out = cfg.entry("corpora", corpus).rate, cfg.retrieval.tokens, paths.TOKENS / corpus
    manifest = manifests.load(paths.CLIPS / corpus)
    said = [own[0] for own in manifests.captions(paths.CLIPS / corpus, manifest)]
    key = {"corpus": manifests.digest(manifest), "order": fingerprint(list(manifest.id)), "captions": fingerprint(said)}
    files = [paths.FOUNDATION / "clap", *(Path(p) for p in (settings.audiomae, settings.t5) if p)]
    key |= {"models": [weights_sha256(file) for file in files], "settings": settings.model_dump(mode="json")}
    if read_key(corpus) == key:
        return out
    shutil.rmtree(out, ignore_errors=True)
    device, size = pick_device(cfg.device), cfg.features.batch_size
    clap = claps.load(paths.FOUNDATION / "clap")
    count = -(-len(manifest) // size)
    if (of_audio := tokens.of_audio(settings, clap)) is not None:
        of_audio = of_audio.to(device)
        waves = manifests.iter_waves(paths.CLIPS / corpus, manifest, size)
        made = (of_audio(torch.from_numpy(batch), rate) for batch in waves)
        stores.write(out / "audio", len(manifest), progress(made, desc=f"audio tokens {corpus}", total=count))
    if (of_text := tokens.of_text(settings, clap)) is not None:
        of_text = of_text.to(device)
        made = (of_text(said[start : start + size]) for start in range(0, len(said), size))
        stores.write(out / "text", len(said), progress(made, desc=f"text tokens {corpus}", total=count))
    write_json(out / "tokens.json", key)
    return out


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


def neighbours(corpus: str, protocol: str) -> retrieval.Neighbours:
    """The neighbours of a corpus' clips under a protocol."""
    return retrieval.Neighbours(paths.RETRIEVAL / corpus, manifests.load(paths.CLIPS / corpus), protocol)


def of_split(corpus: str, split: str, reads: Read, cfg: Params) -> dict[str, stores.Neighbours]:
    """What a model reads of the neighbours of a split's clips, found for the first caption of each."""
    index, _ = features.load(paths.FEATURES / corpus, split)
    found = neighbours(corpus, cfg.retrieval.protocol)(list(index.id), reads.k)
    return conditions(corpus, reads, found.rows)


def keys(corpus: str, cfg: Params) -> list:
    """What changes with all that models of a corpus read."""
    return [cfg.retrieval.protocol, retrieval.read_key(paths.RETRIEVAL / corpus), read_key(corpus)]


def conditions(corpus: str, reads: Read, rows: np.ndarray) -> dict[str, stores.Neighbours]:
    """The conditions of clips with the neighbours `rows` [shape=(N, K), -1 for none], by name."""
    return stores.of_neighbours(rows, **stores_of(corpus, reads))
