"""Layouts of the public corpora: which clips a folder holds, from which recording, in which split.

Each reader returns one row per clip: source_path (relative to the root), label, caption (or ""), source_group
(clips of one recording), licence, and `fold` or `split` where the corpus has one of its own.
"""

import csv
from pathlib import Path

from foleylib.corpora.manifest import CorpusError

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


def _wrong_layout(root, expected):
    found = "no such folder"
    if root.is_dir():
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        found = ", ".join(names[:10] + ["..."] * (len(names) > 10)) or "an empty folder"
    return CorpusError(f"root {root}: expected {expected}; found: {found}. Point `root` at the folder that holds these")


def _read_csv(path, columns):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
        found = list(rows[0]) if rows else []
    if not rows or not set(columns) <= set(found):
        raise CorpusError(f"{path}: expected rows with the columns {', '.join(columns)}; found {found or 'no rows'}")
    return rows


def _sounds(folder):
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if path.suffix.lower() in AUDIO and path.name[0] != "." and path.is_file()]


def _clip(source, label, *, group, licence, caption="", **own):
    row = {"source_path": source, "label": label, "caption": caption, "source_group": group, "licence": licence}
    return row | own


def _fold(row):
    if not row["fold"].isdigit():
        raise CorpusError(f"fold {row['fold']!r} of {row} is not a number; correct the metadata")
    return int(row["fold"])


def esc50(root):
    """ESC-50 and ESC-10 (Piczak, ACM MM 2015): meta/esc50.csv, audio/; five folds, split by source recording."""
    if not (root / "meta/esc50.csv").is_file() or not (root / "audio").is_dir():
        raise _wrong_layout(root, "ESC-50, that is meta/esc50.csv and audio/")
    table = root / "ATTRIBUTION.csv"
    licences = {}
    if table.is_file():
        licences = {Path(row["clip"]).stem: row["licence"] for row in _read_csv(table, ("clip", "licence"))}
    clips = []
    for row in _read_csv(root / "meta/esc50.csv", ("filename", "fold", "category", "esc10", "src_file", "take")):
        usual = "CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0"
        licence = licences.get(f"{row['fold']}-{row['src_file']}-{row['take']}", usual)
        source = f"audio/{row['filename']}"
        clips.append(_clip(source, row["category"], group=row["src_file"], licence=licence, fold=_fold(row)))
    return clips


def urbansound8k(root):
    """UrbanSound8K (Salamon et al., ACM MM 2014): metadata/UrbanSound8K.csv, audio/foldN/; ten folds by Freesound id."""
    table = root / "metadata/UrbanSound8K.csv"
    if not table.is_file() or not (root / "audio").is_dir():
        raise _wrong_layout(root, "UrbanSound8K, that is metadata/UrbanSound8K.csv and audio/fold1/ to fold10/")
    return [
        _clip(
            f"audio/fold{row['fold']}/{row['slice_file_name']}",
            row["class"],
            group=row["fsID"],
            licence="CC BY-NC 3.0",
            fold=_fold(row),
        )
        for row in _read_csv(table, ("slice_file_name", "fsID", "fold", "class"))
    ]


def dcase2023t7(root):
    """DCASE 2023 Task 7 development set (Choi et al.): <Class>/<id>.wav; recordings are not known, each clip is one."""
    licence = "research use only (DCASE 2023 Task 7)"
    clips = [
        _clip(f"{label}/{path.name}", label, group=f"{label}/{path.stem}", licence=licence)
        for label in DCASE_PROMPTS
        for path in _sounds(root / label)
    ]
    if not clips:
        raise _wrong_layout(root, f"DCASE 2023 Task 7, that is <Class>/<id>.wav with {', '.join(DCASE_PROMPTS)}")
    return clips


def folder(root):
    """Any <class>/*.{wav,flac,ogg,mp3}, or metadata.csv (or a CSV as root): path, caption or label [, split, group].

    `source_group` or `group` names the recording; without it, files of the same stem count as one recording.
    """
    table = root if root.suffix == ".csv" else root / "metadata.csv"
    if table.is_file():
        return _listed(table)
    clips = [
        _clip(f"{label.name}/{path.name}", label.name, group=path.stem, licence="unknown")
        for label in (sorted(root.iterdir()) if root.is_dir() else [])
        for path in _sounds(label)
    ]
    if not clips:
        raise _wrong_layout(
            root, "<class>/*.wav (or flac, ogg, mp3), or metadata.csv with columns path, caption, label"
        )
    return clips


def _listed(table):
    rows = _read_csv(table, ("path",))
    if "caption" not in rows[0] and "label" not in rows[0]:
        raise CorpusError(f"{table}: expected a column caption or label beside path; found {list(rows[0])}")
    bare = [str(i) for i, row in enumerate(rows, 2) if not (row["path"] and (row.get("caption") or row.get("label")))]
    if bare:
        raise CorpusError(
            f"{table}: no path, or neither caption nor label, in rows {', '.join(bare)}; fill or remove these"
        )
    return [
        _clip(
            Path(row["path"]).as_posix(),
            row.get("label") or "",
            group=row.get("source_group") or row.get("group") or Path(row["path"]).stem,
            licence=row.get("licence") or "unknown",
            caption=row.get("caption") or "",
            **({"split": row["split"] or ""} if "split" in row else {}),
        )
        for row in rows
    ]


READERS = {"esc50": esc50, "urbansound8k": urbansound8k, "dcase2023t7": dcase2023t7, "folder": folder}
