"""The judge: a small PANNs classifier trained here, behind FD, IS and KL where no public checkpoint is at hand."""

from collections.abc import Sequence
from pathlib import Path

import torch

from foleylib.audio.mel import MelConfig
from foleylib.networks.embedders import Embedder
from foleylib.networks.folder import FolderMixin
from foleylib.networks.panns import PannsCnn, PannsConfig
from foleylib.runtime import weights_sha256


class Judge(PannsCnn, FolderMixin):
    """A PANNs network for clips at `rate` Hz; its logits are those of a softmax over `labels`."""

    def __init__(self, labels: Sequence[str], *, rate: int, widths: Sequence[int], embedding_dim: int) -> None:
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ValueError(f"labels={list(labels)}: give at least 2, each once")
        config = PannsConfig(
            MelConfig(rate, n_fft=1024, hop=320, n_mels=64, fmin=50.0, fmax=min(8000.0, rate / 2), padding="center"),
            widths=tuple(widths),
            embedding_dim=embedding_dim,
            classes=len(labels),
            dropout=0.0,
            head_dropout=0.0,
        )
        super().__init__(config)
        self.labels = tuple(labels)


def build(labels: Sequence[str], *, rate: int, widths: Sequence[int], embedding_dim: int, seed: int) -> Judge:
    """Untrained judge with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge(labels, rate=rate, widths=widths, embedding_dim=embedding_dim)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Embedder:
    """The judge of a folder that `Judge.save_pretrained` wrote; its labels are `embedder.model.labels`."""
    model = Judge.from_folder(folder, stage="judge").to(device)
    return Embedder("judge", model.config.embedding_dim, model.config.mel.rate, weights_sha256(folder), model)
