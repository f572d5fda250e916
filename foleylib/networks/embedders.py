"""What every embedder behind FAD, FD, IS and KL keeps to: clips of equal length in, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Embedder:
    """A frozen network in evaluation mode with what a protocol card says of it.

    `model` maps waves (B, T) to a dict of tensors; `dim` is the width of "embedding"; clips must come at `rate` Hz and
    have at least `least` samples. `name` is that of the convention by which the weights of `network` are used.
    """

    name: str
    dim: int
    rate: int
    sha256: str
    model: nn.Module
    least: int = 1
    network: str = ""  # where it is not called as its convention is

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)

    @property
    def reads(self) -> bool:
        """Whether it embeds texts beside sounds."""
        return hasattr(self.model, "embed_text")

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts [shape=(N, dim)]; each is embedded once, however often it comes."""
        unique = list(dict.fromkeys(texts))
        row = {text: i for i, text in enumerate(unique)}
        return self.model.embed_text(unique).cpu().numpy()[[row[text] for text in texts]]

    def embed(self, waves: np.ndarray, *, batch_size: int = 16) -> dict[str, np.ndarray]:
        """Embeddings and logits of clips; up to rounding, a clip's row does not depend on its neighbours.

        On CUDA, convolutions in TF32 (torch's default) cost about three digits unless switched off.

        Parameters
        ----------
        waves : np.ndarray [shape=(N, T)]
            at `rate`, in [-1, 1]; may be memory-mapped
        batch_size : int
            clips at once

        Returns
        -------
        dict of np.ndarray [float32]
            "embedding" (N, dim), or (N, W, dim) where a clip has W windows; "logits" (N, C) of a classifier

        Raises
        ------
        ValueError
            if `waves` is not (N, T) with N >= 1, is not finite, or is shorter than a window
        """
        if np.ndim(waves) != 2 or not len(waves):
            raise ValueError(f"waves has shape {np.shape(waves)}; give (N, T) clips of equal length, N >= 1")
        device, parts = next(self.model.parameters()).device, []
        for start in range(0, len(waves), batch_size):
            batch = np.array(waves[start : start + batch_size], dtype=np.float32)
            if not np.isfinite(batch).all():
                bad = start + int(np.flatnonzero(~np.isfinite(batch).all(axis=1))[0])
                raise ValueError(f"clip {bad} holds a sample that is not finite; make or decode it again")
            with torch.inference_mode():
                outputs = self.model(torch.from_numpy(batch).to(device))
            parts.append({name: value.float().cpu().numpy() for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
