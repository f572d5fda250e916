"""What a reader of scores has to know of the clips behind them, in sentences for the protocol card."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LISTED = 20  # names that a sentence gives
SILENT = 1e-6  # peak re full scale, 30 dB below the least of 16 bits: such a clip is silent


class Heard(NamedTuple):
    """What is kept of the waves of a set: a hash of each one's samples, its peak (re full scale), rate (Hz) and seconds."""

    prints: list[str]
    peaks: list[float]
    rates: list[int]
    seconds: list[float]

    @classmethod
    def of(cls, waves: Sequence[np.ndarray], rates: Sequence[int]) -> "Heard":
        """Of waves [shape=(T,)] at their rates."""
        prints = [hashlib.sha256(np.ascontiguousarray(wave, dtype=np.float32)).hexdigest() for wave in waves]
        peaks = [float(np.abs(wave).max()) for wave in waves]
        return cls(prints, peaks, list(rates), [len(wave) / rate for wave, rate in zip(waves, rates)])

    def __add__(self, other: "Heard") -> "Heard":
        return Heard(*(mine + theirs for mine, theirs in zip(self, other)))


def listed(names: Iterable[str]) -> str:
    """The first names of many, with the count of the rest; bytes that are no UTF-8 are escaped, so that a file can hold it."""
    names = [str(name).encode(errors="backslashreplace").decode() for name in names]
    told = ", ".join(names[:LISTED])
    return told if len(names) <= LISTED else f"{told} and {len(names) - LISTED} more"


def no_utf8(names: Iterable[str]) -> list[str]:
    """Those of some names of files that are no UTF-8: no table can hold them."""
    return [name for name in names if name.encode(errors="ignore").decode() != name]


def of_clips(generated: Heard, reference: Heard | None = None) -> list[str]:
    """Of silent clips, clips beyond full scale, clips that are equal sample for sample, and other rates or lengths than the
    reference has."""
    n = len(generated.prints)
    silent = sum(peak < SILENT for peak in generated.peaks)
    told = [f"{silent} of {n} generated clips are silent from end to end."] if silent else []
    told += _loud(generated, "generated clips") + _copies(generated, "generated clips")
    if reference is None:
        return told
    told += _loud(reference, "reference clips") + _copies(reference, "reference clips")
    known = set(reference.prints)
    if shared := sum(one in known for one in generated.prints):
        told.append(f"{shared} of {n} generated clips are clips of the reference, sample for sample.")
    mine, theirs = (", ".join(map(str, sorted(set(heard.rates)))) for heard in (generated, reference))
    if mine != theirs:
        hear = "scores also hear what only the higher rate can hold"
        told.append(f"The generated clips have {mine} Hz, the reference {theirs} Hz: {hear}.")
    mine, theirs = _span(generated), _span(reference)
    if mine != theirs:
        told.append(f"The generated clips last {mine} s, those of the reference {theirs} s: scores also hear that.")
    return told


def _span(heard: Heard) -> str:
    least, most = (f"{bound:.2f}" for bound in (min(heard.seconds), max(heard.seconds)))
    return least if least == most else f"{least} to {most}"


def _loud(heard: Heard, what: str) -> list[str]:
    loud = [peak for peak in heard.peaks if peak > 1]
    return [f"{len(loud)} of {len(heard.peaks)} {what} go beyond full scale, up to {max(loud):.3g}."] if loud else []


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


def of_window(name: str, seconds: float, heard: Heard) -> list[str]:
    """Of how many clips an evaluator hears the first `seconds` alone, which are its window."""
    longer = [length for length in heard.seconds if length > seconds + 0.005]
    if not longer:
        return []
    told = f"{len(longer)} of {len(heard.seconds)} clips are longer, up to {max(longer):.2f} s"
    return [f"{name} hears the first {seconds:g} s of a clip alone, and {told}: its scores say nothing of the rest."]


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
