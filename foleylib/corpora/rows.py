"""What the readers of data sets share: rows of clips, tables, and the sounds of a folder."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from foleylib.corpora import csv_file
from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.remarks import listed, no_utf8

AUDIO = (".wav", ".flac", ".ogg", ".mp3")


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


def is_sound(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(AUDIO)


def sounds(folder: Path) -> list[Path]:
    """The sounds of a folder, in order of their names; what only has such a name, as a dangling link, is refused later."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if is_sound(path.name)]


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
    try:
        text = csv_file.checked(path, columns, "correct it, or take the published file")
    except ValueError as error:
        raise CorpusError(str(error)) from None
    rows = [{key: value.strip() for key, value in row.items()} for row in csv.DictReader(io.StringIO(text, newline=""))]
    if not rows:
        raise CorpusError(f"{path}: has a header and no rows; give it a row for each clip")
    return rows


def refuse(path: Path, rows: Sequence, fault: str, of: str = "rows") -> None:
    """Refuse a published file for the rows that have a fault, if there are any."""
    if rows:
        raise CorpusError(f"{path}: {of} {listed(rows)} {fault}; take the published file")


def check_filled(path: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
    """Refuse a table with nothing in some of these columns of a row."""
    bare = [f"{number} ({name})" for number, row in enumerate(rows, 2) for name in columns if not row[name]]
    refuse(path, bare, "hold nothing")


def folds(path: Path, rows: list[dict]) -> list[int]:
    """The fold of each row of a table."""
    cells = [row["fold"] for row in rows]
    odd = [f"{n} ({cell!r})" for n, cell in enumerate(cells, 2) if not (cell.isascii() and cell.isdecimal())]
    refuse(path, odd, "have a fold that is no whole number")
    return [int(cell) for cell in cells]


def check_inside(root: str, sources: Iterable[str]) -> None:
    """Refuse paths of sounds that lead out of the root: absolute ones, and those with ".."."""
    outside = []
    for source in sources:
        path = PureWindowsPath(source)  # knows all that may lead away: drives, roots and both slashes
        if path.drive or path.root or ".." in path.parts:
            outside.append(source)
    if outside:
        raise CorpusError(
            f"root {root}: {listed(outside)} lead out of it; write paths relative to it, and put the sounds there"
        )


def check_utf8(root: str | Path, sources: Iterable[str]) -> None:
    """Refuse paths of sounds that no table can hold."""
    if names := no_utf8(sources):
        raise CorpusError(f"root {root}: names that are no UTF-8, {listed(names)}; rename these files or their folders")


def wrong_layout(root: Path, expected: str) -> CorpusError:
    """The error of a folder that does not hold what a reader expects."""
    present = "a file" if root.is_file() else "no such folder"
    if root.is_dir():
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        present = ", ".join(names[:10] + ["..."] * (len(names) > 10)) or "an empty folder"
    return CorpusError(
        f"root {root}: expected {expected}; found: {present}. Point `root` at the folder that holds these"
    )
