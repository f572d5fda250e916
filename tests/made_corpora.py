"""Small corpora in the public layouts, of noise, and their settings."""

import csv

import numpy as np
import soundfile

from foleylib.corpora.sources import DCASE_PROMPTS
from foleylib.params.corpora import Corpus

RATE = 16000


def corpus(kind, root=None, **changes):
    values = {
        "kind": kind,
        "root": root and str(root),
        "clips_per_class": {"train": 2, "val": 1, "test": 1},
        "folds": {"train": [1, 2], "val": [], "test": [3]},
        "split_fractions": {"train": 0.5, "val": 0.0, "test": 0.5},
        "rate": RATE,
        "seconds": 0.64,
        "padding": "dataset",
        "seed": 3,
        "jobs": 1,
    }
    return Corpus(**(values | changes))


def noise(path, seconds=0.7, rate=22050, seed=0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.random.default_rng([seed, *path.name.encode()]).standard_normal((round(seconds * rate), channels))
    soundfile.write(path, wave, rate, subtype="PCM_16" if path.suffix == ".wav" else None)
    return path


def table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def esc50(root, rows=((1, 10, "dog"), (2, 11, "rain"), (3, 12, "dog"), (3, 13, "rain"))):
    names = [f"{fold}-{source}-A-{i}.wav" for i, (fold, source, _) in enumerate(rows)]
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    table(
        root / "meta/esc50.csv",
        columns,
        [[name, fold, 7, label, label == "dog", source, "A"] for name, (fold, source, label) in zip(names, rows)],
    )
    for name in names:
        noise(root / "audio" / name)
    return root


def dcase(root, per_class=3):
    for label in DCASE_PROMPTS:
        for i in range(per_class):
            noise(root / label / f"{i:03d}.wav", rate=RATE, seed=len(label))
    return root
