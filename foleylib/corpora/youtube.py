"""AudioCaps and AudioSet: lists of excerpts of YouTube videos, whose sounds lie as each one's downloader named them.

The publishers give the lists alone, so a clip may have no file: such a row has `left_out`, the reason.
"""

from collections import Counter
from pathlib import Path

from foleylib.corpora import csv_file
from foleylib.corpora.rows import Files, check_filled, clip_row, read_csv, refuse, wrong_layout
from foleylib.datasets.manifest import CorpusError

NO_FILE = "no sound file"
OWNERS = "audio: rights of the YouTube uploaders"
SECONDS = 10.0
SEGMENT = ("YTID", "start_seconds", "end_seconds", "positive_labels")  # cells of a row of AudioSet
KNOWN = "have what a row before, or another list, has"


def audiocaps(root: Path, lists: tuple[str, ...]) -> list[dict]:
    """AudioCaps (Kim et al., NAACL 2019): train.csv, val.csv, test.csv with a row a caption, here or in dataset/.

    One clip per video and start; the captions of a clip (five in val and test, spread over the table) in the order of
    their rows, the first of which the papers score. Sounds lie anywhere below the root, named as `names` says.
    """
    tables, clips = root if (root / f"{lists[0]}.csv").is_file() else root / "dataset", {}
    if not tables.is_dir():
        raise wrong_layout(
            root,
            f"{lists[0]}.csv of AudioCaps (github.com/cdjkim/audiocaps, dataset/) and its sounds, which only YouTube has",
        )
    for split in lists:
        _add_captions(clips, tables / f"{split}.csv", split)
    for clip in clips.values():
        del clip["rows"]
    licence = f"captions: academic purposes only (AudioCaps); {OWNERS}"
    return _clips(root, {(video, start, start + SECONDS): clip for (video, start), clip in clips.items()}, licence)


def _add_captions(clips: dict[tuple[str, float], dict], path: Path, split: str) -> None:
    """Add the captions of a table of AudioCaps to the clips of (video, start) that are known so far."""
    rows = read_csv(path.parent, path.name, ("audiocap_id", "youtube_id", "start_time", "caption"))
    check_filled(path, rows, ("youtube_id", "caption"))
    starts, again = _seconds(path, {n: row["start_time"] for n, row in enumerate(rows, 2)}, "start_time"), []
    for number, (row, start) in enumerate(zip(rows, starts), 2):
        first = clips.setdefault((row["youtube_id"], start), {"split": split, "captions": [], "rows": set()})
        if first["split"] != split or row["audiocap_id"] in first["rows"]:
            again.append(f"{number} ({row['youtube_id']} at {start:g} s)")
        first["captions"].append(row["caption"])
        first["rows"].add(row["audiocap_id"])
    refuse(path, again, KNOWN)


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
        _add_segments(clips, path, said, {"split": "test"} if which == "eval" else {})
    return _clips(root, clips, f"labels: CC BY 4.0 (AudioSet, Google); {OWNERS}")


def _add_segments(clips: dict[tuple[str, float, float], dict], path: Path, said: dict[str, str], split: dict) -> None:
    """Add the excerpts of a list of AudioSet to those of (video, start, end) that are known so far."""
    rows = _segments(path)
    labels = {number: row[3].split(",") for number, row in rows.items()}
    unknown = {number: [mid for mid in mids if mid not in said] for number, mids in labels.items()}
    told = [f"{number} ({', '.join(mids)})" for number, mids in unknown.items() if mids]
    refuse(path, told, "have labels that class_labels_indices.csv has not")
    times = [_seconds(path, {n: row[i] for n, row in rows.items()}, SEGMENT[i]) for i in (1, 2)]
    again = []
    for number, start, end in zip(rows, *times):
        video = rows[number][0]
        again += [f"{number} ({video})"] * ((video, start, end) in clips)
        clips[video, start, end] = {"captions": [", ".join(said[mid] for mid in labels[number])], **split}
    refuse(path, again, KNOWN)


def _segments(path: Path) -> dict[int, list[str]]:
    """The rows of a list of AudioSet, cells as in `SEGMENT`, by their numbers; its header is a comment like the two lines above it."""
    if not path.is_file():
        raise wrong_layout(
            path.parent,
            f"{path.name} of AudioSet (research.google.com/audioset/download.html) and its sounds, which only YouTube "
            "has; name the lists you have in `lists`",
        )
    try:
        lines = csv_file.lines(path, "take the published file", skipinitialspace=True)
    except ValueError as error:
        raise CorpusError(str(error)) from None
    rows = {number: row for number, row in lines if not row[0].startswith("#")}
    odd = [f"{n} ({', '.join(row)[:40]})" for n, row in rows.items() if len(row) != len(SEGMENT) or not all(row)]
    refuse(path, odd, f"are not {', '.join(SEGMENT)}")
    return rows


def _seconds(path: Path, cells: dict[int, str], column: str) -> list[float]:
    """The times in s that stand in a column, whose cells are given by their rows' numbers."""
    seconds = [_number(cell) for cell in cells.values()]
    odd = [f"{n} ({cells[n]!r})" for n, value in zip(cells, seconds) if not 0 <= value < 1e6]  # NaN is not either
    refuse(path, odd, f"have a {column} that is no number of s")
    return seconds


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


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
