"""What re-audioldm and the combined model share: systems that start from the pre-trained U-Net of re-audioldm."""

from functools import cached_property
from pathlib import Path

from torch import nn

from foleylib import paths
from foleylib.networks import retrieval
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.params.systems import System
from foleylib.runtime import fingerprint, weights_sha256
from foleylib.stages.finetune import training_key, tune
from foleylib.stages.ldm import kept


class Tuned:
    """A system with one of the seeds, fine-tuned from re-audioldm's U-Net, which knows captions and neighbours.

    It is trained when it is first asked for, and kept in `scratch`. `settings`, a section of the paper, has its `steps` and
    `lr`; all else is as in `finetune`. `key` changes with all that changes the weights.
    """

    def __init__(self, name: str, system: System, seed: int, settings, cfg: Params, scratch: Path):
        self.name, self.system, self.seed, self.cfg, self.scratch = name, system, seed, cfg, scratch
        train = cfg.finetune.train.changed(steps=settings.steps, lr=settings.lr)
        self.common = cfg.finetune.changed(train=train)
        self.key = fingerprint(training_key(system, self.common, seed, cfg), weights_sha256(paths.RE_AUDIOLDM))

    @cached_property
    def unet(self) -> nn.Module:
        return kept(self.scratch / f"{self.key}-model", self._train)

    def _train(self) -> nn.Module:
        start, parts = retrieval.load(paths.RE_AUDIOLDM, needed=True), load_parts(paths.FOUNDATION)
        how = {"scratch": self.scratch / self.key, "common": self.common, "start": start}
        return tune(self.system, self.seed, self.cfg, parts, **how).unet
