"""Seconds per training step of the LDM: cached features against computing them on the fly, and the parts of the step;
what drawing the clips of a step from a large corpus costs.

./run python -m benchmarks.training_step [--published audioldm-s-full]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import models, timing
from foleylib.audio.io import fit_length
from foleylib.corpora.synth import render as synth
from foleylib.datasets.features import Latents, encode_moments
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.params.base import Train
from foleylib.params.settings import Params
from foleylib.runtime import step_generator
from foleylib.stages.ldm import alphas_bar
from foleylib.train import batch_indices

ANEW, KEPT = "indices, permutation anew", "indices, permutation kept"


class Step:
    """A step of `train.fit` in parts that can be timed: loss; gradients; clipping, AdamW and moving average."""

    def __init__(self, parts: models.Parts, settings: Train, precision: str):
        from diffusers.training_utils import EMAModel

        on_cuda = parts.device.type == "cuda"
        self.unet, self.settings, self.precision, self.count = parts.unet.train(), settings, precision, 0
        self.weights = list(parts.unet.parameters())
        options = {"betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
        self.optimizer = torch.optim.AdamW(self.weights, settings.lr, fused=True, **options)
        self.ema = None
        if settings.ema_decay:
            self.ema = EMAModel(self.weights, decay=settings.ema_decay, update_after_step=-1, foreach=on_cuda)

    def autocast(self):
        return torch.autocast(self.unet.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self, loss: DiffusionLoss, batch: dict) -> torch.Tensor:
        """The sum of the terms."""
        generator = step_generator(self.unet.device, 0, self.count, 0)
        self.count += 1
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            return sum(loss(self.unet, batch, generator).values())

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.step(self.weights)


def loss_of(parts: models.Parts, cfg: Params, section, latent_clap=None) -> DiffusionLoss:
    """The loss that a section (`foundation.ldm` or `finetune`) sets."""
    nothing, dropout = models.unconditional(parts.dim), section.condition_dropout
    return DiffusionLoss(alphas_bar(cfg), nothing, models.SCALE, dropout, section.snr_gamma, latent_clap)


def clips(rate: int, seconds: float, n: int) -> torch.Tensor:
    """Synthetic clips [shape=(n, T)]: one of each class, then these again."""
    given = {
        "seed": 0,
        "index": 0,
        "rate": rate,
        "seconds": min(seconds, 5.0),
    }  # synthetic sounds are short: they start again
    waves = [fit_length(synth.render(label, **given)[0], round(seconds * rate)) for label in synth.FOLEY[:n]]
    return torch.from_numpy(np.stack([waves[i % len(waves)] for i in range(n)]))


def cached(parts: models.Parts, folder: Path, n: int) -> Latents:
    """A cache of `n` clips on disk, read as `features.load` reads it: memory-mapped."""
    channels, frames, bands = parts.latent_shape
    moments = np.random.default_rng(0).standard_normal((n, 2 * channels, frames, bands), np.float32)
    arrays = {}
    for name, array in {"moments": moments, "audio": models.embeddings(n, parts.dim).numpy()}.items():
        np.save(folder / f"{name}.npy", array)
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return Latents(arrays["moments"], {"embedding": arrays["audio"]}, models.SCALE, arrays["audio"])


def step_cases(parts: models.Parts, step: Step, loss: DiffusionLoss, data: Latents, batch_size: int) -> dict:
    """The two ways to a step; the waves of the first lie in memory at both models' rates: no reading, no resampling."""
    rate, seconds = parts.log_mel.config.rate, parts.samples / parts.log_mel.config.rate
    waves, clap_waves = clips(rate, seconds, batch_size), clips(parts.clap.rate, seconds, batch_size)

    def timed(batch: dict, clock: timing.Clock) -> None:
        with clock.part("unet"):
            step.forward(loss, batch).backward()
        with clock.part("optimiser"):
            step.update()

    def on_the_fly(clock: timing.Clock) -> None:
        with torch.no_grad(), step.autocast():
            with clock.part("encode"):
                moments = encode_moments(parts.vae, parts.log_mel(waves.to(parts.device))).float()
            with clock.part("clap"):
                embedding = parts.clap.embed_audio(clap_waves.to(parts.device)).float()
        timed({"moments": moments, "embedding": embedding}, clock)

    def from_cache(clock: timing.Clock) -> None:
        with clock.part("load"):
            indices = batch_indices(0, step.count, len(data), batch_size)
            batch = {k: v.to(parts.device) for k, v in data[indices].items()}
        timed(batch, clock)

    return {"on the fly": on_the_fly, "cached": from_cache}


def permuted_anew(seed: int, step: int, n: int, batch: int) -> np.ndarray:
    """`train.batch_indices` as it was first: the permutation of the epoch is computed at every step."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = {e: np.random.default_rng([seed, e]).permutation(n) for e in np.unique(positions // n)}
    return np.array([epochs[p // n][p % n] for p in positions])


def index_cases(n: int, batch_size: int) -> dict:
    """Drawing a batch of `n` clips; the warm-up of the second case is the step that computes the permutation."""

    def timed(draw):
        def run(clock: timing.Clock) -> None:
            with clock.part("indices"):
                draw(0, clock.round, n, batch_size)

        return run

    return {ANEW: timed(permuted_anew), KEPT: timed(batch_indices)}


def measure(parts: models.Parts, cfg: Params, arguments: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of the steps, then of drawing indices."""
    section = cfg.foundation.ldm
    batch_size = arguments.batch_size or (8 if arguments.published else section.train.batch_size)
    step, loss = Step(parts, section.train, arguments.precision), loss_of(parts, cfg, section)
    with tempfile.TemporaryDirectory() as folder:
        data = cached(parts, Path(folder), max(batch_size, arguments.cache))
        steps = timing.interleaved(step_cases(parts, step, loss, data, batch_size), arguments.repeats)
    indices = timing.interleaved(index_cases(arguments.clips, batch_size), arguments.repeats)
    tables = [timing.rows(steps, baseline="on the fly", items=1, unit="step")]
    tables.append(timing.rows(indices, baseline=ANEW, items=1, unit="batch"))
    return pd.concat(tables, ignore_index=True), {"batch_size": batch_size}


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--batch-size", type=int, help="foundation.ldm.train.batch_size, or 8 with --published")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--cache", type=int, default=256, help="clips in the cache")
    parser.add_argument("--clips", type=int, default=2_000_000, help="clips that the indices of a batch are drawn from")
    return models.run("training_step", parser.parse_args(argv), measure, with_clap=True)


if __name__ == "__main__":
    main()
