"""Where commands write, looked at before the work is done."""

import argparse
import os
import re
from pathlib import Path

import pandas as pd

from foleylib.audio.io import write

LONGEST_NAME = 120  # bytes of a file's name that come from a prompt
LONGEST = 200  # bytes of any name: a file system takes 255, a file that is being written has a longer one
TABLE = "clips.csv"


def save(sounds, out: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write the clips of `generate.Sounds` to `out`: the file itself for a single clip and a name that ends in .wav; else a
    folder, with clips.csv.

    A file that is there already is kept, with an error, unless `overwrite`; nothing is written then.
    """
    out = Path(out)
    files = free_files(out, sounds.rows, overwrite=overwrite)
    for file, wave in zip(files, sounds.waves):
        write(file, wave, sounds.rate)
    if not out.suffix:
        sounds.rows.assign(file=[file.name for file in files]).to_csv(out / TABLE, index=False)
    return files


def free_files(out: Path, rows: pd.DataFrame, *, overwrite: bool) -> list[Path]:
    """The file of each clip, a row of [prompt, number]; a ValueError where it cannot be written or is there already."""
    if len(out.name.encode()) > LONGEST:
        raise ValueError(f"{out.name[:40]}...: a name of {len(out.name.encode())} bytes; give one of {LONGEST} at most")
    if out.suffix and out.suffix.lower() != ".wav":
        raise ValueError(f"{out}: clips are written as WAV files; give a name that ends in .wav, or a folder")
    if out.suffix and len(rows) > 1:
        raise ValueError(f"{out} is one file, and there are {len(rows)} clips: give a folder, without .wav")
    check_folder(out.parent if out.suffix else out)
    files = [out] if out.suffix else [out / name for name in _file_names(rows)]
    check_free(files if out.suffix else [*files, out / TABLE], overwrite=overwrite)
    return files


def check_free(files: list[Path], *, overwrite: bool) -> None:
    """A ValueError where a file is there already, unless it may be overwritten, or where a folder has its name."""
    if folders := [file for file in files if file.is_dir()]:
        raise ValueError(f"{folders[0]} is a folder: give another name, or remove it")
    if (there := [file for file in files if file.exists() or file.is_symlink()]) and not overwrite:
        raise ValueError(f"{there[0]} is there already; give another name, or --overwrite")


def place(value: str) -> Path:
    """The argument of a command that says where to write: not empty, as that of a variable that the shell does not know."""
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty: say where to write")
    return Path(value)


def _file_names(rows: pd.DataFrame) -> list[str]:
    """A name for each clip, of its prompt; with its place before it where two are alike otherwise."""
    names = [_file_name(row.prompt, row.number) for row in rows.itertuples()]
    alike = len(set(names)) < len(names)
    return [f"{place:04d}_{name}" for place, name in enumerate(names)] if alike else names


def _file_name(prompt: str, number: int) -> str:
    words = re.sub(r"\W+", "_", prompt.lower()).strip("_")[:60]
    words = words.encode()[:LONGEST_NAME].decode(errors="ignore") or "clip"
    return f"{words}_{number}.wav"


def check_folder(folder: Path) -> None:
    """A ValueError where nothing can be written into a folder, which may be still to be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise ValueError(f"{there} is no folder: give another place to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there}: nothing may be written there; give another folder, or the right to write")
