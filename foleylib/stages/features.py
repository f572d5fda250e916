"""Stage features: what is computed once per corpus, posterior moments of the latents and the clips' conditions."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.audio.mel import LogMel, front_end
from foleylib.datasets import manifest as manifests
from foleylib.datasets.features import encode_moments, read_key
from foleylib.networks import clap as claps
from foleylib.networks import vae as vaes
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, progress, weights_sha256, write_json


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
    """
    manifest = manifests.load(corpus)
    said = manifests.captions(corpus, manifest)
    key = _key(manifest, said, log_mels, models)
    if read_key(out) == key:
        return
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)

    device, rates = pick_device(device), [log_mel.config.rate for log_mel in log_mels]
    clap = clap.to(device).eval()
    texts = {"text": _embedded(list(manifest.prompt), clap)} | _all_captions(said, clap)
    for name, rows in texts.items():
        np.save(part / f"{name}.npy", np.repeat(rows, len(rates), axis=0))
    if len(rates) > 1:
        np.save(part / "rate.npy", np.tile(np.array(rates, dtype=np.float32), len(manifest)))

    waves = manifests.iter_waves(corpus, manifest, batch_size)
    batches = progress(waves, desc=f"features {corpus.name}", total=-(-len(manifest) // batch_size))
    log_mels = [log_mel.to(device) for log_mel in log_mels]
    _of_sounds(batches, len(manifest), part, autoencoder.to(device).eval(), clap, log_mels, rate)

    index = manifest[["id", "split", "label", "target", "prompt"]]
    index.loc[index.index.repeat(len(rates))].to_parquet(part / "index.parquet", index=False)
    write_json(part / "features.json", key)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


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


def _all_captions(said: list[list[str]], clap) -> dict[str, np.ndarray]:
    """E_text of every caption of each clip ("captions") and how many these are, where a clip has several."""
    counts = np.array([len(own) for own in said])
    if counts.max() < 2:
        return {}
    captions = np.zeros((len(said), counts.max(), clap.dim), dtype=np.float32)
    captions[np.arange(counts.max()) < counts[:, None]] = _embedded([text for own in said for text in own], clap)
    return {"captions": captions, "caption_count": counts}


def _of_sounds(batches, n: int, folder: Path, autoencoder, clap, log_mels: list[LogMel], rate: int) -> None:
    """Write moments.npy and audio.npy of n clips, batch by batch into arrays on disk; the rates of a clip follow each other."""
    arrays, start, device = {}, 0, autoencoder.device
    for waves in batches:
        waves = torch.from_numpy(waves).to(device)
        at_rates = [at_rate(waves, rate, log_mel.config.rate).to(device) for log_mel in log_mels]
        moments = [encode_moments(autoencoder, log_mel(own)) for log_mel, own in zip(log_mels, at_rates)]
        values = {"moments": torch.stack(moments, dim=1).flatten(0, 1)}
        values |= {"audio": clap.embed_audio(waves, rate).repeat_interleave(len(log_mels), dim=0)}
        for name, value in values.items():
            value = value.cpu().numpy()
            if name not in arrays:
                shape = (n * len(log_mels), *value.shape[1:])
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", value.dtype, shape)
            arrays[name][start : start + len(value)] = value
        start += len(waves) * len(log_mels)
    for array in arrays.values():
        array.flush()


def _embedded(texts: list[str], clap) -> np.ndarray:
    """E_text [shape=(N, D)] of texts, each different one embedded once."""
    different = list(dict.fromkeys(texts))
    rows = dict(zip(different, clap.embed_text(different).cpu().numpy()))
    return np.stack([rows[text] for text in texts])
