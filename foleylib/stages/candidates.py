"""What thresholds and selection share: numbered candidates of a model, and the targets that they are compared with."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from torch.nn import functional as F

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.manifest import has_classes
from foleylib.networks import clap as claps
from foleylib.networks.pipeline import prompts_of
from foleylib.networks.unet import load_tuning
from foleylib.params.settings import Params
from foleylib.sampling import selection
from foleylib.stages.sample import Drawer, class_rows

THRESHOLDS = "thresholds.json"  # in results


@dataclass
class Candidates:
    """Draws numbered candidates of one model and keeps their waves; the first ones may be given."""

    drawer: Drawer
    seed: int
    rate: int
    waves: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def __call__(self, requests: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
        """CLAP audio embeddings [shape=(count, D)] of candidates first..first+count-1 of each class."""
        wanted = [(c, n) for c, (first, count) in requests.items() for n in range(first, first + count)]
        absent = [key for key in wanted if key not in self.waves]
        if absent:
            self.waves |= dict(zip(absent, self.drawer.draw(self.rows(absent)).numpy()))
        return {
            c: self._embed([self.waves[c, n] for n in range(first, first + count)])
            for c, (first, count) in requests.items()
        }

    def rows(self, keys: list[tuple[str, int]]) -> pd.DataFrame:
        """Manifest rows of candidates, by (class, number)."""
        return self.drawer.rows_of(keys, self.seed)

    def _embed(self, waves: list[np.ndarray]) -> np.ndarray:
        return self.drawer.clap.embed_audio(np.stack(waves), self.rate).cpu().numpy()


def candidates_of(drawer: Drawer, seed: int, cfg: Params) -> Candidates:
    """Candidates of a model that was trained with `seed`."""
    return Candidates(drawer, cfg.seed + seed, cfg.corpus_of("sampling").rate)


def targets_of(kind: str, folder: Path, cfg: Params, clap: claps.Clap, split: str = "test") -> dict[str, np.ndarray]:
    """What candidates of the model in `folder` are compared with, label -> [shape=(M, D)].

    "text" is the prompt's embedding, "tuned" that after the model's tuning layer, "audio" the embeddings of the
    training clips that are nearest to the rest of their class (multi-target selection). Without classes, the ids of the
    clips of `split` stand in place of labels, and there is no "audio".
    """
    classes = class_rows(cfg, prompts_of(folder), split)
    if kind == "audio" and not has_classes(classes):
        raise ValueError(
            f"a filter has the target 'audio', typical clips of a class, but corpus '{cfg.sampling.corpus}' has no "
            "classes: take text or tuned"
        )
    if kind == "audio":
        index, arrays = features.load(paths.FEATURES / cfg.sampling.corpus, "train")
        return {
            label: selection.multi_targets(arrays["audio"][index.label == label], min(cfg.selection.targets, n))
            for label, n in index.label.value_counts().items()
        }
    embedded = clap.embed_text(list(classes.prompt)).cpu()
    if kind == "tuned":
        tuning = load_tuning(folder)
        if tuning is None:
            raise ValueError(
                f"{folder} has no tuning layer: a filter with target 'tuned' needs a system with tuning: true"
            )
        embedded = F.normalize(tuning(embedded), dim=-1)
    return {key: row[None].numpy() for key, row in zip(classes.index, embedded)}


def calibrated(kind: str) -> dict[str, float] | None:
    """The thresholds of results/thresholds.json for a kind of target; None where it was not calibrated."""
    file = paths.RESULTS / THRESHOLDS
    return json.loads(file.read_text()).get(kind) if file.is_file() else None
