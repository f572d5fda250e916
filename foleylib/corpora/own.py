"""Sounds of one's own: a folder of them for each class, or a CSV that names them."""

import re
from collections import Counter
from pathlib import Path

from foleylib.corpora.rows import AUDIO, check_utf8, clip_row, is_sound, read_csv, sounds, wrong_layout
from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.remarks import listed

OTHERS = (".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".m4a", ".mp4", ".oga", ".opus", ".webm", ".wma")  # not read
# Columns of a table that are read; others may stand there.
COLUMNS = re.compile(r"path|label|split|caption(_\d+)?|source_group|group|licence")


def folder(root: Path, classes: list[str] | None = None) -> list[dict]:
    """Any <class>/*.{wav,flac,ogg,mp3}, or metadata.csv (or a CSV as root): path, caption or label [, split, group].

    `source_group` or `group` names the recording; without it, files of the same stem count as one recording. A clip of
    several captions has a row for each of them (as AudioCaps' test clips), or columns caption_1, caption_2, ... (as
    Clotho's). Without a column `label` the corpus has no classes. Where `classes` are named,
    the folders of others are not looked at.
    """
    if root.suffix == ".csv":
        return _table(root.parent, root.name)
    if (root / "metadata.csv").exists():
        return _table(root, "metadata.csv")
    clips, faults = of_classes(root, classes)
    if faults:
        raise CorpusError(f"root {root}: {'; '.join(faults)}")
    return clips


def of_classes(root: Path, classes: list[str] | None = None) -> tuple[list[dict], list[str]]:
    """The clips of <class>/<sound>, and what else is in the folders that would be left out without a word.

    The faults are of the `classes` alone where these are named; hidden files and folders are no faults.
    """
    if root.is_file():
        raise CorpusError(
            f"root {root}: a file; give the folder of the classes' folders, or a CSV whose name ends in .csv (lower case)"
        )
    labels = [path for path in sorted(root.iterdir()) if path.name[0] != "."] if root.is_dir() else []
    found = {path.name: sounds(path) for path in labels if path.is_dir()}
    clips = [
        clip_row(f"{label}/{path.name}", label, group=path.stem) for label, paths in found.items() for path in paths
    ]
    if not clips:
        raise wrong_layout(root, "<class>/*.wav (or flac, ogg, mp3), or metadata.csv (path, caption, label)")
    counted = {label for label in found if classes is None or label in classes}
    check_utf8(root, [clip["source_path"] for clip in clips if clip["label"] in counted])
    dangling = [path.name for path in labels if path.is_symlink() and not path.exists()]
    faults = {
        "no sounds in {}, put some there or remove the folder": [
            label for label in sorted(counted) if not found[label]
        ],
        "{} outside the folders of the classes, move each into that of its class": [
            path.name for path in labels if is_sound(path.name) and not path.is_dir()
        ],
        "{} beside the folders of the classes, call it metadata.csv to have it read, or move it away": [
            path.name for path in labels if path.name.lower() == "metadata.csv"
        ],
        "{} are links to what is not there, correct or remove them": [n for n in dangling if not is_sound(n)],
        f"{{}} are none of {', '.join(AUDIO)}, convert or remove them": _below(root, counted, "*", OTHERS),
        "{} deeper than <class>/<sound>, move them up or remove them": _below(root, counted, "*/**/*", AUDIO),
    }
    return clips, [what.format(listed(names)) for what, names in faults.items() if names]


def _below(root: Path, labels: set[str], pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files of these suffixes in the folders of the classes, from the root; hidden ones do not count."""
    paths = [path.relative_to(root) for label in sorted(labels) for path in sorted((root / label).glob(pattern))]
    shown = [path.as_posix() for path in paths if not any(part[0] == "." for part in path.parts)]
    return [path for path in shown if path.lower().endswith(suffixes)]


def _table(root: Path, name: str) -> list[dict]:
    path, rows = root / name, read_csv(root, name, ("path",))
    _check_columns(path, list(rows[0]))
    columns = [column for column in rows[0] if re.fullmatch(r"caption(_\d+)?", column)]
    if not columns and "label" not in rows[0]:
        raise CorpusError(f"{path}: expected a column caption or label beside path; found {list(rows[0])}")
    said = [[row[column] for column in columns if row[column]] for row in rows]
    bare = [i for i, (row, own) in enumerate(zip(rows, said), 2) if not (row["path"] and (own or row.get("label")))]
    if bare:
        raise CorpusError(
            f"{path}: no path, or neither caption nor label, in rows {listed(bare)}; fill or remove these"
        )
    unlabelled = [i for i, row in enumerate(rows, 2) if not row.get("label", "")]
    if 0 < len(unlabelled) < len(rows):
        raise CorpusError(f"{path}: no label in rows {listed(unlabelled)}; give every row its label, or none")
    clips, differing = {}, []
    for number, (row, captions) in enumerate(zip(rows, said), 2):
        clip = _clip_of(row)
        first = clips.setdefault(clip["source_path"], clip)
        if others := [key for key in clip if key != "captions" and clip[key] != first[key]]:
            differing.append(f"{number} ({clip['source_path']}: {', '.join(others)})")
        first["captions"] += captions or [""]
    if differing:
        rows = f"rows {listed(differing)} say of a clip what a row before does not"
        raise CorpusError(f"{path}: {rows}; rows of one clip differ in their captions alone")
    _check_captions(path, clips)
    return list(clips.values())


def _check_columns(path: Path, columns: list[str]) -> None:
    """Refuse columns that case, blanks or an s part from one that is read: they would be passed over without a word."""
    meant = {column: column.strip().lower().replace("license", "licence") for column in columns}
    wrong = [f"{column!r} as {name}" for column, name in meant.items() if column != name and COLUMNS.fullmatch(name)]
    if wrong:
        raise CorpusError(f"{path}: columns that are not read as they are spelt; write {listed(wrong)}")


def _clip_of(row: dict) -> dict:
    """The clip of a row of a table, without captions."""
    source = Path(row["path"]).as_posix()
    group = row.get("source_group") or row.get("group") or Path(source).stem
    clip = clip_row(source, row.get("label") or "", group=group, licence=row.get("licence") or "unknown")
    return {**clip, "split": row["split"] or ""} if "split" in row else clip


def _check_captions(path: Path, clips: dict[str, dict]) -> None:
    """Refuse a clip that is listed twice with one caption, or without one; no caption at all becomes an empty list."""
    twice, without = [], []
    for source, clip in clips.items():
        said = clip["captions"]
        twice += [f"{source} {caption!r}".removesuffix(" ''") for caption, n in Counter(said).items() if n > 1]
        without += [source] if "" in said and len(said) > 1 else []
        clip["captions"] = [caption for caption in said if caption]
    if twice:
        raise CorpusError(f"{path}: listed more than once: {listed(twice)}; keep one row of each")
    if without:
        raise CorpusError(f"{path}: listed with a caption and without one: {listed(without)}; remove the latter rows")
