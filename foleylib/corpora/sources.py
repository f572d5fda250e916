"""Layouts of the public corpora: which clips a folder holds, from which recording, in which split.

A layout is one reader in `READERS`. It returns one row per clip: source_path (relative to the root), name (what its id
is formed from), label ("" without one), captions (a list, may be empty), source_group (clips of one recording),
licence, `fold` or `split` where the corpus has one of its own, and `left_out`, the reason, where a listed clip cannot
be taken.
"""

from functools import partial
from pathlib import Path

from foleylib.corpora.own import folder
from foleylib.corpora.rows import check_filled, check_inside, clip_row, folds, read_csv, sounds, wrong_layout
from foleylib.corpora.wavcaps import wavcaps
from foleylib.corpora.youtube import audiocaps, audioset
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
    check_filled(root / "meta/esc50.csv", rows, ("filename", "category", "src_file"))
    of_rows = folds(root / "meta/esc50.csv", rows)
    licences = {}
    if (root / "ATTRIBUTION.csv").is_file():
        attribution = read_csv(root, "ATTRIBUTION.csv", ("clip", "licence"))
        licences = {Path(row["clip"]).stem: row["licence"] for row in attribution}
    clips = []
    for row, fold in zip(rows, of_rows):
        usual = "CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0"
        licence = licences.get(f"{row['fold']}-{row['src_file']}-{row['take']}", usual)
        clip = clip_row(f"audio/{row['filename']}", row["category"], group=row["src_file"], licence=licence)
        clips.append({**clip, "name": Path(row["filename"]).stem, "fold": fold})
    return clips


def urbansound8k(root: Path) -> list[dict]:
    """UrbanSound8K (Salamon et al., ACM MM 2014): metadata/UrbanSound8K.csv, audio/foldN/; ten folds by Freesound id."""
    clips, name = [], "metadata/UrbanSound8K.csv"
    rows = read_csv(root, name, ("slice_file_name", "fsID", "fold", "class"))
    check_filled(root / name, rows, ("slice_file_name", "fsID", "class"))
    for row, fold in zip(rows, folds(root / name, rows)):
        source = f"audio/fold{row['fold']}/{row['slice_file_name']}"
        clip = clip_row(source, row["class"], group=row["fsID"], licence="CC BY-NC 3.0")
        clips.append({**clip, "name": Path(source).stem, "fold": fold})
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
    if settings.kind == "folder" and isinstance(settings.classes, list):
        reader = partial(reader, classes=settings.classes)
    if settings.kind == "wavcaps":
        reader = partial(reader, sources=settings.sources, blacklists=settings.blacklists)
    clips = reader(Path(settings.root))
    check_inside(settings.root, [clip["source_path"] for clip in clips])
    return clips
