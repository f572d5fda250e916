"""`foleylib score`: every metric of a folder of sounds against another."""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from foleylib import paths
from foleylib.commands.outputs import check_folder, check_free, place
from foleylib.corpora import csv_file
from foleylib.evaluation.clips import SOUNDS
from foleylib.evaluation.folders import DEFAULTS, Options, score_folder
from foleylib.evaluation.remarks import listed
from foleylib.networks import clap as claps
from foleylib.networks import judge
from foleylib.networks.embedders import Embedder
from foleylib.params import settings
from foleylib.report import tables
from foleylib.report.style import metric_label
from foleylib.runtime import pick_device, weights_sha256, write_csv, write_json
from foleylib.stages import evaluators as published

HELP = "every metric of a folder of sounds against another"
ABOUT = (
    "Every metric of a folder of sounds against another. Both hold sounds of any format, rate and length, or a subfolder of "
    "sounds for each class. --out also writes the card: what the numbers depend on."
)


class _Heard(nn.Module):
    """A `networks.clap.Clap` as an evaluator."""

    def __init__(self, clap: claps.Clap) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embedding": self.clap.audio(waves)}

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        return self.clap.embed_text(texts)


def evaluators(device: str = "auto") -> dict[str, Embedder]:
    """The judge and CLAP, those of models/ where they were made, else the bundled ones; and the published evaluators that
    `evaluate.embedders` of params.yaml names."""
    where = pick_device(device)
    judged, heard = (_made_or_bundled(*pair) for pair in ((paths.JUDGE, "judge"), (paths.FOUNDATION / "clap", "clap")))
    clap = claps.load(heard, where)
    embedders = {
        "judge": judge.load(judged, device=where),
        "clap": Embedder("clap", clap.dim, clap.rate, weights_sha256(heard), _Heard(clap)),
    }
    return embedders | published.load(settings.load())


def _made_or_bundled(made: Path, part: str) -> Path:
    return made if (made / "config.json").is_file() else paths.BUNDLED / part


def score(
    generated: str | Path,
    reference: str | Path,
    *,
    captions: str | Path | Mapping[str, str] | None = None,
    paired: bool = False,
    device: str = "auto",
    options: Options = DEFAULTS,
) -> tuple[pd.DataFrame, dict]:
    """Every metric of a folder of sounds against another, with intervals, and the card of the protocol.

    >>> scores, card = score("my_clips", "real_clips")

    `captions` (a mapping, or a CSV of the columns file and caption) give the CLAP score; folders, pairs and options are those
    of `evaluation.folders.score_folder`, whose table and card are returned.
    """
    if isinstance(captions, str | Path):
        captions = _captions(Path(captions))
    return score_folder(generated, reference, evaluators(device), captions=captions, paired=paired, options=options)


def _captions(file: Path) -> dict[str, str]:
    text = csv_file.checked(file, ["file", "caption"], "give a CSV of file and caption, texts with commas in quotes")
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    if not all(Path(name).name for name in table.file):
        raise ValueError(f"{file}: a row has no file; name the file of each caption")
    files = [Path(name) for name in table.file]  # with the suffix of a sound or without
    names = pd.Series([(f.with_suffix("") if f.suffix.lower() in SOUNDS else f).as_posix() for f in files])
    if twice := sorted(set(names[names.duplicated()])):
        raise ValueError(f"{file}: {listed(twice)} stands there twice; give each clip one caption")
    return dict(zip(names, table.caption))


def shown(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of the whole set, a row for each metric and a column for each evaluator: "value [low, high]"."""
    whole, table = scores[scores["class"] == scores["class"].iloc[0]], {}
    for (metric, embedder), rows in whole.groupby(["metric", "embedder"], sort=False):
        table.setdefault(embedder, {})[metric_label(metric)] = tables.cell(rows, metric, by_seed=False)
    return pd.DataFrame(table).fillna("")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("generated", type=Path, metavar="MINE", help="folder of the sounds to score")
    parser.add_argument(
        "--against", type=Path, required=True, metavar="REAL", help="folder of real sounds, or stored statistics"
    )
    parser.add_argument("--captions", type=Path, metavar="CSV", help="file,caption of each of MINE, for the CLAP score")
    parser.add_argument("--paired", action="store_true", help="sounds of one name belong together (for KL)")
    parser.add_argument("--bootstrap", type=int, default=DEFAULTS.bootstrap, help="draws behind the intervals")
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of these draws")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("-o", "--out", type=place, metavar="FOLDER", help="write scores.csv and card.json there")
    parser.add_argument("--overwrite", action="store_true", help="replace these where they are there")


def run(arguments: argparse.Namespace) -> None:
    if arguments.bootstrap < 1 or not 0 <= arguments.seed < 2**32:
        raise ValueError("--bootstrap must be 1 or more, --seed 0 or more and below 2 to the power of 32")
    written = [] if arguments.out is None else [arguments.out / "scores.csv", arguments.out / "card.json"]
    if written:
        check_folder(arguments.out)
        check_free(written, overwrite=arguments.overwrite)
    options = DEFAULTS._replace(bootstrap=arguments.bootstrap, seed=arguments.seed)
    told = {name: getattr(arguments, name) for name in ("captions", "paired", "device")}
    scores, card = score(arguments.generated, arguments.against, **told, options=options)
    print(shown(scores).to_string())
    if classes := sorted(set(scores["class"]) - {"all", "average", ""}):
        print(f"Scores of {len(classes)} classes are in the table that --out writes.")
    print(f"{card['n']} clips; intervals: {card['interval']}.")
    for remark in card["remarks"]:
        print(f"Note: {remark}")
    if written:
        write_csv(scores, written[0])
        write_json(written[1], card)
        print(", ".join(map(str, written)))
