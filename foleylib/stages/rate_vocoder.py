"""Stage rate_vocoder: a HiFi-GAN at a further sampling rate, and what it leaves of clips beside Griffin-Lim."""

import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.audio.mel import FRONT_ENDS, LogMel, front_end
from foleylib.datasets import manifest as manifests
from foleylib.evaluation.bandwidth import spectral_rolloff
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder
from foleylib.params.settings import Params
from foleylib.params.src_gaudio import TrainedVocoder
from foleylib.runtime import fingerprint, weights_sha256, write_csv
from foleylib.stages import bundle
from foleylib.stages.vocoder import fit_vocoder, new_generator
from foleylib.train import Job

SHOWN = 28  # test clips that are compared


def section(name: str, cfg: Params) -> TrainedVocoder:
    """The settings of a HiFi-GAN of `src_gaudio.vocoders`."""
    if name not in cfg.src_gaudio.vocoders:
        raise ValueError(f"src_gaudio.vocoders has no '{name}'; it has: {', '.join(cfg.src_gaudio.vocoders)}")
    return cfg.src_gaudio.vocoders[name].section(cfg.foundation.vocoder, cfg.corpus_of("foundation").rate)


def make(name: str, cfg: Params) -> pd.DataFrame:
    """Make models/vocoders/vocoder_`name` from its source; returns the training history."""
    if section(name, cfg).source == "foundation":
        shutil.rmtree(paths.vocoder_of(name), ignore_errors=True)
        shutil.copytree(paths.FOUNDATION / "vocoder", paths.vocoder_of(name))
        return bundle.history_of(paths.vocoder_of(name))
    corpus, what = cfg.corpora[cfg.src_gaudio.corpus], f"src_gaudio.vocoders.{name}"
    return bundle.make(what, section(name, cfg), corpus, paths.vocoder_of(name), partial(train, name, cfg))


def train(name: str, cfg: Params, out: Path) -> None:
    """Train it on the clips of `src_gaudio.corpus`, resampled to its rate."""
    begin, settings, corpus = time.perf_counter(), section(name, cfg), cfg.src_gaudio.corpus
    log_mel, vae = _front_end(settings, cfg), vaes.load(paths.FOUNDATION / "vae")
    known = {split: Resampled(settings.rate, corpus, split) for split in ("train", "val")}
    held = known["val"].some(96) if len(known["val"]) else None
    made_from = (
        weights_sha256(paths.FOUNDATION / "vae"),
        weights_sha256(paths.FOUNDATION / "vocoder"),
        manifests.digest(manifests.load(paths.CLIPS / corpus)),
    )
    key = fingerprint(settings, cfg.corpora[corpus], cfg.seed, cfg.precision, *made_from)
    job = Job(cfg.seed, paths.SCRATCH / f"vocoder-{name}" / key, cfg.device, cfg.precision)
    start = started(settings, vocoder.load(paths.FOUNDATION / "vocoder"), cfg.seed)
    model, history = fit_vocoder(settings, known["train"], log_mel, vae, job, initial=start, held_out=held)
    vocoder.save(model, out)
    seconds, begun = time.perf_counter() - begin, bundle.provenance_of(paths.FOUNDATION / "vocoder")
    bundle.write_provenance(out, settings, corpus, cfg, seconds, history, begun)
    job.forget()


def started(settings: TrainedVocoder, foundation, seed: int):
    """An untrained generator of these settings with all weights of the foundation's whose shapes fit it, such as those of its
    residual blocks; the layers of other strides are new."""
    model = new_generator(settings, FRONT_ENDS[settings.rate], seed)
    own, given = model.state_dict(), foundation.state_dict()
    fitting = {name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape}
    model.load_state_dict(own | fitting)
    return model.train()


class Resampled:
    """The clips of a split as `manifests.Waves`, resampled to `rate` Hz when they are read."""

    def __init__(self, rate: int, corpus: str, split: str):
        manifest = manifests.load(paths.CLIPS / corpus)
        self.manifest, self.rate = manifest[manifest.split == split].reset_index(drop=True), rate
        self.waves = manifests.Waves(paths.CLIPS / corpus, self.manifest)

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, rows) -> torch.Tensor:
        return at_rate(self.waves[rows], int(self.manifest.rate.iloc[0]), self.rate)

    def some(self, limit: int) -> torch.Tensor:
        """Up to `limit` clips, spread over them."""
        return self[self.rows(limit)]

    def rows(self, limit: int) -> np.ndarray:
        """The rows of `some`."""
        return np.linspace(0, len(self) - 1, min(limit, len(self))).astype(int)


def compare(name: str, cfg: Params) -> tuple[dict[str, torch.Tensor], list[str], pd.DataFrame]:
    """Test clips through HiFi-GAN and Griffin-Lim, from their mels and through the VAE.

    Returns
    -------
    The sounds by what was done to them [shape=(N, T)], "Original" first; their labels; and a table of means, a row a way:
    [mel (nepers), stft, rolloff, rolloff_error (kHz)], which is written to results/vocoders/`name`.csv.
    """
    settings = section(name, cfg)
    log_mel, vae = _front_end(settings, cfg), vaes.load(paths.FOUNDATION / "vae")
    clips = Resampled(settings.rate, cfg.src_gaudio.corpus, "test")
    rows = clips.rows(SHOWN)
    waves, labels = clips[rows], list(clips.manifest.label.iloc[rows])
    networks = {"HiFi-GAN": vocoder.load(paths.vocoder_of(name)), "Griffin-Lim": vocoder.GriffinLim(log_mel.config)}
    sounds, table = {"Original": waves}, {}
    real = spectral_rolloff(waves.numpy(), settings.rate) / 1000
    for codec, way in ((None, ""), (vae, ", through the VAE")):
        for kind, network in networks.items():
            made = vocoder.resynthesise(network, waves, log_mel, vae=codec).clamp(-1, 1)
            own = spectral_rolloff(made.numpy(), settings.rate) / 1000
            far = {key: float(values.mean()) for key, values in vocoder.errors(made, waves, log_mel).items()}
            table[kind + way] = far | {"rolloff": own.mean(), "rolloff_error": np.abs(own - real).mean()}
            sounds[kind + way] = made
    table = pd.DataFrame.from_dict(table, orient="index").rename_axis("way").assign(rolloff_of_real=real.mean())
    write_csv(table.reset_index().assign(rate=settings.rate), paths.RESULTS / "vocoders" / f"{name}.csv")
    return sounds, labels, table


def _front_end(settings: TrainedVocoder, cfg: Params) -> LogMel:
    return front_end(settings.rate, cfg.corpora[cfg.src_gaudio.corpus].padding)
