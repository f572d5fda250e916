"""Stage thresholds: the similarity a clip must reach, for each kind of target and class."""

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.evaluation.frechet import fad
from foleylib.params.settings import Params
from foleylib.runtime import write_csv, write_json
from foleylib.sampling import thresholds
from foleylib.stages.candidates import THRESHOLDS, candidates_of, targets_of
from foleylib.stages.reference import embeddings_by_class
from foleylib.stages.sample import Drawer, load_clap


def make(cfg: Params) -> tuple[dict, pd.DataFrame]:
    """Thresholds of each kind of target from candidates of a model that is never evaluated, scored on *validation* clips.

    Writes results/thresholds.json [kind -> class -> threshold] and results/thresholds.csv.

    Returns
    -------
    thresholds, and the curves behind them [target, label, share, threshold, fad, n, draws].
    """
    clap, values, curves = load_clap(cfg), {}, []
    reference = embeddings_by_class(clap, cfg, "val")
    for kind, system in cfg.selection.calibrate.items():
        seed = cfg.calibrating_seed(system)
        folder = paths.SYSTEMS / system / str(seed)
        pool = candidates_of(Drawer(folder, cfg, clap=clap), seed, cfg)
        drawn = pool({label: (0, cfg.selection.pool) for label in reference})
        E, labels = np.concatenate(list(drawn.values())), np.repeat(list(drawn), cfg.selection.pool)
        targets, options = targets_of(kind, folder, cfg, clap), {"shares": cfg.selection.shares, "seed": cfg.seed}
        best, curve = thresholds.calibrate(E, labels, targets, reference, metric=fad, **options)
        values[kind] = {label: round(float(t), 6) for label, t in best.items()}
        curves.append(curve.assign(target=kind))
    write_json(paths.RESULTS / THRESHOLDS, values)
    curve = pd.concat(curves, ignore_index=True)
    write_csv(curve, paths.RESULTS / "thresholds.csv")
    return values, curve


def nearest_real_clips(cfg: Params) -> pd.Series:
    """Similarity of each real training clip to the nearest other clip of its class, indexed by class."""
    index, arrays = features.load(paths.FEATURES / cfg.sampling.corpus, "train")
    nearest = thresholds.nearest_of_class(arrays["audio"], index.label)
    return pd.Series(nearest, index=index.label, name="nearest")
