"""Stage thresholds: the similarity a clip must reach, for each kind of target and class."""

from collections import Counter
from functools import partial
from itertools import cycle, islice

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.manifest import has_classes
from foleylib.evaluation.frechet import fad
from foleylib.networks import clap as claps
from foleylib.params.settings import Params
from foleylib.runtime import in_parallel, write_csv, write_json
from foleylib.sampling import thresholds
from foleylib.sampling.thresholds import WHOLE
from foleylib.stages.candidates import THRESHOLDS, candidates_of, targets_of
from foleylib.stages.reference import embeddings_by_class
from foleylib.stages.sample import Drawer, load_clap


def make(cfg: Params) -> tuple[dict, pd.DataFrame]:
    """Thresholds of each kind of target from candidates of a model that is never evaluated, scored on *validation* clips.

    Writes results/thresholds.json [kind -> class -> threshold] and results/thresholds.csv. Without classes there is one
    threshold, "all", from candidates for the captions of validation clips, each compared with its own.

    Returns
    -------
    thresholds, and the curves behind them [target, label, share, threshold, fad, n, draws].
    """
    calls, how = list(cfg.selection.calibrate.items()), {"device": cfg.device, "jobs": cfg.jobs, "desc": "thresholds"}
    found = in_parallel(_calibrate, calls, partial(_context, cfg), **how)
    values = {
        kind: {label: round(float(t), 6) for label, t in best.items()} for (kind, _), (best, _) in zip(calls, found)
    }
    curves = [curve.assign(target=kind) for (kind, _), (_, curve) in zip(calls, found)]
    write_json(paths.RESULTS / THRESHOLDS, values)
    curve = pd.concat(curves, ignore_index=True)
    write_csv(curve, paths.RESULTS / "thresholds.csv")
    return values, curve


def _context(cfg: Params) -> tuple[Params, claps.Clap, dict[str, np.ndarray]]:
    """What both kinds of targets are calibrated with: the settings, CLAP, and the real clips of each class."""
    clap = load_clap(cfg)
    return cfg, clap, embeddings_by_class(clap, cfg, "val")


def _calibrate(context, kind: str, system: str) -> tuple[dict[str, float], pd.DataFrame]:
    """The thresholds of a kind of target from candidates of a system, and the curves behind them."""
    cfg, clap, reference = context
    options = {"shares": cfg.selection.shares, "seed": cfg.seed}
    seed = cfg.calibrating_seed(system)
    folder = paths.SYSTEMS / system / str(seed)
    pool = candidates_of(Drawer(folder, cfg, clap=clap, split="val"), seed, cfg)
    targets = targets_of(kind, folder, cfg, clap, split="val")
    by_class = has_classes(pool.drawer.classes)
    counts = dict.fromkeys(reference, cfg.selection.pool)
    if not by_class:
        counts = Counter(islice(cycle(targets), cfg.selection.pool))
    drawn = pool({key: (0, count) for key, count in counts.items()})
    E, keys = np.concatenate(list(drawn.values())), np.repeat(list(counts), list(counts.values()))
    if by_class:
        return thresholds.calibrate(E, keys, targets, reference, metric=fad, **options)
    own, real = {WHOLE: np.concatenate([targets[key] for key in keys])}, {WHOLE: reference[""]}
    return thresholds.calibrate(E, [WHOLE] * len(E), own, real, metric=fad, paired=True, **options)


def nearest_real_clips(cfg: Params) -> pd.Series:
    """Similarity of each real training clip to the nearest other clip of its class, indexed by class."""
    index, arrays = features.load(paths.FEATURES / cfg.sampling.corpus, "train")
    nearest = thresholds.nearest_of_class(arrays["audio"], index.label)
    return pd.Series(nearest, index=index.label, name="nearest")
