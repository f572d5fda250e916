"""Score any folder of clips against another folder, or against stored statistics, with every metric at hand."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from foleylib.evaluation import clip_sets, remarks, stored
from foleylib.evaluation.clip_sets import ClipSet, digest, plain
from foleylib.evaluation.compared import OF_REFERENCE, PAIRS, Compared, all_metrics, conventions
from foleylib.evaluation.embeddings import Evaluated, described, partners_of
from foleylib.evaluation.frechet import Gaussian
from foleylib.evaluation.scores import NUMBERS, over_classes
from foleylib.evaluation.statistics import group_rows, pool
from foleylib.evaluation.texts import cut

COLUMNS = ["class", "metric", "embedder", "value", "low", "high", "n", "note"]
NO_INTERVAL = "no interval: each draw of clips would be extrapolated anew"
NEEDS_CLIPS = "needs the reference's clips; only its statistics are at hand"


class Options(NamedTuple):
    """Seed of draws and splits, draws and level of intervals, splits of the inception score."""

    seed: int = 0
    bootstrap: int = 200
    level: float = 0.95
    splits: int = 10


DEFAULTS = Options()
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
    DataFrame [class, metric, embedder, value, low, high, n, note] and the card, whose "remarks" say what may mislead: few or
    equal clips, a class that one side lacks, other rates

    Raises
    ------
    ValueError
        with the list of all files of both folders that are missing, broken, silent or too short; nothing is scored then
    """
    _check_call(evaluators, captions, options)
    ours, theirs = _read(Path(generated), Path(reference), evaluators, captions)
    if paired and not (isinstance(theirs, ClipSet) and partners_of(theirs.ids, ours.ids) is not None):
        raise ValueError(f"paired: {reference} has not one clip of the same name for each in {generated}")
    scored = [row for name in evaluators for row in _rows_of(name, ours, theirs, paired, options)]
    told = _remarks(ours, theirs, options) + _unheard(ours, theirs, evaluators) + _long_captions(captions, evaluators)
    card = _card(ours, theirs, evaluators, paired, options) | {"remarks": told}
    return pd.DataFrame(scored)[COLUMNS], card


def _check_call(evaluators: Mapping, captions, options: Options) -> None:
    if not evaluators:
        raise ValueError("evaluators is empty: give at least one, by name")
    if captions is not None and not any(evaluator.reads for evaluator in evaluators.values()):
        raise ValueError(f"captions are given, but none of {', '.join(evaluators)} reads texts: add one, such as CLAP")
    for name, least in (("seed", 0), ("bootstrap", 1), ("splits", 1)):
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"options.{name} is {value!r}: give a whole number of {least} or more")
    if not 0 < options.level < 1:
        raise ValueError(f"options.level is {options.level!r}: give a share between 0 and 1, such as 0.95")


def store_statistics(folder: str | Path, evaluators: Mapping, path: str | Path) -> Path:
    """Write the statistics of a folder's clips by every evaluator to an .npz, which `score_folder` takes as reference."""
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: statistics are written as .npz; give a name that ends so")
    found = clip_sets.read([Path(folder)], evaluators, [None])[0].found
    return stored.save(path, found, {name: evaluator.sha256 for name, evaluator in evaluators.items()})


def _read(generated: Path, reference: Path, evaluators: Mapping, captions) -> tuple[ClipSet, ClipSet | Statistics]:
    if reference.is_file():
        theirs = {"": stored.read(reference, evaluators)}
    elif by_class := stored.challenge(reference):
        files = {name: reference / name / stored.CHALLENGE_FILE for name in by_class}
        theirs = {plain(name): stored.read(file, evaluators) for name, file in files.items()}
    else:
        return tuple(clip_sets.read([generated, reference], evaluators, [captions, None]))
    return clip_sets.read([generated], evaluators, [captions])[0], theirs


def _rows_of(name: str, ours: ClipSet, theirs: ClipSet | Statistics, paired: bool, options: Options) -> list[dict]:
    """The scores by one evaluator: of the whole set, beside the clips of its classes, of each class, and their mean."""
    known = set(theirs.classes if isinstance(theirs, ClipSet) else theirs)
    classes = {plain(label): label for label in ours.shown} if known - {""} else {}
    classes.pop("", None)
    if lacking := [label for key, label in classes.items() if key not in known]:
        raise ValueError(f"the reference has no class {', '.join(lacking)}; it has {', '.join(sorted(known))}")
    for side, clips in (("generated", ours), ("reference", theirs)):
        sizes = Counter(clips.classes) if isinstance(clips, ClipSet) else {}
        if single := [label for key, label in classes.items() if sizes.get(key, 2) < 2]:
            raise ValueError(
                f"class {', '.join(single)} has a single {side} clip, and a score needs two: add to it or leave it out"
            )
    rows = []
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
    try:
        metrics = all_metrics(compared, whole=shown == "all", partners=partners)
    except ValueError as error:
        of = "all clips" if shown == "all" else f"class {shown}"
        raise ValueError(f"{of}, by {name}: {error}") from error
    table = [(metric, values, NO_INTERVAL if np.isnan(values.low) else "") for metric, values in metrics]
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
        reference = {"kind": "statistics", "rows": counts, "sha256": digest(lines)}
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


def _remarks(ours: ClipSet, theirs: ClipSet | Statistics, options: Options) -> list[str]:
    """What a reader of these scores has to know of the clips."""
    clips = isinstance(theirs, ClipSet)
    told = [*ours.left_out, *(theirs.left_out if clips else [])]
    told += remarks.of_clips(ours.heard, theirs.heard if clips else None)
    names = {plain(label): label for label in ours.shown}
    known = {plain(label): names.get(plain(label), label) for label in (theirs.shown if clips else theirs)}
    told += remarks.of_classes(names.values(), known.values())
    scored = [[key] for key in names if key and key in known] or [[]]
    sizes = {}
    for name, evaluated in ours.found.items():
        mine = min(_count(evaluated.at(ours.rows(keys))) for keys in scored)
        if clips:
            others = min(_count(theirs.found[name].at(theirs.rows(keys))) for keys in scored)
        else:
            counts = [theirs[keys[0] if keys else ""][name].n for keys in scored]
            others = None if None in counts else min(counts)
        sizes[name] = (evaluated.points.shape[1], mine, others)
    return told + remarks.of_sizes(sizes) + remarks.of_draws(options.bootstrap, options.level)


def _unheard(ours: ClipSet, theirs: ClipSet | Statistics, evaluators: Mapping) -> list[str]:
    """Clips of both sides that an evaluator with a window does not hear to their end."""
    heard = ours.heard + theirs.heard if isinstance(theirs, ClipSet) else ours.heard
    claps = {name: getattr(evaluator.model, "clap", None) for name, evaluator in evaluators.items()}
    return [
        sentence
        for name, clap in claps.items()
        if clap is not None
        for sentence in remarks.of_window(name, clap.window / clap.rate, heard)
    ]


def _long_captions(captions: Mapping[str, str] | None, evaluators: Mapping) -> list[str]:
    """Captions that an evaluator does not read to their end, as far as its tokenizer is at hand."""
    told = []
    for name, evaluator in evaluators.items():
        tokenizer = getattr(getattr(evaluator.model, "clap", None), "tokenizer", None)
        if captions is not None and tokenizer is not None:
            told += [f"{name}: {sentence}" for sentence in cut(tokenizer, list(captions.values()))]
    return told


def _count(evaluated: Evaluated) -> int:
    """Embeddings that a Fréchet distance of these clips is of."""
    return len(pool(evaluated.windows)[0])
