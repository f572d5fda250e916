"""The split of each clip of a corpus: by its fold, its own column, or its recording."""

import hashlib
from collections import defaultdict

from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.remarks import listed

SPLITS = ("train", "val", "test")
LEAST = 5  # recordings of a class that can be split


def check_absent(clips: list[dict]) -> None:
    """Refuse a split that has labelled clips, but none of a class: its scores would leave that class out."""
    labels = defaultdict(set)
    for clip in clips:
        labels[clip["split"]] |= {clip["label"]} - {""}
    every = set().union(*labels.values())
    absent = [f"{split} {label}" for split, own in sorted(labels.items()) for label in sorted(every - own) if own]
    if absent:
        raise CorpusError(
            f"splits without a clip of a class: {listed(absent)}; leave split_fractions out (each class is in every split "
            "then), change the splits, or name in `classes` what is in all"
        )


def by_fold(clips: list[dict], folds: dict[str, list[int]]) -> list[dict]:
    """Split clips by their folds; those of a fold that is in no split are left out."""
    _check_groups(clips, "fold")
    split_of = {fold: split for split, numbers in folds.items() for fold in numbers}
    if not split_of or len(split_of) < sum(map(len, folds.values())):
        raise CorpusError(f"folds={folds}: give each fold to one split, such as train [1, 2, 3, 4], test [5]")
    present = {clip["fold"] for clip in clips}
    absent = sorted(set(split_of) - present)
    if absent:
        raise CorpusError(f"folds={folds}: the corpus has no clips in folds {absent}, only in {sorted(present)}")
    return [{**clip, "split": split_of[clip["fold"]]} for clip in clips if clip["fold"] in split_of]


def by_column(clips: list[dict]) -> list[dict]:
    """Clips whose splits the corpus itself gives, checked."""
    unknown = sorted({clip["split"] for clip in clips} - set(SPLITS))
    if unknown:
        raise CorpusError(f"split column holds {unknown}; give every row one of {', '.join(SPLITS)}")
    _check_groups(clips, "split")
    return clips


def by_hash(clips: list[dict], fractions: dict[str, float], seed: int) -> list[dict]:
    """Split source groups by a seeded hash of their name, so that clips added later move no others; clips that have a
    split of their own, those of a challenge's evaluation set, keep it."""
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise CorpusError(f"split_fractions={fractions}: give shares >= 0 that sum to 1, such as train .8, test .2")
    given = {clip["split"] for clip in clips if "split" in clip}
    if mixed := sorted(split for split in given if fractions.get(split)):
        raise CorpusError(
            f"split_fractions={fractions}: {mixed[0]} is what the corpus itself gives to some clips; give it no share, so "
            "that others do not come among them"
        )
    return [{"split": _hashed_split(clip["source_group"], fractions, seed), **clip} for clip in clips]


def by_class(clips: list[dict], seed: int) -> list[dict]:
    """Split the source groups of each class: a fifth of them, and at least two, for testing, as many for validation, the
    others for training. Which, is drawn by a seeded hash of their name.

    Where few clips are to be in every split, this is surer than `by_hash`, whose shares hold on average alone. A group with
    clips of several classes counts in that of the first.
    """
    groups, split_of = defaultdict(list), {}
    counted = {clip["source_group"]: clip["label"] for clip in reversed(clips)}
    for group, label in counted.items():
        groups[label].append(group)
    few = {label: len(names) for label, names in groups.items() if len(names) < LEAST}
    if few:
        told = listed(sorted(f"{label or 'clips'} {count}" for label, count in few.items()))
        lost = {c["source_group"] for c in clips if c["label"] in few and counted[c["source_group"]] != c["label"]}
        shared = f"; files of one name in several classes count as one recording, rename {listed(sorted(lost))}"
        raise CorpusError(
            f"too few recordings to split: {told}; give at least {LEAST} of each class (two to test, two to validate, one to "
            f"train), or a column `split`{shared if lost else ''}"
        )
    for names in groups.values():
        names.sort(key=lambda group: _draw(group, seed))
        held = max(2, round(len(names) / 5))  # no score is of one clip
        parts = ["test"] * held + ["val"] * held + ["train"] * (len(names) - 2 * held)
        split_of |= dict(zip(names, parts))
    return [{**clip, "split": split_of[clip["source_group"]]} for clip in clips]


def _draw(group: str, seed: int) -> float:
    """A number in [0, 1) that hangs on the group's name and the seed alone."""
    name = f"{seed}:{group}".encode(errors="surrogatepass")  # of classes that are not taken, any name will do
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def _hashed_split(group: str, fractions: dict[str, float], seed: int) -> str:
    draw, edge = _draw(group, seed), 0.0
    for split in SPLITS:
        edge += fractions.get(split, 0.0)
        if draw < edge:
            return split
    return max(fractions, key=fractions.get)  # the shares sum to a rounding error below 1


def _check_groups(clips: list[dict], key: str) -> None:
    values = defaultdict(set)
    for clip in clips:
        values[clip["source_group"]].add(clip[key])
    parted = [f"{group} {sorted(several)}" for group, several in values.items() if len(several) > 1]
    if parted:
        raise CorpusError(
            f"clips of one source group lie in more than one {key}: {listed(parted)}; correct the metadata"
        )
