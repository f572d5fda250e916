"""`foleylib pictures`: the two pictures at the top of README.md, from the last results."""

import argparse
import io
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, PngImagePlugin

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.commands import summary
from foleylib.commands.outputs import check_folder, place
from foleylib.datasets import samples
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.report import plots, tables
from foleylib.report.style import class_label
from foleylib.runtime import weights_sha256

HELP = "the pictures of README.md, from the last results"
ABOUT = "Draws the two pictures at the top of README.md, spectrograms and scores, from data/samples and results/summary.csv."
HEARD = {"real": "held out", "ldm_filter": "generated"}  # run: what its clips are called
CLASSES = 4  # whose clips are shown
SCORED = ["real", "one_clip_real", "foundation", "ldm", "tuning", "latent", "ldm_filter", "large", "large_filter"]
SCORES = ["kad", "coverage"]
MADE_FROM = "results/summary.csv"  # the field of a PNG that has the file's SHA-256


def pictures(out: str | Path | None = None) -> list[Path]:
    """Write spectrograms.png and results.png to `out` (docs/pictures); returns their paths.

    The first has a held-out and a generated clip of four classes, which nobody chose: they are the first. The second has KAD and
    coverage of the main runs with their intervals. Each PNG names the SHA-256 of the results that it was made from.
    """
    cfg, out, file = settings.load(), Path(out or paths.ROOT / "docs" / "pictures"), paths.RESULTS / "summary.csv"
    scores = summary.read(file)
    check_folder(out)
    plots.set_theme()
    out.mkdir(parents=True, exist_ok=True)
    made = {"spectrograms": _spectrograms(cfg), "results": _results(cfg, scores)}
    return [_write(out / f"{name}.png", figure, weights_sha256(file)) for name, figure in made.items()]


def _spectrograms(cfg: Params) -> plots.Figure:
    corpus = cfg.corpus_of("sampling")
    log_mel = front_end(corpus.rate, corpus.padding)
    firsts = {}
    for run, called in HEARD.items():
        manifest, waves = samples.load(paths.clips_of(run))
        firsts[called] = manifest.assign(wave=list(waves)).groupby("label").head(1)
    mels, titles = [], []
    for label in next(iter(firsts.values())).label[:CLASSES]:
        for called, rows in firsts.items():
            mels.append(log_mel(torch.from_numpy(rows.wave[rows.label == label].iloc[0])[None])[0, 0])
            titles.append(f"{class_label(label)}, {called}")
    return plots.mel_grid(mels, titles, rate=corpus.rate, hop=log_mel.config.hop)


def _results(cfg: Params, scores: pd.DataFrame) -> plots.Figure:
    whole, display = tables.of_table(scores, "", ""), cfg.display()
    runs = [run for run in SCORED if run in display and run in set(whole.run)]
    return plots.headlines(whole[whole.embedder == "judge"], metrics=SCORES, runs=runs, display=display)


def _write(path: Path, figure: plots.Figure, sha256: str) -> Path:
    told = PngImagePlugin.PngInfo()
    told.add_text(MADE_FROM, sha256)
    Image.open(io.BytesIO(figure.png())).save(path, "png", optimize=True, pnginfo=told)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("-o", "--out", type=place, default=paths.ROOT / "docs" / "pictures", help="folder")


def run(arguments: argparse.Namespace) -> None:
    print("\n".join(map(str, pictures(arguments.out))))
