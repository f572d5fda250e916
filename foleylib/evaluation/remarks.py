"""What a reader of scores has to know of the clips behind them, in sentences for the protocol card."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LISTED = 20  # names that a sentence gives


class Heard(NamedTuple):
    """What is kept of the waves of a set: a hash of each one's samples, whether it is silent, its rate (Hz), its seconds."""

    prints: list[str]
    silent: list[bool]
    rates: list[int]
    seconds: list[float]

    @classmethod
    def of(cls, waves: Sequence[np.ndarray], rates: Sequence[int]) -> "Heard":
        """Of waves [shape=(T,)] at their rates."""
        prints = [hashlib.sha256(np.ascontiguousarray(wave, dtype=np.float32)).hexdigest() for wave in waves]
        silent = [not np.any(wave) for wave in waves]
        return cls(prints, silent, list(rates), [len(wave) / rate for wave, rate in zip(waves, rates)])

    def __add__(self, other: "Heard") -> "Heard":
        return Heard(*(mine + theirs for mine, theirs in zip(self, other)))


def listed(names: Iterable[str]) -> str:
    """The first names of many, with the count of the rest."""
    names = [str(name) for name in names]
    told = ", ".join(names[:LISTED])
    return told if len(names) <= LISTED else f"{told} and {len(names) - LISTED} more"


def of_clips(generated: Heard, reference: Heard | None = None) -> list[str]:
    """Silent clips, clips that are equal sample for sample, and other rates or lengths than those of the reference."""
    n, told = len(generated.prints), []
    if silent := sum(generated.silent):
        told.append(f"{silent} of {n} generated clips are silent from end to end.")
    told += _copies(generated, "generated clips") + ([] if reference is None else _copies(reference, "reference clips"))
    if reference is None:
        return told
    if shared := len([one for one in generated.prints if one in set(reference.prints)]):
        told.append(f"{shared} of {n} generated clips are clips of the reference, sample for sample.")
    if set(generated.rates) != set(reference.rates):
        rates = (", ".join(map(str, sorted(set(heard.rates)))) for heard in (generated, reference))
        told.append(
            "The generated clips have {} Hz, the reference {} Hz: scores also hear what only the higher rate can hold."
            "".format(*rates)
        )
    lengths = [(round(min(heard.seconds), 2), round(max(heard.seconds), 2)) for heard in (generated, reference)]
    if lengths[0] != lengths[1]:
        spans = (f"{a:g} s" if a == b else f"{a:g} to {b:g} s" for a, b in lengths)
        told.append("The generated clips last {}, those of the reference {}: scores also hear that.".format(*spans))
    return told


def _copies(heard: Heard, what: str) -> list[str]:
    copies = sum(count for count in Counter(heard.prints).values() if count > 1)
    return [f"{copies} of {len(heard.prints)} {what} are equal to another one, sample for sample."] if copies else []


def of_sizes(sizes: Mapping[str, tuple[int, int, int | None]]) -> list[str]:
    """Of which evaluators a set has no more embeddings than an embedding has dimensions.

    `sizes` are, by evaluator, the dimensions, the generated rows, and those of the reference, None where they are not known;
    with classes, the rows of the smallest class.
    """
    told = []
    for name, (dims, generated, reference) in sizes.items():
        few = {"generated": generated, "reference": reference}
        few = [f"{rows} {which}" for which, rows in few.items() if rows is not None and rows <= dims]
        if few:
            told.append(
                f"{name}: the smallest set that is scored has {' and '.join(few)} embeddings of {dims} dimensions. With so few, "
                "Fréchet distances (FAD, FD) lie too high: compare them at equal numbers of clips alone."
            )
        if reference is None:
            told.append(f"{name}: of how many clips the stored statistics are is not known.")
    return told


def of_classes(generated: Iterable[str], reference: Iterable[str], expected: Iterable[str] = ()) -> list[str]:
    """Classes that one side lacks; `expected` are those that both should have."""
    mine, theirs = list(dict.fromkeys(generated)), list(dict.fromkeys(reference))
    if not any(mine) or not any(theirs):
        if any(mine) or any(theirs):
            which = "generated clips" if any(theirs) else "reference clips"
            return [f"The {which} have no classes: they are scored as one set."]
        return []
    told = []
    if lacking := [name for name in theirs if name not in mine]:
        told.append(f"Classes without generated clips, which are not scored: {listed(lacking)}.")
    if lacking := [name for name in expected if name not in theirs and name not in mine]:
        told.append(f"Classes without any clips, which are not scored: {listed(lacking)}.")
    return told


def of_draws(draws: int, level: float) -> list[str]:
    """Too few draws for the quantiles that are the bounds of an interval."""
    least = int(np.ceil(round(2 / (1 - level), 6)))
    if draws >= least:
        return []
    return [
        f"{draws} draws are too few for intervals of level {level:g}, whose bounds need {least}: take them as rough."
    ]


def of_seeds(seeds: int) -> list[str]:
    """What intervals cannot say of so few trainings."""
    if seeds > 2:
        return []
    trained = "One training" if seeds == 1 else f"{seeds} trainings"
    return [f"{trained} alone: there is no interval over trainings, and those over clips say nothing of another one."]


def of_counts(n: int, others: Iterable[int]) -> list[str]:
    """Another number of clips than that of most other runs."""
    usual, _ = max(Counter(others).items(), key=lambda pair: (pair[1], pair[0]), default=(n, 0))
    if n == usual:
        return []
    return [
        f"{n} clips, where most runs have {usual}: FAD, FD, coverage and inception score do not compare with theirs."
    ]


def merged(by_seed: Mapping[int, Sequence[str]]) -> list[str]:
    """The remarks of several seeds: what holds for all of them once, the others with their seeds."""
    seeds = {}
    for seed, sentences in by_seed.items():
        for sentence in sentences:
            seeds.setdefault(sentence, []).append(seed)
    return [
        sentence if len(of) == len(by_seed) else f"Seed {', '.join(map(str, of))}: {sentence}"
        for sentence, of in seeds.items()
    ]
