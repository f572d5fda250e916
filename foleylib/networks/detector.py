"""The detector: a PANNs-like network that tells which sounds are in a clip, and when. It is used for evaluation alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foleylib.audio.mel import DecibelMel, MelConfig
from foleylib.networks.embedders import Embedder
from foleylib.networks.folder import FolderMixin
from foleylib.networks.panns import ConvBlock
from foleylib.runtime import weights_sha256

TIME_POOLS = 2  # blocks after which two frames become one; every block halves the mel bands


class Detector(nn.Module, FolderMixin):
    """Sound event detection of `labels` in clips at `rate` Hz, by frames of 80 ms, with a sigmoid for each class.

    The blocks are those of `panns.PannsCnn`, but after the second one frequency alone is pooled. `thresholds`
    [shape=(C,)] are the probabilities above which a class is in a clip; training leaves them at one half.
    """

    def __init__(self, labels: Sequence[str], *, rate: int, widths: Sequence[int]) -> None:
        if len(set(labels)) != len(labels) or not labels:
            raise ValueError(f"labels={list(labels)}: give at least 1, each once")
        if len(widths) < TIME_POOLS:
            raise ValueError(f"widths={list(widths)}: give at least {TIME_POOLS}")
        super().__init__()
        hop, fmax = rate // 50, min(8000.0, rate / 2)
        self.mel = MelConfig(rate, n_fft=1024 * max(1, rate // 16000), hop=hop, n_mels=64, fmin=50.0, fmax=fmax)
        self.labels, self.widths = tuple(labels), tuple(widths)
        self.log_mel = DecibelMel(self.mel)
        self.bn0 = nn.BatchNorm2d(self.mel.n_mels)
        self.blocks = nn.ModuleList(ConvBlock(before, width, pool=1) for before, width in zip((1, *widths), widths))
        self.hidden = nn.Linear(widths[-1], widths[-1])
        self.classes = nn.Linear(widths[-1], len(labels))
        self.register_buffer("thresholds", torch.full((len(labels),), 0.5))

    @property
    def stride(self) -> int:
        """Samples behind a frame of the outputs: frame k covers k * stride to (k + 1) * stride."""
        return self.mel.hop * 2**TIME_POOLS

    def features(self, waves: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram normalised per band by bn0 [shape=(B, 1, T / hop, n_mels)] of waves [shape=(B, T)]."""
        least = max(self.stride, self.mel.n_fft)
        if waves.ndim != 2 or waves.shape[1] < least:
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= {least} samples")
        return self.bn0(self.log_mel(waves).transpose(1, 3)).transpose(1, 3)

    def classify(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalised features [shape=(B, 1, T / hop, n_mels)] to "embedding" and "logits" of each frame."""
        x = features
        for number, block in enumerate(self.blocks):
            x = F.avg_pool2d(block(x), (2 if number < TIME_POOLS else 1, 2))
        x = (x.mean(dim=3) + x.amax(dim=3)).transpose(1, 2)  # (B, frames, W)
        embedding = F.relu(self.hidden(x))
        return {"embedding": embedding, "logits": self.classes(embedding)}

    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Waves [shape=(B, T)] at `rate`, in [-1, 1], to "embedding" [shape=(B, T // stride, W)] and "logits"
        [shape=(B, T // stride, C)] before the sigmoid."""
        return self.classify(self.features(waves))


def build(labels: Sequence[str], *, rate: int, widths: Sequence[int], seed: int) -> Detector:
    """Untrained detector with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(labels, rate=rate, widths=widths)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Embedder:
    """The detector of a folder that `Detector.save_pretrained` wrote; labels and thresholds are those of its `model`."""
    model = Detector.from_folder(folder, stage="detector").to(device)
    least = max(model.stride, model.mel.n_fft)
    return Embedder("detector", model.widths[-1], model.mel.rate, weights_sha256(folder), model, least)


def probabilities(detector: Embedder, waves: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Probability of each class in each frame [shape=(N, T // stride, C)] of clips [shape=(N, T)] at its rate."""
    from scipy.special import expit

    return expit(detector.embed(waves, batch_size=batch_size)["logits"])
