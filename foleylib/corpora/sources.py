"""Layouts of the public corpora: which clips a folder holds, from which recording, in which split.

A layout is one reader in `READERS`. It returns one row per clip: source_path (relative to the root), name (what its id
is formed from), label ("" without one), captions (a list, may be empty), source_group (clips of one recording),
licence, `fold` or `split` where the corpus has one of its own, and `left_out`, the reason, where a listed clip cannot
be taken.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path

from foleylib.corpora.rows import clip_row, read_csv, sounds, wrong_layout
from foleylib.corpora.wavcaps import wavcaps
from foleylib.corpora.youtube import audiocaps, audioset
from foleylib.datasets.manifest import CorpusError
from foleylib.params.corpora import LISTS, Corpus

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
    rows = read_csv(root, "meta/esc50.csv", ("filename", "fold", "category", "esc10", "src_file", "take"))
    licences = {}
    if (root / "ATTRIBUTION.csv").is_file():
        attribution = read_csv(root, "ATTRIBUTION.csv", ("clip", "licence"))
        licences = {Path(row["clip"]).stem: row["licence"] for row in attribution}
    clips = []
    for row in rows:
        usual = "CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0"
        licence = licences.get(f"{row['fold']}-{row['src_file']}-{row['take']}", usual)
        clip = clip_row(f"audio/{row['filename']}", row["category"], group=row["src_file"], licence=licence)
        clips.append({**clip, "name": Path(row["filename"]).stem, "fold": int(row["fold"])})
    return clips


def urbansound8k(root: Path) -> list[dict]:
    """UrbanSound8K (Salamon et al., ACM MM 2014): metadata/UrbanSound8K.csv, audio/foldN/; ten folds by Freesound id."""
    clips = []
    for row in read_csv(root, "metadata/UrbanSound8K.csv", ("slice_file_name", "fsID", "fold", "class")):
        source = f"audio/fold{row['fold']}/{row['slice_file_name']}"
        clip = clip_row(source, row["class"], group=row["fsID"], licence="CC BY-NC 3.0")
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
        raise wrong_layout(root, f"DCASE 2023 Task 7, that is <Class>/<id>.wav with {', '.join(DCASE_PROMPTS)}{where}")
    return clips + [{**clip, "split": "test"} for clip in evaluation]


def _dcase_classes(root: Path, part: str, prefix: str) -> list[dict]:
    """The clips of the challenge's class folders in `part` of the root; names and groups begin with `prefix`."""
    present = sorted((root / part).iterdir()) if (root / part).is_dir() else []
    written, clips = {path.name.replace("_", "").lower(): path for path in present}, []
    for label in DCASE_PROMPTS:
        for path in sounds(written.get(label.replace("_", "").lower(), root / part / label)):
            name = f"{prefix}{label}/{path.stem}"
            source = path.relative_to(root).as_posix()
            clip = clip_row(source, label, group=name, licence="research use only (DCASE 2023 Task 7)")
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
        clip_row(f"{label.name}/{path.name}", label.name, group=path.stem)
        for label in (sorted(root.iterdir()) if root.is_dir() else [])
        for path in sounds(label)
    ]
    if not clips:
        raise wrong_layout(root, "<class>/*.wav (or flac, ogg, mp3), or metadata.csv (path, caption, label)")
    return clips


READERS = {
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "dcase2023t7": dcase2023t7,
    "audiocaps": audiocaps,
    "wavcaps": wavcaps,
    "audioset": audioset,
    "folder": folder,
}
CLASSES = {"dcase2023t7": tuple(DCASE_PROMPTS)}  # what a corpus must hold, unless the settings name its classes

# kind: what the licence of the data set says, and whether it lets clips (and what is trained on them) be used
# commercially. The licence of a single clip, where it has one, stands in the manifest.
LICENCES = {
    "synthetic": ("CC0 1.0: made here", True),
    "esc50": ("CC BY-NC 3.0; ESC-10, a part of it, CC BY 3.0; each clip's in its ATTRIBUTION.csv", False),
    "urbansound8k": ("CC BY-NC 3.0 (its readme), CC BY-NC 4.0 (Zenodo)", False),
    "dcase2023t7": ("of UrbanSound8K, FSD50K and BBC Sound Effects, for research in the challenge", False),
    "audiocaps": (
        "captions for academic purposes only (its readme; its LICENSE is MIT), audio of YouTube's uploaders",
        False,
    ),
    "wavcaps": (
        "academic use only; audio of Freesound's uploaders, the BBC, SoundBible and YouTube's uploaders",
        False,
    ),
    "audioset": ("labels CC BY 4.0 (Google), ontology CC BY-SA 4.0, audio of YouTube's uploaders", False),
    "folder": ("not known to this library: what the column `licence` of metadata.csv says of each clip", False),
}


def read_clips(settings: Corpus) -> list[dict]:
    """The rows of the corpus that the settings name, from the reader of its kind."""
    reader = READERS[settings.kind]
    if settings.kind in LISTS:
        lists = LISTS[settings.kind]
        reader = partial(reader, lists=tuple(name for name in lists if name in (settings.lists or lists)))
    if settings.kind == "wavcaps":
        reader = partial(reader, sources=settings.sources, blacklists=settings.blacklists)
    return reader(Path(settings.root))


def _table(root: Path, name: str) -> list[dict]:
    path, rows = root / name, read_csv(root, name, ("path",))
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
        raise CorpusError(f"{path}: listed more than once: {', '.join(twice)}; keep one row of each")
    if without:
        raise CorpusError(
            f"{path}: listed with a caption and without one: {', '.join(without)}; remove the latter rows"
        )
