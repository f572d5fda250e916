"""What the graph of profile `paper` costs on one H100, each paper under its own profile: hours, memory, disk, stage by stage.

./run python -m benchmarks.paper_cost     # writes results/benchmarks/paper_cost.csv and prints the table of docs/scaling.md

Nothing is run: work is counted from the settings, `benchmarks.cost` has what it costs. Stages that are not named (judge,
detector, thresholds, scoring, pages) take minutes.
"""

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks import cost, timing
from benchmarks.cost import CLIPS, COLUMNS, SIZES, Costs
from foleylib import paths
from foleylib.datasets.retrieval import PROTOCOLS
from foleylib.papers.combined import LEFT_OUT
from foleylib.papers.re_audioldm import CHANGED
from foleylib.papers.src_gaudio import REGIMES
from foleylib.papers.transfer_pages import SETTINGS
from foleylib.params import profiles, settings
from foleylib.params.settings import Params
from foleylib.runtime import write_csv


def shared(costs: Costs) -> None:
    """What is made once for latent_clap, transfer, re_audioldm and src_gaudio, which have one foundation."""
    costs.prepare("foley", "broad", "audiocaps", "wide")
    for name in costs.cfg.retrieval.corpora:
        clips = CLIPS[name]
        disk = clips * (32 * 768 * 2 + costs.cfg.retrieval.tokens.length * 1024 * 2 + 50 * 8) / 1e9
        costs.gpu(f"retrieval_index@{name}", f"{clips:,} clips", clips * (cost.AUDIOMAE + cost.CLAP_BOTH), disk_gb=disk)
    costs.add(
        "foundation",
        "published weights",
        disk_gb=(cost.UNETS["M"][1] + cost.OTHERS + cost.CLAP + 55.38 + 55.26) * 4 / 1e3,
    )


def foley(costs: Costs) -> None:
    """The stages around the systems: fine-tuning, sampling, selection."""
    cfg, classes = costs.cfg, 7
    clips = classes * cfg.sampling.clips_per_class
    sizes = {name: SIZES[cfg.foundation.section(own.init).channels[0]] for name, own in cfg.systems.items()}
    for name in cfg.systems:
        costs.train(f"finetune@{name}", sizes[name], cfg.finetune.train, len(cfg.trained_seeds(name)))
    for name in cfg.runs:
        size = sizes.get(cfg.system_of(name), costs.unet)
        costs.draw(f"sample@{name}", size, clips * len(cfg.models_of(name)))
    for name, own in cfg.filters.items():
        size, most = sizes[cfg.system_of(own.select.of)], cfg.selection.cap  # at most so many candidates a clip
        costs.draw(f"selection@{name}", size, clips * most * len(cfg.models_of(name)), kept=False)


def text_foley(costs: Costs) -> None:
    cfg, own = costs.cfg, costs.cfg.targets
    costs.prepare("foley", "broad")
    foley(costs)
    models = (len(own.texts) + 1) * len(own.seeds)
    costs.train("targets", costs.unet, cfg.finetune.train, models, steps=own.steps, kept=False)
    costs.draw("targets", costs.unet, models * own.candidates, kept=False)


def latent_clap(costs: Costs) -> None:
    cfg, own, encoder = costs.cfg, costs.cfg.lambda_sweep, costs.cfg.latent_clap.train
    work = f"{encoder.steps:,} steps of {encoder.batch_size}, Cnn10"
    costs.gpu("latent_clap", work, encoder.steps * encoder.batch_size * 3 * cost.LATENT_CLAP, disk_gb=0.02)
    foley(costs)
    models = len(own.tuning) * len(own.lambdas) * len(own.seeds)
    costs.train("lambda_sweep", costs.unet, cfg.finetune.train, models, steps=own.steps, kept=False)
    costs.draw("lambda_sweep", costs.unet, models * 7 * own.clips_per_class, kept=False)


def transfer(costs: Costs) -> None:
    cfg, own = costs.cfg, costs.cfg.transfer
    costs.prepare("esc50", "urbansound8k", "audioset")
    models = len(own.corpora) * len(SETTINGS) * len(own.seeds)
    costs.train("transfer", costs.unet, cfg.finetune.train, models, steps=own.steps, kept=False)
    drawn = models * own.steps // own.every * sum(own.clips.values()) + len(own.untuned) * 2 * own.clips["test"]
    costs.draw("transfer", costs.unet, drawn, kept=False)


