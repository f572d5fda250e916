"""Stage vae: the autoencoder between log-mels and latents, and its latent scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.io import resample
from foleylib.audio.mel import LogMel, front_end
from foleylib.datasets import manifest as manifests
from foleylib.datasets.features import encode_moments, sample_latents
from foleylib.networks import vae
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, step_generator
from foleylib.stages import foundation
from foleylib.train import Job, Terms, Trainable, fit

SCALED_STD = (0.5, 2.0)  # of published latents, which must be near 1


def make(cfg: Params) -> pd.DataFrame:
    """Make models/foundation/vae from its source; returns the training history.

    A published VAE whose scaled latents are far from unit variance on this corpus is refused: its latent scale is
    another's, or the clips are not what it was trained on.
    """
    history = foundation.make("vae", cfg, train)
    _, held = foundation.held_out(cfg, 64)
    if cfg.foundation.published and held is not None:
        check_scale(vae.load(paths.FOUNDATION / "vae"), held, cfg)
    return history


@torch.no_grad()
def check_scale(model, waves: torch.Tensor, cfg: Params) -> None:
    """Refuse a VAE by whose latent scale the latents of held-out clips [shape=(N, T)] have another std than about 1."""
    corpus, scale, device = cfg.corpus_of("foundation"), model.config.scaling_factor, pick_device(cfg.device)
    model, log_mel = model.to(device), front_end(corpus.rate, corpus.padding).to(device)
    moments = torch.cat([encode_moments(model, log_mel(part.to(device))).cpu() for part in waves.split(8)])
    std = float(sample_latents(moments, scale, step_generator("cpu", cfg.seed)).double().std())
    if not SCALED_STD[0] <= std <= SCALED_STD[1]:
        raise ValueError(
            f"models/foundation/vae: with its scaling_factor of {scale:.5f} the latents of {len(waves)} held-out clips of "
            f"'{cfg.foundation.corpus}' have a standard deviation of {std:.3f}, not between {SCALED_STD[0]} and "
            f"{SCALED_STD[1]}; correct scaling_factor in the published VAE's config.json (about {scale / std:.3g} here), or "
            "look at the level of the clips"
        )


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Train the VAE; its latent scale is measured once, on training clips, and stored in its config.

    With a frozen encoder the scale stays as it was: the models of its latents were trained at that scale.
    """
    corpus, settings = cfg.corpus_of("foundation"), cfg.foundation.vae
    job = foundation.job(cfg, "vae", *([] if settings.others is None else [cfg.corpora[settings.others.corpus]]))
    _, waves = foundation.clips(cfg, "train")
    _, held = foundation.held_out(cfg)
    log_mel = front_end(corpus.rate, corpus.padding)
    sets = [Mels(waves, log_mel), *_other_rates(cfg, "train")]
    held_out = {} if held is None else {"": log_mel(held)}
    held_out |= {f"_{own.log_mel.config.rate}": own.first(64) for own in _other_rates(cfg, "val") if len(own)}
    model, history = fit_vae(settings, sets, job, start=foundation.initial("vae", cfg, vae.load), held_out=held_out)

    if not settings.frozen_encoder:
        log_mel = log_mel.cpu()
        rows = np.linspace(0, len(waves) - 1, min(512, len(waves))).astype(int)
        parts = np.array_split(rows, -(-len(rows) // 32))
        moments = torch.cat([encode_moments(model, log_mel(waves[part])) for part in parts])
        model.register_to_config(scaling_factor=measure_scale(moments, step_generator("cpu", cfg.seed)))
    model.save_pretrained(out)
    job.forget()
    return history


@dataclass
class Mels:
    """Clips and the front end that makes their spectrograms, after resampling where they are stored at another rate."""

    waves: manifests.Waves | torch.Tensor  # read by index [shape=(B, T)]
    log_mel: LogMel
    rate: int | None = None  # of the waves, where it is not the front end's

    def __len__(self) -> int:
        return len(self.waves)

    def load(self, rows) -> torch.Tensor:
        """Waves [shape=(B, T)] at the rate of the front end."""
        waves, rate = self.waves[rows], self.log_mel.config.rate
        if self.rate in (None, rate):
            return waves
        return torch.from_numpy(np.stack([resample(wave, self.rate, rate) for wave in waves.numpy()]))

    def first(self, count: int) -> torch.Tensor:
        """Spectrograms of up to `count` clips, spread over all [shape=(N, 1, T, n_mels)]."""
        rows = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)
        return self.log_mel(self.load(rows))


def _other_rates(cfg: Params, split: str) -> list[Mels]:
    """The clips of a split of `foundation.vae.others`, once for each of its rates."""
    others = cfg.foundation.vae.others
    if others is None:
        return []
    folder, corpus = paths.CLIPS / others.corpus, cfg.corpora[others.corpus]
    manifest = manifests.load(folder)
    waves = manifests.Waves(folder, manifest[manifest.split == split])
    return [Mels(waves, front_end(rate, corpus.padding), corpus.rate) for rate in others.rates]


def fit_vae(settings, sets: list[Mels], job: Job, *, start=None, held_out: dict[str, torch.Tensor] | None = None):
    """Train a VAE on the clips of all sets; returns (model, history).

    Parameters
    ----------
    settings : section `foundation.vae`.
    sets : their spectrograms have one shape, whatever the rate.
    start : a VAE that is trained further (with `settings.frozen_encoder` its decoder alone, so that the latents stay as
        they are); without it, one is drawn anew.
    held_out : ending of the name -> mels [shape=(N, 1, T, n_mels)] whose reconstruction error is logged while training.
    """
    model = start
    if model is None:
        model = vae.build(settings.channels, settings.layers, settings.latent_channels, settings.groups, seed=job.seed)
        torch.nn.init.constant_(model.decoder.conv_out.bias, float(sets[0].first(64).mean()))
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(not settings.frozen_encoder)
    for own in sets:
        own.log_mel.to(pick_device(job.device))
    ends = np.cumsum([len(own) for own in sets])
    starts = [0, *ends[:-1]]

    def load(indices: np.ndarray) -> dict:
        """Waves of each set by its number, of all sets' clips counted through."""
        group = np.searchsorted(ends, indices, side="right")
        return {str(i): sets[i].load(indices[group == i] - starts[i]) for i in np.unique(group)}

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        mels = torch.cat([own.log_mel(batch[str(i)]) for i, own in enumerate(sets) if str(i) in batch])
        return vae_terms(module, mels, generator)

    def validate() -> dict:
        errors = {end: reconstruction_error(model, mels) for end, mels in held_out.items()}
        return {f"{name}{end}": value for end, error in errors.items() for name, value in error.items()}

    trainable = Trainable(model, loss, settings.weights)
    check = validate if held_out else None
    history = fit({"vae": trainable}, load, int(ends[-1]), settings.train, job, validate=check)
    return model.cpu(), history


def vae_terms(model, mels: torch.Tensor, generator: torch.Generator | None) -> Terms:
    """Reconstruction (L1, L2, per mel bin) and KL divergence to N(0, 1) (per latent element).

    Parameters
    ----------
    mels : natural-log mel spectrograms [shape=(B, 1, T, n_mels)].
    generator : draws the posterior sample.
    """
    posterior = model.encode(mels).latent_dist
    decoded = model.decode(posterior.sample(generator)).sample
    return {
        "l1": (decoded - mels).abs().mean(),
        "l2": (decoded - mels).square().mean(),
        "kl": posterior.kl().mean() / posterior.mean[0].numel(),
    }


@torch.no_grad()
def reconstruction_error(model, mels: torch.Tensor, batch_size: int = 32) -> dict[str, float]:
    """Mean absolute error of decoded posterior means, in nepers of mel magnitude."""
    total = 0.0
    for part in mels.split(batch_size):
        part = part.to(model.device)
        decoded = vae.reconstruct(model, part)
        total += float((decoded - part).abs().mean()) * len(part)
    return {"l1": total / len(mels)}


def measure_scale(moments: torch.Tensor, generator: torch.Generator) -> float:
    """The latent scale 1 / std(z) of AudioLDM, measured once over the given clips and stored with the VAE."""
    return 1.0 / float(sample_latents(moments, 1.0, generator).double().std())
