"""What work costs on one H100: hours, memory and disk, from FLOPs and from what was measured in results/gpu.

Hours come in three kinds (docs/scaling.md): at the roof (arithmetic); at 30 % of it, but no step faster than one that was
measured (assumed); at the clips a second that were measured in batches of 8 (scaled). Sampling is at what was measured in the
last two.
"""

import json

import pandas as pd

from foleylib import paths
from foleylib.params.base import Train
from foleylib.params.settings import Params

ROOF, SHARE = 790e12, 0.3  # FLOP/s in bf16, and the part of it that is assumed
CLIPS = {  # of the published data sets
    "foley": 5550,
    "broad": 403050,
    "audiocaps": 47470,
    "wide": 41597,
    "esc50": 2000,
    "urbansound8k": 8732,
    "audioset": 42531,
}
# Forward GFLOP of 10.24 s, million parameters; a training step has three times the forward FLOPs.
UNETS = {"S": (103.4, 185.04), "M": (223.6, 415.95), "L": (389.5, 739.14), "SRC": (632.4, 561.10)}
SIZES = {128: "S", 192: "M", 256: "L", 320: "SRC"}  # by the first of its channels
VAE_ENCODER, CLAP_BOTH, AUDIOMAE, VOCODER, LATENT_CLAP = (
    345.4,
    30.7 + 13.3,
    97.1,
    1027.0,
    1.70,
)  # forward GFLOP of a clip
OTHERS = 55.38 + 55.26 + 125.0  # million parameters that a saved pipeline has beside the U-Net
CLAP = 193.91
COLUMNS = ["profile", "stage", "work", "tflop", "roof_h", "assumed_h", "scaled_h", "cpu_h", "memory_gb", "disk_gb"]


def _seconds(name: str, case: str, part: str) -> float:
    table = pd.read_csv(paths.RESULTS / "gpu" / f"{name}.csv").set_index(["case", "part"])
    return float(table.seconds[case, part])


def training() -> dict[str, tuple[float, int]]:
    """Seconds and clips of a measured training step by size of U-Net, from cached features in bf16."""
    steps = {size: (_seconds(f"training_step_audioldm-{size.lower()}-full", "cached", "total"), 8) for size in "SML"}
    return steps | {"SRC": (_seconds("rate_cost_audioldm-s-full", "training", "step"), 8)}


def clip_memory() -> float:
    """GB that a clip more in the batch of a training step of M takes, measured between batches of 8 and of 64."""
    peaks = [
        json.loads((paths.RESULTS / "gpu" / f"{name}_audioldm-m-full.json").read_text())["settings"]["peak_memory"]
        for name in ("training_step", "training_step_batch64")
    ]
    return (peaks[1] - peaks[0]) / (64 - 8) / 1e9


def drawing() -> dict[str, float]:
    """Seconds of a guided step of a clip by size of U-Net, float32, in batches of 8 (SRC-gAudio: 4)."""
    case = "ddim 50 steps, batch 8"
    steps = {size: _seconds(f"sampling_audioldm-{size.lower()}-full", case, "latents") / 8 / 50 for size in "SML"}
    return steps | {"SRC": _seconds("rate_cost_audioldm-s-full", "U-Net, ddim 50 steps", "latents") / 4 / 50}


class Costs:
    """The rows of one profile."""

    def __init__(self, profile: str, cfg: Params):
        self.profile, self.cfg, self.rows = profile, cfg, []
        self.seconds, self.unet = cfg.corpus_of("foundation").seconds, SIZES[cfg.foundation.ldm.channels[0]]
        self.share = self.seconds / 10.24  # of the FLOPs of a clip

    def add(self, stage: str, work: str, **told) -> None:
        self.rows.append({"profile": self.profile, "stage": stage, "work": work} | told)

    def train(self, stage: str, size: str, how: Train, models: int, *, steps: int = 0, kept: bool = True) -> None:
        """A training of `models` U-Nets, of `steps` where they are others; the folders of those `kept` are whole pipelines."""
        (forward, parameters), (seconds, clips) = UNETS[size], training()[size]
        steps, batch = steps or how.steps, how.batch_size
        flop, runs = batch * 3 * forward * self.share * 1e9, steps * how.accumulate * models / 3600
        self.add(
            stage,
            f"{models} x {steps:,} steps of {batch * how.accumulate}, {size}",
            tflop=flop * runs * 3600 / 1e12,
            roof_h=runs * flop / ROOF,
            assumed_h=runs * max(seconds, flop / ROOF / SHARE),
            scaled_h=runs * seconds * max(1, batch / clips),  # a smaller step takes as long
            # Held: weights, their average, AdamW's two moments, and gradients.
            memory_gb=parameters * 20 / 1e3 + clip_memory() * batch * self.share * forward / UNETS["M"][0],
            disk_gb=models * (parameters + OTHERS) * 4 / 1e3 if kept else 0.0,
        )

    def draw(self, stage: str, size: str, clips: int, *, kept: bool = True) -> None:
        """Sampled clips, with guidance; those that are `kept` are 16 kHz WAVs."""
        steps = self.cfg.sampling.steps
        flop = 2 * steps * UNETS[size][0] * self.share * 1e9 * clips
        hours = drawing()[size] * steps * self.share * clips / 3600
        told = {"roof_h": flop / ROOF / 3600, "assumed_h": hours, "scaled_h": hours}
        told["disk_gb"] = clips * self.seconds * 16000 * 2 / 1e9 if kept else 0.0
        self.add(stage, f"{clips:,} clips of {steps} steps, {size}", tflop=flop / 1e12, **told)

    def gpu(self, stage: str, work: str, gflop: float, **told) -> None:
        """Work of which only FLOPs are known."""
        hours = gflop * 1e9 / ROOF / 3600
        same = {"assumed_h": hours / SHARE, "scaled_h": hours / SHARE}
        self.add(stage, work, tflop=gflop / 1e3, roof_h=hours, **same, **told)

    def prepare(self, *names: str) -> None:
        """Clips and features: reading and resampling 2 ms a clip, log-mels 12 ms, on one core (measured, without decoding)."""
        for name in names:
            corpus, clips = self.cfg.corpora[name], CLIPS[name]
            rates, work = len(corpus.rates or [1]), f"{clips:,} clips"
            wave = clips * corpus.samples * 2 / 1e9
            self.add(f"corpora@{name}", work, cpu_h=clips * 2e-3 * self.share / 3600, disk_gb=wave)
            moments = clips * rates * 16 * round(self.seconds * 25) * 16 * 4 / 1e9
            told = {"cpu_h": clips * rates * 14e-3 * self.share / 3600, "disk_gb": moments + clips * 4096 / 1e9}
            self.gpu(f"features@{name}", work, clips * self.share * (rates * VAE_ENCODER + CLAP_BOTH), **told)
