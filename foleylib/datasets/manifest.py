"""The prepared corpus on disk: `manifest.parquet` and `captions.parquet` beside `audio/<shard>/<id>.wav`, all of one rate
and length, and `unusable.csv` where source files were left out.

A clip without a class has the label "" and the target -1, and its first caption as prompt; a corpus of such clips alone
has no classes.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

COLUMNS = (
    "id",
    "path",
    "split",
    "label",
    "target",
    "caption",
    "prompt",
    "source_group",
    "licence",
    "rate",
    "seconds",
    "source_rate",
    "source_seconds",
    "source_clipped",
    "source_path",
    "operations",
    "sha256",
    "events",
    "parameters",
)


SYNTHETIC = "CC0-1.0"  # licence of the clips that the sound models make


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names each offender, what is wrong and the remedy."""


def load(out: str | Path):
    """Read the manifest of a prepared corpus.

    Parameters
    ----------
    out : str or Path
        folder written by `corpora.prepare`

    Returns
    -------
    pandas.DataFrame
        one row per clip, columns `COLUMNS`; `path` is relative to `out`, `seconds` in s, `rate` in Hz, `caption` the
        first of those that `captions` reads, `source_clipped` the fraction of source samples at full scale, `events`
        and `parameters` JSON
    """
    import pandas as pd

    path = Path(out) / "manifest.parquet"
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; prepare the corpus first (stage `corpora`)")
    manifest = pd.read_parquet(path)
    absent = [column for column in COLUMNS if column not in manifest]
    if absent:
        raise CorpusError(f"{path}: no columns {absent}; it was written by another version, prepare the corpus again")
    if lost := _lost(Path(out), manifest.path):
        raise CorpusError(f"{path}: {len(lost)} files of it are missing, first {lost[:5]}; prepare the corpus again")
    return manifest


def _lost(out: Path, clips) -> list[str]:
    """The clips of a manifest's column `path` that are not there; their folders are listed one by one."""
    folders = clips.str.rpartition("/")[0]
    lost = []
    for folder, own in clips.groupby(folders):
        present = {file.name for file in (out / folder).glob("*")}
        lost += [path for path in own if path.rpartition("/")[2] not in present]
    return sorted(lost)


def licences(out: str | Path) -> dict[str, int]:
    """Licences of the clips of a prepared corpus, with how many clips each has, those of the most first."""
    count = load(out).licence.value_counts()
    return {licence: int(n) for licence, n in sorted(count.items(), key=lambda item: (-item[1], item[0]))}


def has_classes(manifest) -> bool:
    """Whether any clip of a manifest has a class."""
    return bool((manifest.target >= 0).any())


def classes(manifest):
    """The first clip of each class of a manifest, in the order of the classes; no row where there are none."""
    return manifest[manifest.target >= 0].drop_duplicates("target").sort_values("target")


def spread(count: int, limit: int) -> np.ndarray:
    """Up to `limit` of `count` rows, in order and at even distances; all where there are no more."""
    return np.linspace(0, count - 1, min(limit, count)).astype(int)


def unusable(out: str | Path):
    """The source files of a corpus that could not be used and were left out: [id, source_path, reason], often no row."""
    import pandas as pd

    path = Path(out) / "unusable.csv"
    columns = ["id", "source_path", "reason"]
    return pd.read_csv(path, dtype=str) if path.is_file() else pd.DataFrame(columns=columns, dtype=str)


def write_captions(out: Path, captions: dict[str, list[str]]) -> None:
    """Write `captions.parquet` [id, number, caption], a row a caption, from the captions of each clip in order."""
    import pandas as pd

    rows = [(id, number, caption) for id, own in captions.items() for number, caption in enumerate(own)]
    table = pd.DataFrame(rows, columns=["id", "number", "caption"])
    table.to_parquet(out / "captions.parquet", index=False)


def captions(out: str | Path, manifest) -> list[list[str]]:
    """All captions of each clip of a manifest (all or some rows of `load(out)`), in order; at least one of each."""
    import pandas as pd

    path = Path(out) / "captions.parquet"
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; it was written by another version, prepare the corpus again")
    of_clip = pd.read_parquet(path).sort_values(["id", "number"]).groupby("id").caption.agg(list)
    if absent := sorted(set(manifest.id) - set(of_clip.index)):
        raise CorpusError(f"{path}: no caption of {len(absent)} clips, first {absent[:5]}; prepare the corpus again")
    return of_clip[list(manifest.id)].to_list()


class Waves:
    """The clips of a manifest (all or some rows of `load(out)`), read when asked for.

    `waves[rows]` is a tensor [shape=(B, T), float32], in [-1, 1].
    """

    def __init__(self, out: str | Path, manifest):
        self.out, self.paths = Path(out), manifest.path.array
        self.rates, self.seconds = manifest.rate.to_numpy(), manifest.seconds.to_numpy()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows):
        import torch

        return torch.from_numpy(self.read(rows))

    def read(self, rows) -> np.ndarray:
        """The clips of some rows [shape=(B, T), float32]."""
        clips = [(self.out / self.paths[row], self.rates[row], self.seconds[row]) for row in rows]
        return np.stack([_read_clip(*clip) for clip in clips])


def iter_waves(out: str | Path, manifest, batch: int = 64) -> Iterator[np.ndarray]:
    """Yield the clips of a manifest in its order, in arrays [shape=(batch, T), float32]; the last may be smaller."""
    waves = Waves(out, manifest)
    for start in range(0, len(waves), batch):
        yield waves.read(range(start, min(start + batch, len(waves))))


def read_waves(out: str | Path, manifest) -> np.ndarray:
    """Read the clips of a manifest, in its order, into one array [shape=(N, T), float32], in [-1, 1].

    A corpus too large for memory is read with `iter_waves` or `Waves`.
    """
    batches = list(iter_waves(out, manifest))
    return np.concatenate(batches) if batches else np.zeros((0, 0), dtype=np.float32)


def _read_clip(path: Path, rate: int, seconds: float) -> np.ndarray:
    wave, actual = soundfile.read(path, dtype="float32")
    length = round(rate * seconds)
    if actual != rate or wave.shape != (length,):
        raise CorpusError(
            f"{path}: {wave.shape} samples at {actual} Hz, but the manifest says ({length},) at {rate} Hz; "
            "prepare the corpus again"
        )
    return wave


def digest(manifest) -> str:
    """SHA-256 over the ids and audio hashes of a manifest (or of some of its rows), whatever their order."""
    lines = sorted(f"{id} {sha256}\n" for id, sha256 in zip(manifest.id, manifest.sha256))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sounds(events: str) -> list[dict]:
    """The sounds of a scene in order, [{"label", "onset", "offset"}] in s within the clip, from its `events` in a manifest.

    None of a clip that is no scene.
    """
    return [
        {
            "label": part["label"],
            "onset": part["onset"] + part["events"][0]["onset"],
            "offset": part["onset"] + max(event["offset"] for event in part["events"]),
        }
        for part in json.loads(events)
        if "label" in part
    ]


def facts(info: dict) -> dict[str, float | str]:
    """What is known of a synthetic clip: its parameters, and what follows from several of them.

    `info` has "events", "parameters" and, where it is known, "change", as `corpora.synth.render.render` returns them.
    """
    drawn = info["parameters"]
    ambience = drawn["ambience"]
    return drawn | {
        "events": len(info["events"]),
        "change": info.get("change", 0.0),
        "distance": ambience * drawn["distance"],
        "reverberation": ambience * drawn["room_level"] * drawn["room_decay"],
        "background_snr": 60 - ambience * (60 - drawn["background_snr"]),
    }
