"""Stage selection: runs whose clips pass the CLAP threshold of their class, from the candidates of another run."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import samples
from foleylib.datasets.manifest import has_classes
from foleylib.networks import clap as claps
from foleylib.params.settings import Params
from foleylib.runtime import in_parallel
from foleylib.sampling import selection
from foleylib.sampling.thresholds import WHOLE, thresholds_of
from foleylib.stages.candidates import Candidates, calibrated, candidates_of, targets_of
from foleylib.stages.sample import Drawer, load_clap, load_run


def make(name: str, cfg: Params) -> pd.DataFrame:
    """Make data/samples/`name`/SEED: the clips of run `of` that pass, and as many more candidates as it takes.

    The first candidates are the clips of the unselected run, so both rows of a table differ by the selection alone. Of a
    corpus without classes each clip of that run has candidates of its own, which are compared with its caption, and one
    threshold "all" serves for all of them. Manifests have the columns score, threshold and tries; candidates.parquet beside them has every candidate.

    Returns
    -------
    One row a class (or clip) and seed: wanted, accepted, candidates, acceptance, threshold_first, threshold_last, short.
    """
    cfg.entry("filters", name)
    shutil.rmtree(paths.SAMPLES / name, ignore_errors=True)
    how = {"device": cfg.device, "jobs": cfg.jobs, "desc": f"select {name}"}
    calls = [(name, seed, folder) for seed, folder in cfg.models_of(name).items()]
    report = pd.concat(in_parallel(_select, calls, partial(_context, cfg), **how), ignore_index=True)
    report.to_csv(paths.SAMPLES / name / "report.csv", index=False)
    return report


def _context(cfg: Params) -> tuple[Params, claps.Clap]:
    """What the models of a run are selected with: the settings, and CLAP."""
    return cfg, load_clap(cfg)


def _select(context: tuple[Params, claps.Clap], name: str, seed: int, folder: Path) -> pd.DataFrame:
    """Select and write the clips of one model; returns its part of the report."""
    cfg, clap = context
    select, options, folder = cfg.entry("filters", name).select, cfg.sampling_of(name), paths.ROOT / folder
    candidates = candidates_of(Drawer(folder, cfg, options, clap), seed, cfg)
    _, waves = load_run(select.of, seed)
    keys = candidates.drawer.keys(options.clips_per_class)
    candidates.waves |= dict(zip(keys, waves))
    labels = list(dict.fromkeys(label for label, _ in keys))
    if unknown := set(cfg.selection.best_of) - set(labels):
        raise ValueError(f"selection.best_of names {sorted(unknown)}, which are none of {', '.join(labels)}")
    by_class = has_classes(candidates.drawer.classes)
    thresholds = thresholds_of(cfg.selection, calibrated(select.target), labels if by_class else [WHOLE])
    thresholds = thresholds if by_class else dict.fromkeys(labels, thresholds[WHOLE])
    selected = selection.select(
        candidates,
        len(keys) // len(labels),
        thresholds,
        targets_of(select.target, folder, cfg, clap),
        settings=cfg.selection,
        seed=cfg.seed + seed,
    )
    _write(paths.SAMPLES / name / str(seed), selected, candidates)
    return selected.report.assign(seed=seed)


def _write(out: Path, selected: selection.Selected, candidates: Candidates) -> None:
    accepted = selected.accepted
    keys = list(zip(accepted.label, accepted.number))
    if not keys:
        raise ValueError(f"{out.parent.name}: no candidate passed. {selection.sentence(selected.report)}")
    rows = candidates.rows(keys).assign(score=accepted.score, threshold=accepted.threshold, tries=accepted.tries)
    samples.write(out, rows, np.stack([candidates.waves[key] for key in keys]), candidates.rate)
    selected.candidates.to_parquet(out / "candidates.parquet", index=False)
