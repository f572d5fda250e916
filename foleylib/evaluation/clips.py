"""Sound files that are to be scored: found in folders, read, and refused as a whole where any of them cannot be used."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from foleylib.audio.io import AudioError, read
from foleylib.evaluation.remarks import listed, no_utf8

TABLES = (".csv", ".json", ".parquet", ".txt", ".md")  # of sounds, which nobody takes for some
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")


def find(folder: Path) -> list[tuple[str, Path]]:
    """Class and path of every sound of a folder, in order; the class is the subfolder's name, "" of a sound without.

    A folder has its sounds directly inside, or in one subfolder for each class.
    """
    if not folder.is_dir():
        raise AudioError(
            f"{folder}: no such folder; give one with sounds, or with a subfolder of sounds for each class"
        )
    shown = [inside for inside in sorted(folder.iterdir()) if inside.name[0] != "."]
    bare, classes = _sounds(folder), [inside for inside in shown if inside.is_dir()]
    by_class = [(inside.name, path) for inside in classes for path in _sounds(inside)]
    if bare and by_class:
        raise AudioError(f"{folder}: sounds beside subfolders of sounds; put all of them in subfolders, or none")
    if not bare and not by_class:
        raise AudioError(f"{folder}: no sounds ({', '.join(SOUNDS)}) there or in its subfolders")
    found = by_class or [("", path) for path in bare]
    if names := no_utf8(path.relative_to(folder).as_posix() for _, path in found):
        raise AudioError(f"{folder}: names that are no UTF-8, {listed(names)}; rename these files or their folders")
    return found


def _sounds(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SOUNDS and path.name[0] != ".")
    of_name = Counter(path.stem for path in files)
    if twice := [path.name for path in files if of_name[path.stem] > 1]:
        raise AudioError(
            f"{folder}: several files of one name, {listed(twice)}; clips are paired by name, keep one each"
        )
    return files


def left_out(folder: Path) -> list[str]:
    """What a folder holds beside the sounds that `find` finds and tables of them: subfolders without sounds, other files."""
    inside = [path for path in sorted(folder.iterdir()) if path.name[0] != "."]
    folders = [path for path in inside if path.is_dir()]
    named = {f"{path.name}/" for path in folders if not _sounds(path)}
    deeper = [path for within in folders for path in sorted(within.iterdir()) if path.name[0] != "."]
    files = [path for path in inside + deeper if not path.is_dir() and path.suffix.lower() not in SOUNDS + TABLES]
    named |= {path.relative_to(folder).as_posix() for path in files}
    named |= {f"{path.relative_to(folder).as_posix()}/" for path in deeper if path.is_dir()}
    return [f"{folder.resolve().name} also holds what is not scored: {listed(sorted(named))}."] if named else []


def read_clips(
    files: Sequence[Path], fault: Callable[[np.ndarray, int], str | None]
) -> tuple[list[tuple[np.ndarray, int]], list[str]]:
    """Waves [shape=(T,)] with their rates, and a line for every file that is missing, broken or has a `fault`."""
    clips, problems = [], []
    for path in files:
        try:
            wave, rate = read(path)
        except AudioError as error:
            problems.append(str(error))
            continue
        clips.append((wave, rate))
        if (wrong := fault(wave, rate)) is not None:
            problems.append(f"{path}: {wrong}")
    return clips, problems


def refuse(problems: Sequence[str]) -> None:
    """Stop where clips have problems, with all of them: a score of the others would be of another set."""
    if problems:
        lines = "\n".join(f"- {line}" for line in problems)
        raise AudioError(f"{len(problems)} clips cannot be scored, so nothing is:\n{lines}")
