"""AudioCaps and AudioSet: lists of excerpts of YouTube videos, whose sounds lie as each one's downloader named them.

The publishers give the lists alone, so a clip may have no file: such a row has `left_out`, the reason.
"""

from collections import Counter
from pathlib import Path

from foleylib.corpora import csv_file
from foleylib.corpora.rows import Files, clip_row, read_csv, wrong_layout
from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.remarks import listed

NO_FILE = "no sound file"
OWNERS = "audio: rights of the YouTube uploaders"
SECONDS = 10.0


def audiocaps(root: Path, lists: tuple[str, ...]) -> list[dict]:
    """AudioCaps (Kim et al., NAACL 2019): train.csv, val.csv, test.csv with a row a caption, here or in dataset/.

    One clip per video and start; the captions of a clip (five in val and test, spread over the table) in the order of
    their rows, the first of which the papers score. Sounds lie anywhere below the root, named as `names` says.
    """
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    tables, clips = root if (root / f"{lists[0]}.csv").is_file() else root / "dataset", {}
    if not tables.is_dir():
        raise wrong_layout(
            root,
            f"{lists[0]}.csv of AudioCaps (github.com/cdjkim/audiocaps, dataset/) and its sounds, which only YouTube has",
        )
    for split in lists:
        path = tables / f"{split}.csv"
        for number, row in enumerate(read_csv(tables, path.name, columns), 2):
            if not (row["youtube_id"] and row["caption"]):
                raise CorpusError(f"{path}: row {number} has no youtube_id or no caption; take the published file")
            key = (row["youtube_id"], _seconds(row["start_time"], path, number))
            first = clips.setdefault(key, {"split": split, "captions": [], "rows": set()})
            if first["split"] != split or row["audiocap_id"] in first["rows"]:
                raise CorpusError(
                    f"{path}: row {number} lists {row['youtube_id']} at {row['start_time']} s again; take the published files"
                )
            first["captions"].append(row["caption"])
            first["rows"].add(row["audiocap_id"])
    for clip in clips.values():
        del clip["rows"]
    licence = f"captions: academic purposes only (AudioCaps); {OWNERS}"
    return _clips(root, {(video, start, start + SECONDS): clip for (video, start), clip in clips.items()}, licence)


def audioset(root: Path, lists: tuple[str, ...]) -> list[dict]:
    """AudioSet (Gemmeke et al., ICASSP 2017): balanced_train_segments.csv, unbalanced_train_segments.csv,
    eval_segments.csv and class_labels_indices.csv; excerpts of 10 s with several labels each, so no class.

    A clip's caption is the names of its labels, in the list's order. `eval` is the split "test"; clips of the other
    two have none of their own. Sounds lie anywhere below the root, named as `names` says.
    """
    labels = read_csv(root, "class_labels_indices.csv", ("mid", "display_name"))
    said, clips = {row["mid"]: row["display_name"] for row in labels}, {}
    for which in lists:
        path = root / (f"{which}_segments.csv" if which == "eval" else f"{which}_train_segments.csv")
        for number, (video, start, end, mids) in _segments(path):
            key = (video, _seconds(start, path, number), _seconds(end, path, number))
            unknown = [mid for mid in mids.split(",") if mid not in said]
            if unknown or key in clips:
                what = (
                    f"the label {unknown[0]}, which class_labels_indices.csv has not" if unknown else f"{video} again"
                )
                raise CorpusError(f"{path}: row {number} has {what}; take the published files")
            split = {"split": "test"} if which == "eval" else {}
            clips[key] = {"captions": [", ".join(said[mid] for mid in mids.split(","))], **split}
    return _clips(root, clips, f"labels: CC BY 4.0 (AudioSet, Google); {OWNERS}")


def _segments(path: Path):
    """Number and four cells of each row of a list of AudioSet, whose header is a comment like the two lines above it."""
    if not path.is_file():
        raise wrong_layout(
            path.parent,
            f"{path.name} of AudioSet (research.google.com/audioset/download.html) and its sounds, which only YouTube "
            "has; name the lists you have in `lists`",
        )
    try:
        rows = csv_file.lines(path, "take the published file", skipinitialspace=True)
    except ValueError as error:
        raise CorpusError(str(error)) from None
    for number, row in rows:
        if row[0].startswith("#"):
            continue
        if len(row) != 4 or not all(row):
            raise CorpusError(
                f"{path}: row {number} is {listed(row)[:200]}, not YTID, start_seconds, end_seconds, positive_labels; take "
                "the published file"
            )
        yield number, row


def _seconds(cell: str, path: Path, number: int) -> float:
    try:
        seconds = float(cell)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:  # NaN is not either
        raise CorpusError(f"{path}: row {number} has the time {cell!r}, no number of s; take the published file")
    return seconds


def _clips(root: Path, clips: dict[tuple[str, float, float], dict], licence: str) -> list[dict]:
    """Rows of the clips of (video, start, end): each with the sound that is found, or `left_out`."""
    files, rows = Files(root), []
    excerpts = Counter(video for video, _, _ in clips)
    for (video, start, end), own in clips.items():
        stems = names(video, start, end, alone=excerpts[video] == 1)
        source = files.path(stems)
        row = clip_row(source or f"{stems[0]}.wav", "", group=video, licence=licence) | own
        rows.append(row | {"name": stems[0]} | ({} if source else {"left_out": NO_FILE}))
    return rows


def names(video: str, start: float, end: float, alone: bool = True) -> list[str]:
    """Stems under which downloaders save an excerpt, the likeliest first: the id of its video, or Y and the id, with the
    start (and the end) in s or ms, or without where `alone` it is of that video."""
    seconds, thousandths = f"{start:g}", f"{round(1000 * start)}"
    times = [seconds, f"{start:.3f}", f"{start:.1f}", thousandths]
    times += [
        f"{seconds}_{end:g}",
        f"{start:.3f}_{end:.3f}",
        f"{start:.1f}_{end:.1f}",
        f"{thousandths}_{round(1000 * end)}",
    ]
    stems = [f"{video}_{time}" for time in times] + [video] * alone
    return stems + [f"Y{stem}" for stem in stems]
