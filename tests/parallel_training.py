"""A small training for one process or several: torchrun calls this file with the folder for its results."""

import sys
from pathlib import Path

import torch
from torch import nn

from foleylib import train
from foleylib.params.base import Train

DATA = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
SETTINGS = Train(steps=6, batch_size=4, accumulate=2, lr=0.05, warmup=0, ema_decay=0.5)
SEED = 3


class Autoencoder(nn.Module):
    """Without a forward pass of its own: as with the VAE, the loss calls its halves."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 2), nn.Linear(2, 6)


def fit(scratch: Path, share: slice = slice(None)) -> dict:
    """Train on `share` of each micro-batch; returns the weights, the clips that were read and the seeds of the steps."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Autoencoder()
    clips, seeds = [], []

    def load(indices) -> dict:
        clips.extend(indices[share].tolist())
        return {"x": DATA[indices[share]]}

    def loss(module, batch: dict, generator: torch.Generator) -> train.Terms:
        seeds.append(generator.initial_seed())
        return {"l2": (module.decode(module.encode(batch["x"])) - batch["x"]).square().mean()}

    trainable = train.Trainable(module, loss, {"l2": 1.0})
    train.fit({"vae": trainable}, load, len(DATA), SETTINGS, train.Job(SEED, scratch, device="cpu"))
    return {"weights": module.state_dict(), "clips": clips, "seeds": seeds}


def clips_of_a_run() -> list[int]:
    """The clips of all steps, whoever reads them."""
    size = SETTINGS.batch_size * SETTINGS.accumulate
    return [int(i) for step in range(SETTINGS.steps) for i in train.batch_indices(SEED, step, len(DATA), size)]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    result = fit(out / "scratch")
    torch.save(result, out / f"{torch.distributed.get_rank()}.pt")
