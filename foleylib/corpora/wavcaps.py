"""WavCaps (Mei et al., 2024): 403,050 clips of four sources with one caption each, written by a language model."""

import json
from pathlib import Path

from foleylib.corpora.rows import Files, clip_row, refuse, wrong_layout
from foleylib.corpora.youtube import NO_FILE
from foleylib.datasets.manifest import CorpusError

TABLES = {
    "FreeSound": "fsd_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "SoundBible": "sb_final.json",
    "AudioSet_SL": "as_final.json",
}
SOURCE_LICENCES = {
    "FreeSound": "audio: the uploader's Creative Commons licence (freesound.org)",
    "BBC_Sound_Effects": "audio: the BBC's licence (sound-effects.bbcrewind.co.uk/licensing)",
    "SoundBible": "audio: licence of its page (soundbible.com)",
    "AudioSet_SL": "audio: rights of the YouTube uploaders",
}
TEST_SETS = ("test_ac", "ub8k_esc50_vggsound")  # blacklists of clips that others test with
BLACKLISTED = {"FreeSound": "FreeSound", "AudioSet_SL": "AudioSet"}  # source: its key in a blacklist
NO_CAPTION = "no caption"


def wavcaps(root: Path, sources: list[str] | None, blacklists: list[str] | None) -> list[dict]:
    """json_files/<source>/*_final.json, {"data": [{"id", "caption", ...}]}, and <id>.flac in a folder <source> or
    <source>_flac, wherever below the root (as the published zips, several parts each, unpack).

    A clip on one of the `blacklists` (json_files/blacklist/) has `left_out`, and so has one without sound or caption.
    """
    wanted, blocked = sources or list(TABLES), _blocked(root, TEST_SETS if blacklists is None else blacklists)
    return [clip for source in wanted for clip in _source(root, source, blocked.get(BLACKLISTED.get(source), {}))]


def _source(root: Path, source: str, blocked: dict[str, str]) -> list[dict]:
    clips, files = {}, Files(root, (source, f"{source}_flac"))
    path = f"json_files/{source}/{TABLES[source]}"
    data = _read(root, path, "data", list)
    nameless = [number for number, item in enumerate(data) if not isinstance(item, dict) or "id" not in item]
    refuse(root / path, nameless, "have no id", of="entries of data")
    for item in data:
        stem = _stem(item["id"])
        clip = clips.get(stem) or _clip(files, source, stem, blocked)
        said = str(item.get("caption") or "").strip()
        clip["captions"] += [said] * (said not in ("", *clip["captions"]))
        clips[stem] = clip
    for clip in clips.values():
        if not clip["captions"]:
            clip.setdefault("left_out", NO_CAPTION)
    return list(clips.values())


def _clip(files: Files, source: str, stem: str, blocked: dict[str, str]) -> dict:
    found = files.path([stem])
    video = stem[1:] if source == "AudioSet_SL" else f"{source}/{stem}"  # PANNs' file names: Y and the video's id
    licence = f"academic use only (WavCaps); {SOURCE_LICENCES[source]}"
    clip = clip_row(found or f"{source}/{stem}.flac", "", group=video, licence=licence) | {"name": f"{source}-{stem}"}
    why = blocked.get(stem) or (None if found else NO_FILE)
    return clip | ({"left_out": why} if why else {})


def _blocked(root: Path, blacklists) -> dict[str, dict[str, str]]:
    """{key of a source: {stem: reason}} of the clips on the blacklists."""
    blocked = {key: {} for key in BLACKLISTED.values()}
    for name in blacklists:
        path = f"json_files/blacklist/blacklist_exclude_{name}.json"
        for key, reasons in blocked.items():
            reasons |= {_stem(id): f"blacklist {name}" for id in _read(root, path, key, list)}
    return blocked


def _stem(id) -> str:
    """The name of a clip's file: ids of AudioSet end in .wav, though the files are FLAC."""
    return str(id).removesuffix(".wav").removesuffix(".flac")


def _read(root: Path, name: str, key: str, kind: type):
    path = root / name
    if not path.is_file():
        where = "huggingface.co/datasets/cvssp/WavCaps, whose zips zip -s 0 joins and unzip unpacks"
        raise wrong_layout(root, f"{name} and the sounds of WavCaps ({where})")
    try:
        value = json.loads(path.read_text(encoding="utf8"))[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(f"{path}: no JSON with the key {key!r} ({error}); take the published file") from error
    if not isinstance(value, kind):
        raise CorpusError(f"{path}: {key!r} holds no {kind.__name__}; take the published file")
    return value
