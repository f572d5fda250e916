"""What the readers of data sets share: rows of clips, tables, and the sounds of a folder."""

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from foleylib.datasets.manifest import CorpusError

AUDIO = (".wav", ".flac", ".ogg", ".mp3")
SHOWN = 20  # of what is wrong, by name; the others are counted


def clip_row(source: str, label: str, *, group: str, licence: str = "unknown") -> dict:
    """A clip without captions, named as its file is."""
    return {
        "source_path": source,
        "name": str(Path(source).with_suffix("")),
        "label": label,
        "captions": [],
        "source_group": group,
        "licence": licence,
    }


def named(names: Sequence[str]) -> str:
    """At most 20 of what an error is about, and how many more there are: "a, b and 3 more"."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def is_sound(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(AUDIO)


def sounds(folder: Path) -> list[Path]:
    """The sounds of a folder, in order of their names."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if is_sound(path.name) and path.is_file()]


class Files:
    """The sounds of a folder and all below it, found by stem: one walk, and not a look for each of a million clips.

    `branches` are folders of which one must lie between the root and a sound, for it to count.
    """

    def __init__(self, root: Path, branches: tuple[str, ...] = ()):
        self.root, self.found = root, defaultdict(list)
        for folder, folders, names in os.walk(root):
            folders.sort()
            below = os.path.relpath(folder, root)
            if branches and not set(branches) & set(Path(below).parts):
                continue
            for name in filter(is_sound, names):
                self.found[os.path.splitext(name)[0]].append(name if below == "." else f"{below}/{name}")

    def path(self, stems: list[str]) -> str | None:
        """The sound of the first of some stems that is there, relative to the root; None without."""
        found = next((self.found[stem] for stem in stems if stem in self.found), [None])
        if len(found) > 1:
            raise CorpusError(
                f"root {self.root}: one clip in several files, {', '.join(sorted(found))}; keep one of them"
            )
        return found[0]


def read_csv(root: Path, name: str, columns: tuple[str, ...]) -> list[dict]:
    """Rows of a CSV that has a header with these columns, and perhaps others."""
    path = root / name
    if not path.is_file():
        raise wrong_layout(root, name)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    present = list(rows[0]) if rows else []
    if not set(columns) <= set(present):
        raise CorpusError(f"{path}: expected rows with the columns {', '.join(columns)}; found {present or 'no rows'}")
    return rows


def wrong_layout(root: Path, expected: str) -> CorpusError:
    """The error of a folder that does not hold what a reader expects."""
    present = "no such folder"
    if root.is_dir():
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        present = ", ".join(names[:10] + ["..."] * (len(names) > 10)) or "an empty folder"
    return CorpusError(
        f"root {root}: expected {expected}; found: {present}. Point `root` at the folder that holds these"
    )
