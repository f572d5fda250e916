"""Score any folder of clips against another folder, or against stored statistics, with every metric at hand."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from foleylib.evaluation import clips, stored
from foleylib.evaluation.compared import OF_REFERENCE, PAIRS, Compared, all_metrics, conventions
from foleylib.evaluation.embeddings import Evaluated, described, embed_with, partners_of
from foleylib.evaluation.frechet import Gaussian
from foleylib.evaluation.scores import NUMBERS, over_classes
from foleylib.evaluation.statistics import group_rows
from foleylib.runtime import weights_sha256

COLUMNS = ["class", "metric", "embedder", "value", "low", "high", "n", "note"]
NEEDS_CLIPS = "needs the reference's clips; only its statistics are at hand"
CHUNK = 64  # files read at once


class Options(NamedTuple):
    """Seed of draws and splits, draws and level of intervals, splits of the inception score."""

    seed: int = 0
    bootstrap: int = 200
    level: float = 0.95
    splits: int = 10


DEFAULTS = Options()


@dataclass(frozen=True)
class ClipSet:
    """A folder of clips by every evaluator; `classes` and `ids` are plain (`_plain`), `shown` are classes as written."""

    shown: list[str]
    ids: list[str]
    found: dict[str, Evaluated]
    sha256: str

    @property
    def classes(self) -> list[str]:
        return [_plain(name) for name in self.shown]

    def rows(self, classes: list[str]) -> np.ndarray:
        """Numbers of the clips of some classes, of all where none is given."""
        return np.array([i for i, name in enumerate(self.classes) if name in classes or not classes], dtype=int)


Statistics = dict[str, dict[str, Gaussian]]  # class, "" for a whole set -> evaluator -> mean and covariance


def score_folder(
    generated: str | Path,
    reference: str | Path,
    evaluators: Mapping,
    *,
    captions: Mapping[str, str] | None = None,
    paired: bool = False,
    options: Options = DEFAULTS,
) -> tuple[pd.DataFrame, dict]:
    """Every metric of a folder of sounds by every evaluator, and the card that these numbers depend on.

    Sounds may have any format, rate, length and number of channels (the mean is taken). Where both folders have a
    subfolder for each class, "dog_bark" being "DogBark", there are scores by class and their mean, "average".

    Parameters
    ----------
    generated : folder of sounds, or of a folder of sounds for each class
    reference : another such folder; or stored statistics: an .npz or .pkl (`stored.read`), or the folder of the
        challenge's published ones, `<class>/gt_embedding.pkl`. What needs the reference's clips then has no value, and a note.
        Against statistics by class, only classes are scored.
    evaluators : name -> `embedders.Embedder`
    captions : the path in the folder without its suffix -> text, of every generated clip, for the CLAP score
    paired : whether files of one name (and class) belong together, so that KL is taken between them; numbered files of two
        folders often have the same names by chance

    Returns
    -------
    DataFrame [class, metric, embedder, value, low, high, n, note] and the card

    Raises
    ------
    ValueError
        with the list of all files of both folders that are missing, broken, silent or too short; nothing is scored then
    """
    if not evaluators:
        raise ValueError("evaluators is empty: give at least one, by name")
    ours, theirs = _read(Path(generated), Path(reference), evaluators, captions)
    if paired and not (isinstance(theirs, ClipSet) and partners_of(theirs.ids, ours.ids) is not None):
        raise ValueError(f"paired: {reference} has not one clip of the same name for each in {generated}")
    scored = [row for name in evaluators for row in _rows_of(name, ours, theirs, paired, options)]
    return pd.DataFrame(scored)[COLUMNS], _card(ours, theirs, evaluators, paired, options)


def store_statistics(folder: str | Path, evaluators: Mapping, path: str | Path) -> Path:
    """Write the statistics of a folder's clips by every evaluator to an .npz, which `score_folder` takes as reference."""
    found = _clip_sets([Path(folder)], evaluators, [None])[0].found
    return stored.save(path, found, {name: evaluator.sha256 for name, evaluator in evaluators.items()})


def _read(generated: Path, reference: Path, evaluators: Mapping, captions) -> tuple[ClipSet, ClipSet | Statistics]:
    if reference.is_file():
        theirs = {"": stored.read(reference, evaluators)}
    elif by_class := stored.challenge(reference):
        files = {name: reference / name / stored.CHALLENGE_FILE for name in by_class}
        theirs = {_plain(name): stored.read(file, evaluators) for name, file in files.items()}
    else:
        return tuple(_clip_sets([generated, reference], evaluators, [captions, None]))
    return _clip_sets([generated], evaluators, [captions])[0], theirs


def _clip_sets(folders: list[Path], evaluators: Mapping, captions: list[Mapping[str, str] | None]) -> list[ClipSet]:
    """The clips of several folders, decoded once; refused together, with every file that cannot be used."""
    sets, problems = [], []
    for folder, texts in zip(folders, captions):
        listed = clips.find(folder)
        ids = ["/".join(filter(None, (_plain(label), path.stem))) for label, path in listed]
        names = ["/".join(filter(None, (label, path.stem))) for label, path in listed]
        if texts is not None and (lacking := [name for name in names if name not in texts]):
            raise ValueError(f"captions has none for {len(lacking)} clips of {folder}: {', '.join(lacking)}")
        said = None if texts is None else [texts[name] for name in names]
        parts = []
        for start in range(0, len(listed), CHUNK):
            chunk = slice(start, start + CHUNK)
            read, wrong = clips.read_clips([path for _, path in listed[chunk]], lambda *clip: _fault(*clip, evaluators))
            problems += wrong
            if not problems:
                parts.append(embed_with(evaluators, *zip(*read), texts=said and said[chunk]))
        if not problems:
            found = {name: _joined([part[name] for part in parts]) for name in evaluators}
            sha256 = _digest(f"{id} {weights_sha256(path)}" for id, (_, path) in zip(ids, listed))
            sets.append(ClipSet([label for label, _ in listed], ids, found, sha256))
    clips.refuse(problems)
    return sets


