"""Folders of clips by every evaluator, read once; refused together, with every file that cannot be used."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foleylib.evaluation import clips
from foleylib.evaluation.embeddings import Evaluated, embed_with
from foleylib.evaluation.remarks import SILENT, Heard, listed
from foleylib.runtime import weights_sha256

CHUNK = 64  # files read at once


@dataclass(frozen=True)
class ClipSet:
    """A folder of clips by every evaluator; `classes` and `ids` are plain (`plain`), `shown` are classes as written.

    `left_out` has a sentence for what the folder holds and is not scored.
    """

    shown: list[str]
    ids: list[str]
    found: dict[str, Evaluated]
    sha256: str
    heard: Heard
    left_out: list[str]

    @property
    def classes(self) -> list[str]:
        return [plain(name) for name in self.shown]

    def rows(self, classes: list[str]) -> np.ndarray:
        """Numbers of the clips of some classes, of all where none is given."""
        return np.array([i for i, name in enumerate(self.classes) if name in classes or not classes], dtype=int)


def read(folders: list[Path], evaluators: Mapping, captions: list[Mapping[str, str] | None]) -> list[ClipSet]:
    """The clips of several folders, decoded once; refused together, with every file that cannot be used."""
    sets, problems = [], []
    for folder, texts in zip(folders, captions):
        found = clips.find(folder)
        _check_classes(folder, [label for label, _ in found])
        said = None if texts is None else _texts(folder, found, texts)
        parts, heard = [], Heard([], [], [], [])
        for start in range(0, len(found), CHUNK):
            chunk = slice(start, start + CHUNK)
            files = [path for _, path in found[chunk]]
            sounds, wrong = clips.read_clips(files, lambda *clip: _fault(*clip, evaluators))
            problems += wrong
            if not problems:
                heard += Heard.of(*zip(*sounds))
                parts.append(embed_with(evaluators, *zip(*sounds), texts=said and said[chunk]))
                problems += _not_finite(files, parts[-1])
        if not problems:
            ids = ["/".join(filter(None, (plain(label), path.stem))) for label, path in found]
            embedded = {name: _joined([part[name] for part in parts]) for name in evaluators}
            sha256 = digest(f"{id} {weights_sha256(path)}" for id, (_, path) in zip(ids, found))
            shown, left_out = [label for label, _ in found], clips.left_out(folder) + _unused(found, texts)
            sets.append(ClipSet(shown, ids, embedded, sha256, heard, left_out))
    clips.refuse(problems)
    if single := [folder for folder, clip_set in zip(folders, sets) if len(clip_set.ids) < 2]:
        raise ValueError(f"{single[0]}: holds a single clip, and a score needs two: add to it")
    return sets


def _check_classes(folder: Path, labels: list[str]) -> None:
    """Refuse folders of classes that cannot be told apart."""
    by_name = {}
    for label in dict.fromkeys(labels):
        if label and not plain(label):
            raise ValueError(f"{folder / label}: a class needs a name with letters or digits; rename its folder")
        by_name.setdefault(plain(label), []).append(label)
    if twice := [names for names in by_name.values() if len(names) > 1]:
        raise ValueError(f"{folder}: {' and '.join(twice[0])} are one class by their names; put them in one folder")


def _names(found: list[tuple[str, Path]]) -> list[str]:
    """What captions call the clips."""
    return ["/".join(filter(None, (label, path.stem))) for label, path in found]


def _unused(found: list[tuple[str, Path]], texts: Mapping[str, str] | None) -> list[str]:
    unused = sorted(set(texts or ()) - set(_names(found)))
    return [f"Captions of no clip: {listed(unused)}."] if unused else []


def _texts(folder: Path, found: list[tuple[str, Path]], texts: Mapping[str, str]) -> list[str]:
    """The caption of each clip."""
    names = _names(found)
    if lacking := [name for name in names if name not in texts]:
        raise ValueError(f"captions has none for {len(lacking)} clips of {folder}: {listed(lacking)}")
    if empty := [name for name in names if not texts[name].strip()]:
        raise ValueError(f"captions has an empty text for {len(empty)} clips of {folder}: {listed(empty)}")
    return [texts[name] for name in names]


def _fault(wave: np.ndarray, rate: int, evaluators: Mapping) -> str | None:
    """What keeps a clip from being scored."""
    if np.abs(wave).max() < SILENT:
        return "is silent from end to end; make it again or leave it out of both sets"
    for name, evaluator in evaluators.items():
        if round(len(wave) * evaluator.rate / rate) < evaluator.least:
            least = evaluator.least / evaluator.rate
            return f"has {len(wave) / rate:.2f} s, and {name} needs {least:.2f} s; make it longer or leave {name} out"
    return None


def _not_finite(files: list[Path], found: Mapping[str, Evaluated]) -> list[str]:
    """A line for each file of which an evaluator makes NaN or infinities."""
    problems = []
    for name, evaluated in found.items():
        for row, file in enumerate(files):
            own = evaluated.at(np.array([row]))
            if not all(
                np.isfinite(values).all() for values in (*own.windows, own.logits, own.text) if values is not None
            ):
                problems.append(f"{file}: its embedding by {name} is not finite; look at the clip, or leave {name} out")
    return problems


def _joined(parts: list[Evaluated]) -> Evaluated:
    logits, text = ([getattr(part, key) for part in parts] for key in ("logits", "text"))
    windows = [clip for part in parts for clip in part.windows]
    return Evaluated(windows, *(None if values[0] is None else np.concatenate(values) for values in (logits, text)))


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines, whatever their order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def plain(label: str) -> str:
    """A class name by its letters and digits alone: "DogBark" and "dog_bark" are one."""
    return re.sub(r"[\W_]", "", label.casefold())
