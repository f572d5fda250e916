"""Small trainings by the functions of the stages, for one process or several: torchrun calls this file with the folder
for its results, a file of settings, and the names of those to run."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from foleylib.audio.mel import front_end
from foleylib.datasets.features import Latents
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import unet as unets
from foleylib.networks import vae as vaes
from foleylib.params import settings
from foleylib.params.base import Train
from foleylib.stages import clap, detector, judge, latent_clap, ldm, vae, vocoder
from foleylib.train import Job, Terms, Trainable, fit, gathered

CLIPS, SAMPLES, RATE = 12, 5120, 16000
STEPS = Train(
    steps=4, batch_size=4, lr=1e-3, warmup=0, validate_every=4, checkpoint_every=2, ema_decay=0.5
).model_dump()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WAVES = 0.1 * noise(CLIPS, SAMPLES)


def job(scratch: Path, name: str) -> Job:
    return Job(0, scratch / name, device="cpu")


def fit_vae(cfg, scratch: Path) -> nn.Module:
    section, log_mel = cfg.foundation.vae.changed(train=STEPS), front_end(RATE, "dataset")
    held = {"": log_mel(WAVES[:2])}
    return vae.fit_vae(section, [vae.Mels(WAVES, log_mel)], job(scratch, "vae"), held_out=held)[0]


def fit_clap(cfg, scratch: Path) -> nn.Module:
    section = cfg.foundation.clap.changed(train=STEPS)
    texts = [f"sound {i}" for i in range(CLIPS)]
    frame = pd.DataFrame({"captions": [[t] for t in texts], "prompt": ["dog", "rain"] * 6, "target": [0, 1] * 6})
    return clap.fit_clap(section, WAVES, frame, job(scratch, "clap"), rate=RATE)[0]


def fit_vocoder(cfg, scratch: Path) -> nn.Module:
    section = cfg.foundation.vocoder.changed(train=STEPS, segment=1600, adversarial_from=2)
    parts = cfg.foundation.vae
    autoencoder = vaes.build(parts.channels, parts.layers, parts.latent_channels, parts.groups, seed=0)
    return vocoder.fit_vocoder(section, WAVES, front_end(RATE, "dataset"), autoencoder, job(scratch, "vocoder"))[0]


def fit_judge(cfg, scratch: Path) -> nn.Module:
    known = torch.linspace(-1, 1, CLIPS)[:, None]
    clips = judge.Clips(WAVES, torch.arange(CLIPS) % 2, known)
    names = {"labels": ["low", "high"], "parameters": {"pitch": (False, 0.0, 1.0)}}
    return judge.fit_judge(cfg.judge.changed(train=STEPS), clips, job(scratch, "judge"), **names, rate=RATE)[0]


def fit_detector(cfg, scratch: Path) -> nn.Module:
    sounds = [[{"label": "low" if i % 2 else "high", "onset": 0.0, "offset": 0.2}] for i in range(CLIPS)]
    scenes = detector.Scenes(WAVES, sounds)
    how = {"labels": ["low", "high"], "rate": RATE, "held_out": scenes}
    return detector.fit_detector(cfg.detector.changed(train=STEPS), scenes, job(scratch, "detector"), **how)[0]


def fit_latent_clap(cfg, scratch: Path) -> nn.Module:
    data = Latents(noise(CLIPS, 16, 32, 16).numpy(), {"embedding": noise(CLIPS, 6).numpy()}, 0.5)
    section = cfg.latent_clap.changed(train=STEPS, dropout=0.2)
    return latent_clap.fit_encoder(section, data, job(scratch, "latent_clap"), val=data)[0]


def fit_ldm(cfg, scratch: Path) -> nn.Module:
    dim, channels = cfg.foundation.clap.dim, cfg.foundation.vae.latent_channels
    unit = nn.functional.normalize(noise(CLIPS, dim)).numpy()
    data = Latents(noise(CLIPS, 2 * channels, 16, 16).numpy(), {"embedding": unit}, 0.5)
    unet = unets.new(cfg.foundation.ldm, dim=dim, latent_channels=channels, seed=0)
    loss = DiffusionLoss(ldm.alphas_bar(cfg), Condition(torch.zeros(1, dim)), 0.5, condition_dropout=0.1)
    ldm.fit_unet(unet, data, loss, Train(**STEPS), job(scratch, "ldm"), held_out=data, best=True)
    return unet


class Embeddings(nn.Module):
    """The two towers of a CLAP without batch norms: all that a process learns, it learns from the pairs."""

    def __init__(self):
        super().__init__()
        self.audio_tower, self.words, self.model = nn.Linear(8, 4), nn.Embedding(CLIPS, 4), nn.Module()
        self.model.logit_scale_a, self.model.logit_scale_t = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))

    def audio(self, waves: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.audio_tower(waves), dim=1)

    def text(self, texts: list[str]) -> torch.Tensor:
        return nn.functional.normalize(self.words(torch.tensor([int(text) for text in texts])), dim=1)


def fit_pairs(cfg, scratch: Path) -> nn.Module:
    """The contrastive loss of `clap` on clips and texts with some of the same class."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Embeddings()

    def load(indices: np.ndarray) -> dict:
        return {"waves": WAVES[indices, :8] * 10, "texts": [str(i) for i in indices], "ids": torch.from_numpy(indices)}

    def loss(module, batch: dict, generator) -> Terms:
        ids = gathered(batch["ids"])
        same = ids[:, None] % 6 == ids[None, :] % 6
        return clap.contrastive_terms(module, batch["waves"], batch["texts"], same)

    trainable = Trainable(model, loss, {"contrastive": 1.0, "uniformity": 0.5})
    fit({"pairs": trainable}, load, CLIPS, Train(**STEPS), job(scratch, "pairs"))
    return model


FITS = {name.removeprefix("fit_"): call for name, call in list(globals().items()) if name.startswith("fit_")}

if __name__ == "__main__":
    out, cfg, names = Path(sys.argv[1]), settings.load(Path(sys.argv[2])), sys.argv[3:]
    torch.set_num_threads(1)
    for name in names:
        model = FITS[name](cfg, out / "scratch")
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else "one"
        torch.save(model.state_dict(), out / f"{name}-{rank}.pt")
