"""Stage retrieval_index, second half: the tokens of each clip of a corpus and of its caption, for whoever retrieves it."""

import shutil
from pathlib import Path

import torch

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets import tokens as stores
from foleylib.evaluation.texts import tell_of_cut
from foleylib.networks import clap as claps
from foleylib.networks import tokens
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, progress, weights_sha256, write_json
from foleylib.stages.neighbours import read_key


def make(corpus: str, cfg: Params) -> Path:
    """Write data/tokens/`corpus`: a store (`datasets.tokens`) "audio" of the clips, and one "text" of their first captions,
    as far as `retrieval.tokens` has both. Nothing is done where the folder was made from the same."""
    rate, out = cfg.entry("corpora", corpus).rate, paths.TOKENS / corpus
    settings = tokens.placed(cfg.retrieval.tokens, paths.ROOT)
    tokens.check_files(settings)  # before their hashes are asked for
    manifest = manifests.load(paths.CLIPS / corpus)
    said = [own[0] for own in manifests.captions(paths.CLIPS / corpus, manifest)]
    key = {"corpus": manifests.digest(manifest), "order": fingerprint(list(manifest.id)), "captions": fingerprint(said)}
    files = [paths.FOUNDATION / "clap", *(Path(p) for p in (settings.audiomae, settings.t5) if p)]
    key |= {
        "models": [weights_sha256(file) for file in files],
        "settings": cfg.retrieval.tokens.model_dump(mode="json"),
    }
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
        tell_of_cut(f"corpus {corpus}, text tokens", of_text.tokenizer, said, of_text.length)
        made = (of_text(said[start : start + size]) for start in range(0, len(said), size))
        stores.write(out / "text", len(said), progress(made, desc=f"text tokens {corpus}", total=count))
    write_json(out / "tokens.json", key)
    return out
