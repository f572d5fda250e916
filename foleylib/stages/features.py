"""Stage features: what is computed once per corpus, posterior moments of the latents and the clips' conditions."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.audio.mel import LogMel, front_end
from foleylib.datasets import manifest as manifests
from foleylib.datasets.features import encode_moments, read_key
from foleylib.datasets.resumable import Resumable
from foleylib.evaluation.texts import tell_of_cut
from foleylib.networks import clap as claps
from foleylib.networks import vae as vaes
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, progress, weights_sha256, write_json

SHARD = 1024  # clips after which the arrays are on disk for good: where a killed run goes on


def make(corpus: str, cfg: Params) -> Path:
    """Compute data/features/`corpus` with the foundation's VAE and CLAP, at the rates and front ends of the corpus."""
    settings = cfg.entry("corpora", corpus)
    models = fingerprint(*(weights_sha256(paths.FOUNDATION / part) for part in ("clap", "vae")))
    out = paths.FEATURES / corpus
    compute(
        paths.CLIPS / corpus,
        out,
        autoencoder=vaes.load(paths.FOUNDATION / "vae"),
        clap=claps.load(paths.FOUNDATION / "clap"),
        log_mels=[front_end(rate, settings.padding) for rate in settings.rates or [settings.rate]],
        rate=settings.rate,
        models=models,
        batch_size=cfg.features.batch_size,
        device=cfg.device,
    )
    return out


def compute(
    corpus: Path,
    out: Path,
    *,
    autoencoder,
    clap,
    log_mels: list[LogMel],
    rate: int,
    models: str,
    batch_size: int,
    device: str = "auto",
) -> None:
    """Write `out`: moments.npy [N, 2C, T, F], audio.npy and text.npy [N, D] of unit norm, index.parquet, features.json.

    `corpus` is a folder written by `corpora.prepare`, of clips at `rate` Hz; `models`, the SHA-256 of the weights behind
    the features, makes with the clips, their prompts and the front ends the key in features.json. Nothing is done where
    `out` has that key. Where a clip has several captions, captions.npy [N, K, D] and caption_count.npy [N] have all of
    them, and the key their fingerprint. An array of another name is a condition of the U-Net, a field of
    `diffusion.condition.Condition`.

    With front ends of several rates, to which the clips are resampled, the rows of a clip, one a rate, follow each other,
    and rate.npy [N] has their rates in Hz.

    All of it is written in a folder beside `out` and renamed at the end. A killed run leaves that folder, and the next one
    of the same inputs goes on at the last shard of `SHARD` clips, to the same bytes.
    """
    manifest = manifests.load(corpus)
    said = manifests.captions(corpus, manifest)
    key, device = _key(manifest, said, log_mels, models), pick_device(device)
    scratch = out.with_name(f".{out.name}.part")
    if read_key(out) == key:
        shutil.rmtree(scratch, ignore_errors=True)
        return
    part = Resumable(scratch, key | {"batch_size": batch_size, "device": device.type})

    clap = clap.to(device).eval()
    tell_of_cut(f"corpus {corpus.name}", clap.tokenizer, [*manifest.prompt, *(text for own in said for text in own)])
    _of_texts(manifest.prompt.to_list(), said, part, clap, len(log_mels))
    log_mels = [log_mel.to(device) for log_mel in log_mels]
    encoders = (autoencoder.to(device).eval(), clap, log_mels)
    _of_sounds(corpus, manifest, part, encoders, rate, batch_size)

    folder, rates = scratch / "features", [log_mel.config.rate for log_mel in log_mels]
    if len(rates) > 1:
        np.save(folder / "rate.npy", np.tile(np.array(rates, dtype=np.float32), len(manifest)))
    index = manifest[["id", "split", "label", "target", "prompt"]]
    index.loc[index.index.repeat(len(rates))].to_parquet(folder / "index.parquet", index=False)
    write_json(folder / "features.json", key)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(folder, out)
    part.forget()


