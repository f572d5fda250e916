"""`foleylib corpus check`: what is wrong with a folder of sounds, before a corpus is made of it."""

import argparse
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import yaml

from foleylib.audio.io import AudioError, read
from foleylib.corpora import audit
from foleylib.corpora.clips import look_at
from foleylib.corpora.listing import list_corpus
from foleylib.corpora.own import of_classes
from foleylib.corpora.rows import clip_row, sounds
from foleylib.corpora.sources import read_clips
from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.remarks import LISTED, listed
from foleylib.params.corpora import Corpus
from foleylib.runtime import progress

HELP = "what is wrong with a folder of sounds, before it becomes a corpus"
ABOUT = (
    "Listens to a folder of sounds as the corpora stage would read it (a folder for each class, or metadata.csv): sounds and "
    "seconds of each class, rates, silence, clipping, missing bandwidth, duplicates. Nothing is written. The exit status is 1 "
    "where the stage would stop."
)
LISTENED = 60.0  # s of each sound


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    `classes` has a row a class [sounds, share, seconds, shortest, rates, channels]; `problems` a row a kind of problem
    [problem, count, examples] as `corpora.audit.audit_problems` has them; `sounds` a row a usable sound, with its levels;
    `stops` the sentences with which the corpora stage would stop, none where it would not; `splits` the clips of each split;
    `settings` the entry of `corpora` that follows.
    """

    classes: pd.DataFrame
    problems: pd.DataFrame
    sounds: pd.DataFrame
    stops: list[str]
    splits: dict[str, int]
    settings: dict


def check(folder: str | Path) -> Checked:
    """Audit a folder of sounds, or a CSV of path and caption or label, without preparing it.

    The first 60 s of each sound count, at its own rate. A folder that holds no sounds at all is refused.
    """
    root = Path(folder)
    settings = Corpus(kind="folder", root=str(root), rate=16000, seconds=1.28, padding="dataset")
    clips, stops = _listed(root, settings)
    splits = {} if stops else _splits(settings, stops)
    below = root.parent if root.suffix == ".csv" else root
    seen = look_at(clips, settings, below)
    broken = [own["problem"] for own in seen if own["problem"]]
    usable = [clip for clip, own in zip(clips, seen) if own["problem"] is None]
    rows, prints, hashes = [], [], []
    for clip in progress(usable, desc="sounds", unit="sound"):
        try:
            row, shape, sha256 = _listen(clip, below)
        except AudioError as error:  # what only decoding finds
            broken.append(str(error))
            continue
        rows.append(row)
        prints.append(shape)
        hashes.append(sha256)
    if not rows:
        raise ValueError(f"{folder}: none of its {len(clips)} sounds can be used: {listed(broken)}")
    heard = _with_duplicates(pd.DataFrame(rows), np.stack(prints), hashes)
    entry = {"kind": "folder", "root": str(root)} | {
        key: getattr(settings, key) for key in ("rate", "seconds", "padding")
    }
    entry |= {"crop": "loudest"} if (heard.seconds > settings.seconds).any() else {}
    return Checked(_classes(heard), _problems(heard), heard, broken + stops, splits, entry)


def _listed(root: Path, settings: Corpus) -> tuple[list[dict], list[str]]:
    """The clips that are to be heard, and the sentences with which their listing would be refused.

    Of a folder of sounds without classes the sounds are heard, though no corpus can be made of it.
    """
    if root.suffix == ".csv" or (root / "metadata.csv").is_file():
        return read_clips(settings), []
    try:
        return of_classes(root)
    except CorpusError as error:
        if flat := [clip_row(path.name, "", group=path.stem) for path in sounds(root)]:
            return flat, [str(error)]
        raise


def _splits(settings: Corpus, stops: list[str]) -> dict[str, int]:
    """The number of clips of each split; what refuses them is added to `stops`."""
    try:
        return dict(Counter(clip["split"] for clip in list_corpus(settings)[0]))
    except CorpusError as error:
        stops.append(str(error))
        return {}


def _listen(clip: dict, root: Path) -> tuple[dict, np.ndarray, str]:
    """The row of a sound, its fingerprint and the hash of its samples."""
    path = root / clip["source_path"]
    wave, rate = read(path)
    info = soundfile.info(path)
    levels, shape = audit.measure(wave[: round(LISTENED * rate)], rate)
    about = {"id": clip["source_path"], "split": "", "label": clip["label"], "rate": rate, "channels": info.channels}
    return about | {"seconds": len(wave) / rate} | levels, shape, hashlib.sha256(wave.tobytes()).hexdigest()


def _with_duplicates(heard: pd.DataFrame, prints: np.ndarray, hashes: list[str]) -> pd.DataFrame:
    earlier, kinds = audit.duplicates(hashes, prints, heard.split.to_numpy())
    ids = heard.id.to_numpy()
    return heard.assign(duplicate_of=[ids[i] if i >= 0 else "" for i in earlier], duplicate_kind=kinds)


def _problems(heard: pd.DataFrame) -> pd.DataFrame:
    found = audit.audit_problems(heard)
    found = found[~found.problem.str.contains("another split")]
    return found.assign(problem=found.problem.str.removesuffix(" in the same split"))


def _classes(heard: pd.DataFrame) -> pd.DataFrame:
    def distinct(values: pd.Series) -> str:
        return ", ".join(map(str, sorted(values.unique())))

    rows = heard.assign(label=heard.label.replace("", "(no classes)")).groupby("label")
    return rows.agg(
        sounds=("id", "size"),
        share=("id", lambda own: len(own) / len(heard)),
        seconds=("seconds", "sum"),
        shortest=("seconds", "min"),
        rates=("rate", distinct),
        channels=("channels", distinct),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("what", choices=["check"], help="what to do")
    parser.add_argument(
        "folder", type=Path, help="a folder for each class in it, or a CSV of path and caption or label"
    )


def run(arguments: argparse.Namespace) -> None:
    found = check(arguments.folder)
    total = found.classes.seconds.sum()
    print(f"{len(found.sounds)} sounds, {total:.1f} s, in {len(found.classes)} classes\n")
    print(found.classes.round(2).to_string(), "\n")
    present = found.problems[found.problems["count"] > 0]
    shown = present.assign(examples=present.examples.map(", ".join))
    print(shown.to_string(index=False) if len(present) else "no silence, clipping, missing bandwidth or duplicates")
    if found.stops:
        more = len(found.stops) - LISTED
        told = found.stops[:LISTED] + [f"and {more} more"] * (more > 0)
        raise ValueError(f"{arguments.folder}: the corpora stage would stop here:\n" + "\n".join(told))
    print(f"\nsplits: {', '.join(f'{split} {count}' for split, count in found.splits.items())}; settings:\n")
    print(yaml.safe_dump({"corpora": {"foley": found.settings}}, sort_keys=False), end="")
    if len(found.classes) == 1 and found.sounds.label.all():
        print(
            "\nNote: there is one class alone, and a judge of classes, which scores the clips, is trained on two or more."
        )
