"""What the stages of the foundation share: the source of a part, its training clips, its training job."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, own_folder, wait_for_all
from foleylib.stages import bundle, cards
from foleylib.train import Job


def make(part: str, cfg: Params, train: Callable[[Params, Path], pd.DataFrame]) -> pd.DataFrame:
    """Make models/foundation/`part` from the source that the settings name; returns the training history.

    `train(cfg, out)` trains the part, saves it and returns its history.
    """
    out = own_folder(paths.FOUNDATION / part)
    shutil.rmtree(out, ignore_errors=True)
    section, source = cfg.foundation.section(part), cfg.foundation.source
    if source in ("scratch", "finetuned"):
        begin = time.perf_counter()
        history = train(cfg, out)
        start = cards.provenance_of(paths.BUNDLED / part) if source == "finetuned" else None
        seconds = time.perf_counter() - begin
        bundle.write_provenance(out, section, cfg.foundation.corpus, cfg, seconds, history, start)
    elif source == "bundled":
        _unpack(part, cfg, out)
    else:
        bundle.take(part, cfg, out)
    cards.write(out, cards.provenance_of(out))
    wait_for_all()
    return bundle.history_of(out)


def _unpack(part: str, cfg: Params, out: Path) -> None:
    name = f"foundation.sizes.{part}" if part in cfg.foundation.sizes else f"foundation.{part}"
    bundle.copy_bundled(part, cfg.foundation.section(part), name, cfg.corpus_of("foundation"), out)


def initial(part: str, cfg: Params, load: Callable):
    """The bundle's part, read by `load(folder)`, where `foundation.source` says that training goes on from it; or None."""
    if cfg.foundation.source != "finetuned":
        return None
    with tempfile.TemporaryDirectory() as folder:
        _unpack(part, cfg, Path(folder) / part)
        return load(Path(folder) / part).train()


def job(cfg: Params, part: str, *inputs) -> Job:
    """How a part is trained; the folder of its resumable state changes with all that changes the training."""
    section, corpus = cfg.foundation.section(part), cfg.corpus_of("foundation")
    if cfg.foundation.source == "finetuned":
        inputs = (*inputs, cards.provenance_of(paths.BUNDLED / part))
    key = fingerprint(section, corpus, cfg.seed, cfg.precision, *inputs)
    return Job(cfg.seed, paths.SCRATCH / f"foundation-{part}" / key, cfg.device, cfg.precision)


def clips(cfg: Params, split: str) -> tuple[pd.DataFrame, manifests.Waves]:
    """Manifest and waves of a split of the foundation's corpus."""
    folder = paths.CLIPS / cfg.foundation.corpus
    manifest = manifests.load(folder)
    manifest = manifest[manifest.split == split].reset_index(drop=True)
    return manifest, manifests.Waves(folder, manifest)


def held_out(cfg: Params, limit: int = 256) -> tuple:
    """Up to `limit` validation clips, spread over the classes; (manifest, None) where the corpus has none."""
    manifest, waves = clips(cfg, "val")
    if not len(waves):
        return manifest, None
    rows = manifests.spread(len(waves), limit)
    return manifest.iloc[rows], waves[rows]


def tested(cfg: Params, limit: int = 512) -> tuple[pd.DataFrame, manifests.Waves]:
    """Manifest and waves of up to `limit` test clips, spread over the classes, for what the notebooks show and score."""
    manifest, _ = clips(cfg, "test")
    manifest = manifest.iloc[manifests.spread(len(manifest), limit)].reset_index(drop=True)
    return manifest, manifests.Waves(paths.CLIPS / cfg.foundation.corpus, manifest)
