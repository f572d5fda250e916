"""Layouts of the public corpora: which clips a folder holds, from which recording, in which split.

A layout is one reader in `READERS`. It returns one row per clip: source_path (relative to the root), name (what its id
is formed from), label ("" without one), captions (a list, may be empty), source_group (clips of one recording),
licence, and `fold` or `split` where the corpus has one of its own.
"""

import csv
import re
from collections import Counter
from pathlib import Path

from foleylib.datasets.manifest import CorpusError

AUDIO = (".wav", ".flac", ".ogg", ".mp3")

# Prompts of Yuan et al. (text-driven Foley), in the order of the challenge's classes.
DCASE_PROMPTS = {
    "DogBark": "a dog bark",
    "Footstep": "foot steps",
    "GunShot": "gun shot",
    "Keyboard": "someone using keyboard",
    "MovingMotorVehicle": "a moving motor",
    "Rain": "rain",
    "Sneeze_Cough": "a man cough",
}


def esc50(root: Path) -> list[dict]:
    """ESC-50 and ESC-10 (Piczak, ACM MM 2015): meta/esc50.csv, audio/; five folds, split by source recording."""
    rows = _read_csv(root, "meta/esc50.csv", ("filename", "fold", "category", "esc10", "src_file", "take"))
    licences = {}
    if (root / "ATTRIBUTION.csv").is_file():
        attribution = _read_csv(root, "ATTRIBUTION.csv", ("clip", "licence"))
        licences = {Path(row["clip"]).stem: row["licence"] for row in attribution}
    clips = []
    for row in rows:
        usual = "CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0"
        licence = licences.get(f"{row['fold']}-{row['src_file']}-{row['take']}", usual)
        clip = _clip(f"audio/{row['filename']}", row["category"], group=row["src_file"], licence=licence)
        clips.append({**clip, "name": Path(row["filename"]).stem, "fold": int(row["fold"])})
    return clips


def urbansound8k(root: Path) -> list[dict]:
    """UrbanSound8K (Salamon et al., ACM MM 2014): metadata/UrbanSound8K.csv, audio/foldN/; ten folds by Freesound id."""
    clips = []
    for row in _read_csv(root, "metadata/UrbanSound8K.csv", ("slice_file_name", "fsID", "fold", "class")):
        source = f"audio/fold{row['fold']}/{row['slice_file_name']}"
        clip = _clip(source, row["class"], group=row["fsID"], licence="CC BY-NC 3.0")
        clips.append({**clip, "name": Path(source).stem, "fold": int(row["fold"])})
    return clips


def dcase2023t7(root: Path) -> list[dict]:
    """DCASE 2023 Task 7 (Choi et al.): <Class>/<id>.wav; recordings are not known, each clip is one.

    `root` is the development set, or the folder that holds it as dev/ beside the evaluation set as eval/, whose clips (4 s
    at 22.05 kHz, 100 a class) are of the split "test"; its classes may be written dog_bark.
    """
    both = (root / "dev").is_dir() and (root / "eval").is_dir()
    clips = _dcase_classes(root, "dev" if both else "", "")
    evaluation = _dcase_classes(root, "eval", "eval/") if both else []
    lacking = [label for label in DCASE_PROMPTS if both and label not in {clip["label"] for clip in evaluation}]
    if not clips or lacking:
        where = f"; eval/ has no sound of {', '.join(lacking)}" if lacking else ""
        raise _wrong_layout(root, f"DCASE 2023 Task 7, that is <Class>/<id>.wav with {', '.join(DCASE_PROMPTS)}{where}")
    return clips + [{**clip, "split": "test"} for clip in evaluation]


def _dcase_classes(root: Path, part: str, prefix: str) -> list[dict]:
    """The clips of the challenge's class folders in `part` of the root; names and groups begin with `prefix`."""
    present = sorted((root / part).iterdir()) if (root / part).is_dir() else []
    written, clips = {path.name.replace("_", "").lower(): path for path in present}, []
    for label in DCASE_PROMPTS:
        for path in _sounds(written.get(label.replace("_", "").lower(), root / part / label)):
            name = f"{prefix}{label}/{path.stem}"
            source = path.relative_to(root).as_posix()
            clip = _clip(source, label, group=name, licence="research use only (DCASE 2023 Task 7)")
            clips.append({**clip, "name": name})
    return clips


