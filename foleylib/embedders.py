"""Embedders behind FAD, FD, IS and KL: one contract, and published weights by hash.

An embedder takes clips of equal length at its rate and returns arrays: "embedding" (N, D), or (N, W, D) where a clip
has W windows, and "logits" (N, C) where the network classifies.
"""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foleylib.panns import CNN10, CNN14, CNN14_16K, PannsCnn
from foleylib.vggish import FAD_16K, FAD_DCASE, Vggish

# Name -> (network, its settings). The two FAD conventions read the same VGGish file.
PUBLISHED = {
    "cnn10": (PannsCnn, CNN10),
    "cnn14": (PannsCnn, CNN14),
    "cnn14_16k": (PannsCnn, CNN14_16K),
    "fad_16k": (Vggish, FAD_16K),
    "fad_dcase": (Vggish, FAD_DCASE),
}


@dataclass(frozen=True)
class Embedder:
    """A frozen network in evaluation mode with what a protocol card says of it.

    `model` maps waves (B, T) to a dict of tensors; `dim` is the width of "embedding"; clips must come at `rate` Hz.
    """

    name: str
    dim: int
    rate: int
    sha256: str
    model: nn.Module

    def __post_init__(self):
        self.model.eval().requires_grad_(False)

    def embed(self, waves, *, batch_size=16):
        """Outputs for clips of equal length; up to rounding, a clip's row does not depend on its neighbours.

        float32; on CUDA, convolutions in TF32 (torch's default) cost about three digits unless switched off.

        Parameters
        ----------
        waves : np.ndarray [shape=(N, T)]
            at `rate`, in [-1, 1]; may be memory-mapped
        batch_size : int

        Returns
        -------
        dict of np.ndarray [float32]
            "embedding" (N, dim) or (N, W, dim); "logits" (N, C) of a classifier

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
                parts.append(
                    {k: v.float().cpu().numpy() for k, v in self.model(torch.from_numpy(batch).to(device)).items()}
                )
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def weights_sha256(path):
    """SHA-256 of a file, or of a folder as the relative names and contents of its files in order of name."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise ValueError(f"{path}: no weights there; give a file or a folder that holds files")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()} {weights_sha256(file)}\n".encode())
    return digest.hexdigest()


def load_published(name, path, *, sha256, pinned=True, device="cpu"):
    """Embedder with published weights.

    Parameters
    ----------
    name : str
        one of `PUBLISHED`: "cnn10", "cnn14", "cnn14_16k" (FD, IS, KL), "fad_16k", "fad_dcase" (FAD)
    path : str or Path
        the file as published, PyTorch format
    sha256 : str or None
        its hash; None accepts any file, unless `pinned`
    pinned : bool
        whether a hash is demanded, as results that are compared with published numbers do
    device : str or torch.device

    Returns
    -------
    Embedder

    Raises
    ------
    ValueError
        if the name is unknown, the hash missing or wrong, or the file no plain state dict of that network
    """
    if name not in PUBLISHED:
        raise ValueError(f"name={name!r}: give one of {sorted(PUBLISHED)}")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; fetch the weights of {name} or correct the path")
    found = weights_sha256(path)
    if sha256 is None and pinned:
        raise ValueError(f"{path}: no sha256 is pinned for {name}; if you trust the file, set it to {found}")
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{path}: sha256 is {found}, not {sha256}; fetch {name} again")
    network, config = PUBLISHED[name]
    with torch.random.fork_rng(devices=[]):
        model = network(config)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        model.load_published(weights.get("model", weights))
    except (pickle.UnpicklingError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path}: not the weights of {name} as a plain state dict ({error})") from error
    dim, rate = (config.embedding_dim, config.mel.rate) if network is PannsCnn else (128, config.rate)
    return Embedder(name, dim, rate, found, model.to(device))
