"""The judge: a PANNs network for evaluation alone. It names the class of a clip and the parameters it was made with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from foleylib.audio.mel import MelConfig
from foleylib.networks.embedders import Embedder
from foleylib.networks.folder import FolderMixin
from foleylib.networks.panns import PannsCnn, PannsConfig
from foleylib.runtime import weights_sha256


class Judge(PannsCnn, FolderMixin):
    """A PANNs network for clips at `rate` Hz; its logits are those of a softmax over `labels`.

    `parameters` are what else it predicts from the same embedding, so that the embedding tells clips of a class apart:
    name -> (whether of the logarithm, mean, standard deviation over its training clips). A name is "Class.parameter",
    "Class.parameter=word", or "parameter" where all classes have it.
    """

    def __init__(
        self,
        labels: Sequence[str],
        parameters: dict[str, tuple[bool, float, float]] | None = None,
        *,
        rate: int,
        widths: Sequence[int],
        embedding_dim: int,
    ) -> None:
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
        self.labels, self.parameters_known = tuple(labels), dict(parameters or {})
        self.fc_parameters = nn.Linear(embedding_dim, len(parameters)) if parameters else None

    def classify(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """As `PannsCnn.classify`; "parameters" [shape=(B, P)] beside it, standardised over the training clips."""
        outputs = super().classify(features)
        if self.fc_parameters is not None:
            outputs["parameters"] = self.fc_parameters(outputs["embedding"])
        return outputs


def build(
    labels: Sequence[str],
    parameters: dict[str, tuple[bool, float, float]] | None = None,
    *,
    rate: int,
    widths: Sequence[int],
    embedding_dim: int,
    seed: int,
) -> Judge:
    """Untrained judge with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Judge(labels, parameters, rate=rate, widths=widths, embedding_dim=embedding_dim)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Embedder:
    """The judge of a folder that `Judge.save_pretrained` wrote; its labels are `embedder.model.labels`."""
    model = Judge.from_folder(folder, stage="judge").to(device)
    config, sha256 = model.config, weights_sha256(folder)
    least = max(config.mel.hop * config.stride, config.mel.n_fft)
    return Embedder("judge", config.embedding_dim, config.mel.rate, sha256, model, least)
