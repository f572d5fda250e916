"""How many steps a model of several sampling rates wants: scores on *validation* clips at each rate, and seconds a clip.

./run python -m benchmarks.rate_steps [--model models/src_gaudio/joint]
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from benchmarks.solvers import options_of
from foleylib import paths
from foleylib.diffusion.condition import Condition
from foleylib.networks import rates
from foleylib.papers.src_gaudio import Bench
from foleylib.papers.src_gaudio_pages import JUDGED
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import write_csv
from foleylib.sampling.sampler import SamplerOptions
from foleylib.stages import rates as stage

CASES = [
    "dpm++:5:log_snr",
    "dpm++:8:log_snr",
    "dpm++:8:log_snr:3",
    "dpm++:16:log_snr",
    "dpm++:40:log_snr",
    "ddim:200:1:3",
]


def measure(cfg: Params, arguments: argparse.Namespace) -> pd.DataFrame:
    """A row for each case and rate: seconds a clip, and the scores, means over the seeds of the noise."""
    bench = Bench(cfg, arguments.clips, "--clips", split="val")
    unet, clap = rates.load(arguments.model), bench.embedders.clap
    text, nothing = (stage.text_condition(t, cfg, clap) for t in (bench.asked, [""]))
    told = Condition(tokens=text.tokens, mask=text.mask, rate=torch.full((len(text),), float(bench.rates[0])))
    bench.draw(unet, told, nothing, rate=bench.rates[0], seed=0)  # to warm up
    rows = []
    for case in arguments.cases:
        bench.options = SamplerOptions.of(options_of(case, cfg.sampling))
        for rate in bench.rates:
            told = Condition(tokens=text.tokens, mask=text.mask, rate=torch.full((len(text),), float(rate)))
            for seed in arguments.seeds:
                begin = time.perf_counter()
                waves = bench.draw(unet, told, nothing, rate=rate, seed=seed)
                seconds = (time.perf_counter() - begin) / len(waves)
                scores = bench.score(waves, rate).set_index(["metric", "embedder"]).value
                own = {metric: scores.get((metric, embedder)) for metric, embedder in JUDGED.items()}
                rows.append({"case": case, "rate": rate, "seed": seed, "seconds_per_clip": seconds} | own)
    return pd.DataFrame(rows).drop(columns="seed").groupby(["case", "rate"], sort=False).mean().reset_index()


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file")
    parser.add_argument(
        "--model", type=Path, default=paths.SRC_GAUDIO / "joint", help="folder of a U-Net that is told a rate"
    )
    parser.add_argument("--cases", nargs="+", default=CASES, help="as in benchmarks.solvers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the noise")
    parser.add_argument(
        "--clips", type=int, default=35, help="validation clips that are sampled; the others are the reference"
    )
    parser.add_argument("--out", type=Path, default=paths.RESULTS / "benchmarks", help="folder of the results")
    arguments = parser.parse_args(argv)
    table = measure(settings.load(arguments.params), arguments)
    print(table.round(3).to_string(index=False))
    return write_csv(table, arguments.out / "rate_steps.csv")


if __name__ == "__main__":
    main()
