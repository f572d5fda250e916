"""What is done to log-mels to see which metric notices it: Fig. 1 of audioldm-transfer-benchmark.

A batch of log-mels is (B, 1, frames, n_mels), natural logarithms of mel magnitudes of at least `FLOOR`. Random draws come
from a numpy generator on the CPU.
"""

import numpy as np
import torch

from foleylib.audio.mel import FLOOR


def add_noise(mels: torch.Tensor, rng: np.random.Generator, *, share: float) -> torch.Tensor:
    """Gaussian noise whose variance is `share` (in the paper 0.2) of each clip's range of values.

    The paper's noise also has the mean of the spectrogram, which in logarithms would change the level alone: ours has
    mean 0.
    """
    if not 0 <= share < np.inf:
        raise ValueError(f"share={share}: give a finite share of 0 or more, such as 0.2")
    spread = mels.amax(dim=(1, 2, 3), keepdim=True) - mels.amin(dim=(1, 2, 3), keepdim=True)
    noise = torch.from_numpy(rng.standard_normal(mels.shape, dtype=np.float32)).to(mels)
    return (mels + noise * (share * spread).sqrt()).clamp(min=float(np.log(FLOOR)))


def mask(mels: torch.Tensor, rng: np.random.Generator, *, count: int, length: float) -> torch.Tensor:
    """Silence in `count` places (in the paper 2) of each clip, each a part `length` (0.1) of its frames."""
    masked, frames = mels.clone(), mels.shape[2]
    width = max(1, round(length * frames))
    for clip, starts in zip(masked, rng.integers(0, frames - width + 1, (len(mels), count))):
        for start in starts:
            clip[:, start : start + width] = float(np.log(FLOOR))
    return masked


def mix(mels: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Each clip with another sound at the same power, added as mel magnitudes."""
    own, other = mels.exp(), others.exp()
    gain = (own.square().mean(dim=(1, 2, 3), keepdim=True) / other.square().mean(dim=(1, 2, 3), keepdim=True)).sqrt()
    return (own + gain * other).log()


def swap_parts(mels: torch.Tensor) -> torch.Tensor:
    """Each clip cut in two where it is quietest in its middle half, and the parts in the other order: what stands for a
    change of order where the times of events are not known."""
    frames = mels.shape[2]
    middle = slice(frames // 4, frames - frames // 4)
    cuts = frames // 4 + mels[:, 0, middle].exp().sum(dim=2).argmin(dim=1)
    return torch.stack([torch.cat([clip[:, cut:], clip[:, :cut]], dim=1) for clip, cut in zip(mels, cuts.tolist())])
