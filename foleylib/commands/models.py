"""`foleylib models`: which weights are there, what they were made of, and what they may be used for."""

import argparse
import math
import textwrap
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError

from foleylib import paths
from foleylib.params import settings
from foleylib.stages import cards

HELP = "which weights are there, from what, under which licence"
DAMAGED = (ValueError, OSError, LookupError, TypeError, AttributeError, SafetensorError)
ABOUT = "Which weights are there: bundled, and made by the graph; what they were trained on, and the licences."


def models() -> pd.DataFrame:
    """The parts of data/bundled and the models under models/, a row for each folder with weights.

    Returns
    -------
    DataFrame [folder, parameters (millions), trained on, licence], folders from the root of the repository; of a damaged folder
    the last says so
    """
    roots = [folder for root in (paths.BUNDLED, paths.MODELS) if root.is_dir() for folder in sorted(root.iterdir())]
    parts = sorted(part for root in roots if root.is_dir() for part in _parts(root) if any(part.rglob("*.safetensors")))
    columns = ["folder", "parameters", "trained on", "licence"]
    return pd.DataFrame([_row(part) for part in parts], columns=columns)


def _parts(folder: Path) -> list[Path]:
    """The folder itself where it has its provenance or is a pipeline; else those within it that are."""
    if any((folder / name).is_file() for name in ("provenance.json", "published.json", "model_index.json")):
        return [folder]
    return [part for inside in sorted(folder.iterdir()) if inside.is_dir() for part in _parts(inside)]


def _row(folder: Path) -> dict:
    system = folder.parent.name if folder.parent.parent == paths.MODELS / "systems" else None
    name = {"folder": folder.relative_to(paths.ROOT).as_posix()}
    try:
        size = round(cards.sizes(folder)[0] / 1e6, 2)
        corpus, known = _of_system(system) if system else _of_part(cards.provenance_of(folder))
    except DAMAGED as error:  # a damaged file fails in many ways, and the other folders are to be seen all the same
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 100)
        return name | {"parameters": math.nan, "trained on": "", "licence": f"cannot be read ({said}); make it again"}
    return name | {"parameters": size, "trained on": corpus, "licence": "; ".join(known)}


def _of_part(told: dict) -> tuple[str, list[str]]:
    """What a part was trained on, or taken from, and its licences."""
    corpus = told.get("corpus", {})
    return corpus.get("root") or corpus.get("kind") or told.get("from") or "", cards.of_weights(told)


def _of_system(name: str) -> tuple[str, list[str]]:
    """The same of a system, which the settings describe: its own corpus, and what it started from."""
    cfg = settings.load()
    if name not in cfg.systems:
        return "a system that params.yaml has no more", [cards.UNKNOWN]
    system = cfg.systems[name]
    corpus = cfg.corpora[system.corpus]
    return corpus.root or corpus.kind, cards.of_system(system)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> None:
    print(models().to_string(index=False, formatters={"parameters": "{:.2f} M".format}))
