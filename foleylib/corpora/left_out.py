"""Clips that a data set lists and a corpus has not: no sound file, no caption, or on a blacklist. They are counted,
refused unless the settings let them go, and listed beside the manifest."""

import csv
from collections import Counter
from pathlib import Path

from foleylib.datasets.manifest import CorpusError
from foleylib.params.corpora import Corpus

FILE = "left_out.csv"
SHOWN = 5


def check_left_out(clips: list[dict], left_out: list[dict], settings: Corpus) -> None:
    """Refuse a corpus that lacks listed clips, under `absent: refuse`; and one that has none left of a split."""
    lacking = [clip for clip in left_out if not clip["left_out"].startswith("blacklist")]
    if lacking and (settings.absent == "refuse" or not clips):
        total = len(lacking) + len(clips)
        some = ", ".join(f"{clip['source_path']} ({clip['left_out']})" for clip in lacking[:SHOWN])
        remedy = "or set `absent: skip`, and they are left out and listed" if clips else "or correct `root`"
        raise CorpusError(
            f"root {settings.root}: {len(lacking)} of {total} listed clips cannot be taken, such as {some}; put these "
            f"files there, {remedy}"
        )
    if not clips:
        raise CorpusError(
            f"root {settings.root}: {summary(left_out) or 'lists no clips'}, none is left; correct the settings"
        )
    emptied = {clip.get("split") for clip in left_out} - {clip.get("split") for clip in clips} - {None}
    if emptied:
        raise CorpusError(
            f"root {settings.root}: no clip of {', '.join(sorted(emptied))} has a sound; put them there or take the list "
            "out of `lists`"
        )


def summary(left_out: list[dict]) -> str:
    """Counts of clips by reason: "3 clips left out: 2 no sound file, 1 no caption"; "" without any."""
    counts = Counter(clip["left_out"] for clip in left_out)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{len(left_out)} listed clips left out: {reasons}" if left_out else ""


def write_left_out(name: str, folder: Path, left_out: list[dict]) -> None:
    """Say how many clips a corpus leaves out, and write `left_out.csv` [source_path, split, reason] into its folder;
    neither where it has all."""
    (folder / FILE).unlink(missing_ok=True)  # of a killed run
    if not left_out:
        return
    print(f"corpus {name}: {summary(left_out)}; see {FILE} beside its manifest")
    rows = sorted((clip["source_path"], clip.get("split", ""), clip["left_out"]) for clip in left_out)
    with open(folder / FILE, "w", newline="", encoding="utf8") as file:
        csv.writer(file, lineterminator="\n").writerows([("source_path", "split", "reason"), *rows])