def folder(root: Path) -> list[dict]:
    """Any <class>/*.{wav,flac,ogg,mp3}, or metadata.csv (or a CSV as root): path, caption or label [, split, group].

    `source_group` or `group` names the recording; without it, files of the same stem count as one recording. A clip of
    several captions has a row for each of them (as AudioCaps' test clips), or columns caption_1, caption_2, ... (as
    Clotho's). Without a column `label` the corpus has no classes.
    """
    if root.suffix == ".csv":
        return _table(root.parent, root.name)
    if (root / "metadata.csv").is_file():
        return _table(root, "metadata.csv")
    clips = [
        _clip(f"{label.name}/{path.name}", label.name, group=path.stem)
        for label in (sorted(root.iterdir()) if root.is_dir() else [])
        for path in _sounds(label)
    ]
    if not clips:
        raise _wrong_layout(root, "<class>/*.wav (or flac, ogg, mp3), or metadata.csv (path, caption, label)")
    return clips


READERS = {"esc50": esc50, "urbansound8k": urbansound8k, "dcase2023t7": dcase2023t7, "folder": folder}
CLASSES = {"dcase2023t7": tuple(DCASE_PROMPTS)}  # what a corpus must hold, unless the settings name its classes


def _table(root: Path, name: str) -> list[dict]:
    path, rows = root / name, _read_csv(root, name, ("path",))
    columns = [column for column in rows[0] if re.fullmatch(r"caption(_\d+)?", column)]
    if not columns and "label" not in rows[0]:
        raise CorpusError(f"{path}: expected a column caption or label beside path; found {list(rows[0])}")
    said = [[row[column] for column in columns if row[column]] for row in rows]
    bare = [
        str(i) for i, (row, own) in enumerate(zip(rows, said), 2) if not (row["path"] and (own or row.get("label")))
    ]
    if bare:
        raise CorpusError(
            f"{path}: no path, or neither caption nor label, in rows {', '.join(bare)}; fill or remove these"
        )
    clips = {}
    for number, (row, captions) in enumerate(zip(rows, said), 2):
        clip = _clip_of(row)
        first = clips.setdefault(clip["source_path"], clip)
        if differing := [key for key in clip if key != "captions" and clip[key] != first[key]]:
            other = f"{path}: row {number} gives {clip['source_path']} another {', '.join(differing)} than a row before"
            raise CorpusError(f"{other}; rows of one clip differ in their captions alone")
        first["captions"] += captions or [""]
    _check_captions(path, clips)
    return list(clips.values())


def _clip_of(row: dict) -> dict:
    """The clip of a row of a table, without captions."""
    source = Path(row["path"]).as_posix()
    group = row.get("source_group") or row.get("group") or Path(source).stem
    clip = _clip(source, row.get("label") or "", group=group, licence=row.get("licence") or "unknown")
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
        raise CorpusError(f"{path}: listed more than once: {', '.join(twice)}; keep one row of each")
    if without:
        raise CorpusError(
            f"{path}: listed with a caption and without one: {', '.join(without)}; remove the latter rows"
        )


def _clip(source: str, label: str, *, group: str, licence: str = "unknown") -> dict:
    return {
        "source_path": source,
        "name": str(Path(source).with_suffix("")),
        "label": label,
        "captions": [],
        "source_group": group,
        "licence": licence,
    }


def _sounds(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if path.suffix.lower() in AUDIO and path.name[0] != "." and path.is_file()]


def _read_csv(root: Path, name: str, columns: tuple[str, ...]) -> list[dict]:
    path = root / name
    if not path.is_file():
        raise _wrong_layout(root, name)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    present = list(rows[0]) if rows else []
    if not set(columns) <= set(present):
        raise CorpusError(f"{path}: expected rows with the columns {', '.join(columns)}; found {present or 'no rows'}")
    return rows


def _wrong_layout(root: Path, expected: str) -> CorpusError:
    present = "no such folder"
    if root.is_dir():
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        present = ", ".join(names[:10] + ["..."] * (len(names) > 10)) or "an empty folder"
    return CorpusError(
        f"root {root}: expected {expected}; found: {present}. Point `root` at the folder that holds these"
    )