def _key(manifest, said: list[list[str]], log_mels: list[LogMel], models: str) -> dict:
    """What features.json holds, all that they depend on."""
    prompts = fingerprint(manifest[["id", "prompt"]].to_dict("list"))
    key = {"corpus": manifests.digest(manifest), "prompts": prompts}
    key |= {"models": models, "mel": asdict(log_mels[0].config)}
    if max(map(len, said)) > 1:
        key["captions"] = fingerprint(said)
    if len(log_mels) > 1:
        key["further"] = [asdict(log_mel.config) for log_mel in log_mels[1:]]
    return key


def _of_texts(prompts: list[str], said: list[list[str]], part: Resumable, clap, repeats: int) -> None:
    """Write E_text of the prompts (text.npy) and, where clips have several captions, of all captions (captions.npy,
    caption_count.npy), each row `repeats` times.

    Each different text is embedded once, in batches of `clap.text_batches`, into a table on disk; rows are copied from it.
    """
    counts, n = np.array([len(own) for own in said]), len(prompts)
    several = counts.max() > 1
    codes, texts = pd.factorize(np.array(prompts + [t for own in said if several for t in own], dtype=object))
    position = _embedded(texts, part, clap)[codes]
    if part.done("copied") < n:
        first = n + np.cumsum(counts) - counts  # number of each clip's first caption
        for start in range(0, n, SHARD):
            rows = np.arange(start, min(start + SHARD, n))
            values = {"text": part.read("texts", position[rows])}
            if several:
                listed = np.arange(counts.max()) < counts[rows, None]
                numbers = (first[rows, None] + np.arange(counts.max()))[listed]
                values["captions"] = np.zeros((*listed.shape, clap.dim), dtype=np.float32)
                values["captions"][listed] = part.read("texts", position[numbers])
                values["caption_count"] = counts[rows]
            for name, own in values.items():
                part.write(f"features/{name}", start * repeats, np.repeat(own, repeats, axis=0), n * repeats)
        part.commit(copied=n)


def _embedded(texts, part: Resumable, clap) -> np.ndarray:
    """Embed texts into the rows of texts.npy, which lie in the order of the batches; returns the row of each text."""
    texts = list(texts)
    batches, start, last = clap.text_batches(texts), 0, part.done("texts")
    for number, (rows, length) in enumerate(progress(batches, desc="features of texts", disable=len(batches) < 8), 1):
        if number > last:
            with torch.no_grad():
                values = clap.text([texts[row] for row in rows], length=length)
            part.write("texts", start, values.cpu().numpy(), len(texts))
        start += len(rows)
        if number > last and (number % 16 == 0 or number == len(batches)):
            part.commit(texts=number)
    return np.argsort(np.concatenate([rows for rows, _ in batches]))


def _of_sounds(corpus: Path, manifest, part: Resumable, encoders: tuple, rate: int, batch_size: int) -> None:
    """Write moments.npy and audio.npy of the clips, batch by batch; the rates of a clip follow each other."""
    autoencoder, clap, log_mels = encoders
    n, start, repeats = len(manifest), part.done("clips"), len(log_mels)
    waves = manifests.iter_waves(corpus, manifest.iloc[start:], batch_size)
    bar = {"desc": f"features {corpus.name}", "total": -(-n // batch_size), "initial": start // batch_size}
    for number, batch in enumerate(progress(waves, **bar), start // batch_size + 1):
        batch = torch.from_numpy(batch).to(autoencoder.device)
        at_rates = [at_rate(batch, rate, log_mel.config.rate).to(autoencoder.device) for log_mel in log_mels]
        moments = [encode_moments(autoencoder, log_mel(own)) for log_mel, own in zip(log_mels, at_rates)]
        values = {"moments": torch.stack(moments, dim=1).flatten(0, 1)}
        values |= {"audio": clap.embed_audio(batch, rate).repeat_interleave(repeats, dim=0)}
        for name, own in values.items():
            part.write(f"features/{name}", start * repeats, own.cpu().numpy(), n * repeats)
        start += len(batch)
        if start == n or number % max(1, SHARD // batch_size) == 0:
            part.commit(clips=start)