def re_audioldm(costs: Costs) -> None:
    cfg, own = costs.cfg, costs.cfg.re_audioldm
    models, size = len(own.models) * len(own.seeds), SIZES[own.pretrained.channels[0]]
    costs.train("retrieval", size, own.pretrained.train, 1)
    costs.train("re_audioldm", size, cfg.finetune.train, models, steps=own.steps, kept=False)
    asked = models + (len(CHANGED) + len(PROTOCOLS) - 1) * len(own.seeds) + 2 * (own.captions - 1)
    costs.draw("re_audioldm", size, asked * own.clips, kept=False)


def src_gaudio(costs: Costs) -> None:
    cfg, own = costs.cfg, costs.cfg.src_gaudio
    for name, vocoder in own.vocoders.items():
        if vocoder.source == "scratch":
            settings = vocoder.section(cfg.foundation.vocoder, cfg.corpus_of("foundation").rate)
            steps, batch = settings.train.steps, settings.train.batch_size
            # Of a generator as large as the published one; its discriminators are assumed to cost as much again.
            flop = 2 * 3 * cost.VOCODER * (settings.segment / vocoder.rate / 10.24) * (vocoder.rate / 16000)
            costs.gpu(
                f"rate_vocoder@{name}", f"{steps:,} steps of {batch} segments", steps * batch * flop, disk_gb=0.22
            )
    costs.train("rates", "SRC", own.pretrained.train, 2)
    models, rates = len(REGIMES) * len(own.seeds), cfg.corpora[own.corpus].rates
    costs.train("src_gaudio", "SRC", own.train, models, kept=False)
    costs.draw("src_gaudio", "SRC", models * len(rates) * own.clips, kept=False)


def combined(costs: Costs) -> None:
    cfg, own = costs.cfg, costs.cfg.combined
    models, size = len(LEFT_OUT) * len(own.seeds), SIZES[cfg.re_audioldm.pretrained.channels[0]]
    costs.train("combined", size, cfg.finetune.train, models, steps=own.steps, kept=False)
    costs.draw("combined", size, models * len(own.rates) * own.clips, kept=False)


def load(profile: str) -> Params:
    """params.yaml of the repository with `paper`, and with `profile` on top of it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(paths.PARAMS, folder)
        shutil.copytree(paths.PARAMS.parent / "params", Path(folder) / "params")
        for name in dict.fromkeys(("paper", profile)):
            profiles.apply(name, params=Path(folder) / "params.yaml")
        return settings.load(Path(folder) / "params.yaml")


PARTS = {
    "paper": (shared, combined),
    "text_foley": (text_foley,),
    "latent_clap": (latent_clap,),
    "transfer": (transfer,),
    "re_audioldm": (re_audioldm,),
    "src_gaudio": (src_gaudio,),
}


def table() -> pd.DataFrame:
    """All stages, with a row "total" for each profile and one for all of them; memory is the most of a stage."""
    stages = []
    for profile, parts in PARTS.items():
        costs = Costs(profile, load(profile))
        for part in parts:
            part(costs)
        stages.append(pd.DataFrame(costs.rows, columns=COLUMNS).fillna(0.0))
    every = pd.concat(stages, ignore_index=True)
    how = dict.fromkeys(COLUMNS[3:], "sum") | {"memory_gb": "max"}
    totals = [own.agg(how).to_dict() | {"profile": own.profile[0]} for own in (*stages, every.assign(profile="all"))]
    totals = pd.DataFrame(totals).assign(stage="total", work="")
    return pd.concat([every, totals], ignore_index=True)[COLUMNS]


def lines(told: pd.DataFrame) -> list[str]:
    """The rows of the table in docs/scaling.md: stages of one kind together, and the totals."""
    told = told.assign(stage=told.stage.str.split("@").str[0])
    how = dict.fromkeys(COLUMNS[4:], "sum") | {"memory_gb": "max"}
    rows = told.groupby(["profile", "stage"], sort=False).agg(how)
    return [
        f"| `{profile}` | {stage if stage == 'total' else f'`{stage}`'} | "
        + " | ".join(_number(value) for value in values)
        + " |"
        for (profile, stage), *values in rows.itertuples()
    ]


def _number(value: float) -> str:
    """Two digits, and no decimals from ten on; a dash for nothing."""
    if value < 0.005:
        return "–"
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def main() -> Path:
    told, out = table().round(4), timing.OUT / "paper_cost.csv"
    print("\n".join(lines(told)))
    write_csv(told, out)
    return out


if __name__ == "__main__":
    main()