def _fault(wave: np.ndarray, rate: int, evaluators: Mapping) -> str | None:
    """What keeps a clip from being scored."""
    if not wave.any():
        return "is silent from end to end; make it again or leave it out of both sets"
    for name, evaluator in evaluators.items():
        if round(len(wave) * evaluator.rate / rate) < evaluator.least:
            least = evaluator.least / evaluator.rate
            return f"has {len(wave) / rate:.2f} s, and {name} needs {least:.2f} s; make it longer or leave {name} out"
    return None


def _joined(parts: list[Evaluated]) -> Evaluated:
    logits, text = ([getattr(part, key) for part in parts] for key in ("logits", "text"))
    windows = [clip for part in parts for clip in part.windows]
    return Evaluated(windows, *(None if values[0] is None else np.concatenate(values) for values in (logits, text)))


def _rows_of(name: str, ours: ClipSet, theirs: ClipSet | Statistics, paired: bool, options: Options) -> list[dict]:
    """The scores by one evaluator: of the whole set, beside the clips of its classes, of each class, and their mean."""
    known = set(theirs.classes if isinstance(theirs, ClipSet) else theirs)
    classes = {_plain(label): label for label in ours.shown} if known - {""} else {}
    classes.pop("", None)
    if lacking := [label for key, label in classes.items() if key not in known]:
        raise ValueError(f"the reference has no class {', '.join(lacking)}; it has {', '.join(sorted(known))}")
    rows, sizes = [], Counter(ours.classes)
    if single := [label for key, label in classes.items() if sizes[key] < 2]:
        raise ValueError(
            f"class {', '.join(single)} has a single clip, and a score needs two: add to it or leave it out"
        )
    if isinstance(theirs, ClipSet) or "" in theirs:
        rows += _rows("all", list(classes), name, ours, theirs, paired, options)
    elif not classes:
        raise ValueError(
            f"the reference has statistics of {', '.join(sorted(known))}: put the clips in folders so named"
        )
    by_class = [_rows(label, [key], name, ours, theirs, paired, options) for key, label in classes.items()]
    rows += [row for of_class in by_class for row in of_class]
    return rows + (over_classes(by_class, options.level) if by_class else [])


def _rows(
    shown: str,
    classes: list[str],
    name: str,
    ours: ClipSet,
    theirs: ClipSet | Statistics,
    paired: bool,
    options: Options,
) -> list[dict]:
    """The scores of one class, or of all (or of clips without any), by one evaluator."""
    mine, partners = ours.rows(classes), None
    generated = ours.found[name].at(mine)
    if isinstance(theirs, ClipSet):
        others = theirs.rows(classes)
        reference = theirs.found[name].at(others)
        if paired:
            partners = partners_of([theirs.ids[i] for i in others], [ours.ids[i] for i in mine])
    else:
        reference = theirs["" if shown == "all" else classes[0]][name]
    groups = group_rows(ours.classes[i] for i in mine)
    compared = Compared(reference, generated, groups, options)
    table = [
        (metric, interval, "") for metric, interval in all_metrics(compared, whole=shown == "all", partners=partners)
    ]
    if isinstance(reference, Gaussian):
        lost = OF_REFERENCE + (("kl",) if generated.logits is not None else ())
        table += [(metric, (np.nan,) * 4, NEEDS_CLIPS) for metric in lost]
    common = {"class": shown, "embedder": name, "n": len(mine)}
    return [{**common, "metric": m, **dict(zip(NUMBERS, values)), "note": note} for m, values, note in table]


def _card(ours: ClipSet, theirs: ClipSet | Statistics, evaluators: Mapping, paired: bool, options: Options) -> dict:
    """What the numbers depend on."""
    if isinstance(theirs, ClipSet):
        reference = {"kind": "clips", "n": len(theirs.ids), "sha256": theirs.sha256}
    else:
        counts = {key or "all": next(iter(part.values())).n for key, part in theirs.items()}
        lines = [
            f"{c} {n} " + hashlib.sha256(g.mean.tobytes() + g.cov.tobytes()).hexdigest()
            for c, part in theirs.items()
            for n, g in part.items()
        ]
        reference = {"kind": "statistics", "rows": counts, "sha256": _digest(lines)}
    return {
        "n": len(ours.ids),
        "clips_sha256": ours.sha256,
        "reference": reference,
        "evaluators": described(evaluators),
        "conventions": conventions(options, len(ours.ids)),
        "pairs": PAIRS[paired],
        "resampler": "soxr HQ",
        "channels": "mean",
        "interval": f"bootstrap over generated clips by class, {options.bootstrap} draws, level {options.level}",
    }


def _digest(lines) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _plain(label: str) -> str:
    """A class name by its letters and digits alone: "DogBark" and "dog_bark" are one."""
    return re.sub(r"[^a-z0-9]", "", label.lower())
