"""Small corpora in the public layouts, of noise, and their settings."""

import csv
import json

import numpy as np
import soundfile

from foleylib.corpora.sources import DCASE_PROMPTS
from foleylib.params.corpora import Corpus

RATE = 16000


FOLDS = {"folds": {"train": [1, 2], "val": [], "test": [3]}}
SPLITS = {"synthetic": {"clips_per_class": {"train": 2, "val": 1, "test": 1}}, "esc50": FOLDS, "urbansound8k": FOLDS}


def corpus(kind, root=None, **changes):
    values = {
        "kind": kind,
        "root": root and str(root),
        **SPLITS.get(kind, {"split_fractions": {"train": 0.5, "val": 0.0, "test": 0.5}}),
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


def urbansound8k(
    root,
    rows=(("100-3-0-0", 1, "dog_bark"), ("100-3-0-1", 1, "dog_bark"), ("7-8-0-0", 2, "siren"), ("9-8-0-0", 3, "siren")),
):
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    cells = [[f"{name}.wav", name.split("-")[0], 0, 1, 1, fold, 3, label] for name, fold, label in rows]
    table(root / "metadata/UrbanSound8K.csv", columns, cells)
    for name, fold, _ in rows:
        noise(root / f"audio/fold{fold}/{name}.wav")
    return root


# As the published tables have them: rows of one clip lie apart, and two captions of a clip may be the same.
AUDIOCAPS = {
    "train": [(91139, "r1nicOVtvkQ", 130, "A woman talks"), (91140, "-4SilByYDLs", 0, "Rain, then thunder")],
    "val": [(97151 + i, "vfY_TJq7n_U", 30, f"said {i}") for i in range(5)],
    "test": [
        (200 + 10 * i + j, video, 10 * j, f"{video} {i}")
        for i in range(5)
        for j, video in enumerate(("Yab_-cdefgh", "q-second_id"))
    ],
}


def audiocaps(root, named="{video}_{start}.wav", folder="audio", listed=None, rate=RATE):
    for split, rows in (listed or AUDIOCAPS).items():
        table(root / f"{split}.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], rows)
        for _, video, start, _ in rows:
            noise(
                root / folder.format(split=split) / named.format(video=video, start=start, ms=1000 * start), rate=rate
            )
    return root


WAVCAPS = {
    "FreeSound": ("fsd_final.json", ["180913", "2091", "77"]),
    "BBC_Sound_Effects": ("bbc_final.json", ["NHU05000001"]),
    "SoundBible": ("sb_final.json", ["2219", "2218"]),
    "AudioSet_SL": ("as_final.json", ["Yb0RFKhbpFJA.wav", "Y-0OkG0fLLkc.wav"]),
}


def wavcaps(root, folder="mnt/fast/waveforms/{source}_flac", more=0):
    """`more` clips of FreeSound beside those of `WAVCAPS`."""
    for source, (name, ids) in WAVCAPS.items():
        ids = [*ids, *(f"5{i:05d}" for i in range(more) if source == "FreeSound")]
        data = [{"id": id, "caption": f"caption of {id}", "audio": "wav_path", "duration": 0.7} for id in ids]
        json_file(root / "json_files" / source / name, {"num_captions_per_audio": 1, "data": data})
        for id in ids:
            noise(root / folder.format(source=source) / f"{id.removesuffix('.wav')}.flac", rate=RATE)
    blocked = {"test_ac": {"AudioSet": ["Yb0RFKhbpFJA.wav"], "FreeSound": []}}
    blocked |= {"ub8k_esc50_vggsound": {"AudioSet": [], "FreeSound": ["2091"]}}
    for name, ids in blocked.items():
        json_file(root / f"json_files/blacklist/blacklist_exclude_{name}.json", ids)
    return root


AUDIOSET = {
    "balanced_train": [("--PJHxphWEs", 30, ("/m/09x0r", "/t/dd00088")), ("--ZhevVpy1s", 50, ("/m/012xff",))],
    "unbalanced_train": [("---1_cCGK4M", 0, ("/m/09x0r",))],
    "eval": [("--4gqARaEJE", 0, ("/m/068hy", "/m/09x0r")), ("--BfvyPmVMo", 20, ("/m/068hy",))],
}


def audioset(root, named="{video}.wav"):
    names = [
        ("/m/09x0r", "Speech"),
        ("/t/dd00088", "Gush"),
        ("/m/012xff", "Toot"),
        ("/m/068hy", "Domestic animals, pets"),
    ]
    table(root / "class_labels_indices.csv", ["index", "mid", "display_name"], [(i, *n) for i, n in enumerate(names)])
    for part, rows in AUDIOSET.items():
        lines = ["# Segments csv created Sun Mar  5 10:54:31 2017", f"# num_ytids={len(rows)}, num_segs={len(rows)}"]
        lines += ["# YTID, start_seconds, end_seconds, positive_labels"]
        lines += [f'{video}, {start:.3f}, {start + 10:.3f}, "{",".join(mids)}"' for video, start, mids in rows]
        (root / f"{part}_segments.csv").write_text("\n".join(lines) + "\n")
        for video, start, _ in rows:
            noise(
                root
                / f"audio/{part}"
                / named.format(video=video, start=start, ms=1000 * start, end_ms=1000 * start + 10000),
                rate=RATE,
            )
    return root


def json_file(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
