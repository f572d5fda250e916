"""Which solver, in how many steps: KAD, coverage, FD and FAD on *validation* clips beside seconds per clip, of trained models.

./run python -m benchmarks.solvers [--system ldm | foundation]
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks import timing
from foleylib import paths
from foleylib.networks import pipeline
from foleylib.networks import unet as unets
from foleylib.params import settings
from foleylib.params.runs import Sampling
from foleylib.params.settings import Params
from foleylib.runtime import pick_device
from foleylib.stages.embedders import Validation

CASES = [f"dpm++:{steps}:{spacing}" for spacing in ("leading", "log_snr") for steps in (5, 8, 10, 15, 20, 40)]
CASES += [f"dpm++:10:log_snr:{guidance}" for guidance in (1, 1.5, 3, 4, 5)]
CASES += ["dpm++:200:leading", "ddim:40:1", "ddim:200:1"]


def options_of(case: str, sampling: Sampling) -> Sampling:
    """`dpm++:steps:spacing[:guidance]` or `ddim:steps:eta[:guidance]` as a change of `sampling`."""
    solver, steps, last, *guidance = case.split(":")
    how = {"spacing": last} if solver == "dpm++" else {"eta": float(last)}
    if guidance:
        how["guidance"] = float(guidance[0])
    return sampling.changed(solver=solver, steps=int(steps), **how)


def folder_of(system: str, seed: int) -> Path:
    """Where the model of a system and training seed lies; the foundation is one model, sampled with every seed."""
    return paths.FOUNDATION / "ldm" if system == "foundation" else paths.SYSTEMS / system / str(seed)


def measure(cfg: Params, arguments: argparse.Namespace) -> pd.DataFrame:
    """A row for each case: seconds over the seeds, mean and range of the scores; ratios are to the last case."""
    validation, scores = Validation(cfg), []
    count, device = arguments.clips_per_class, validation.embedders.device
    seeds = [arguments.seeds[0], *arguments.seeds]  # a round each; the warm-up takes the first seed once more

    def timed(case: str):
        options = options_of(case, cfg.sampling)

        def run(clock: timing.Clock) -> None:
            seed = seeds[clock.round]
            folder = folder_of(arguments.system, seed)
            unet = unets.load(folder).to(device)
            prompts = pipeline.prompts_of(folder) or dict(validation.embedders.texts)
            with clock.part("total"):
                manifest, waves = validation.draw(unet, prompts, seed=seed, clips_per_class=count, options=options)
            if clock.round:
                scores.append({"case": case, **validation.score(manifest, waves)})

        return run

    seconds = timing.interleaved({case: timed(case) for case in arguments.cases}, len(arguments.seeds))
    n = count * len(validation.embedders.texts)
    table = timing.rows(seconds, baseline=arguments.cases[-1], items=n, unit="clip")
    by_case = pd.DataFrame(scores).groupby("case")
    ranges = [by_case[name].agg(["min", "max"]).add_prefix(f"{name}_") for name in ("kad", "coverage", "fd", "fad")]
    scored = by_case.mean().join(ranges)
    return table.assign(seconds_per_clip=table.seconds / n).join(scored, on="case")


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file")
    parser.add_argument("--system", default="ldm", help="of the section systems, trained; or foundation")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds of the system; they draw the noise"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=CASES,
        help="dpm++:steps:spacing or ddim:steps:eta, and :guidance; the last is the baseline",
    )
    parser.add_argument("--clips-per-class", type=int, default=15)
    parser.add_argument("--name", help="of the results; solvers, or solvers_SYSTEM, without")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    cfg = settings.load(arguments.params)
    machine = timing.environment(pick_device(cfg.device))
    table = measure(cfg, arguments)
    print(
        table[["case", "kad", "coverage", "fd", "fad", "judge_accuracy", "seconds_per_clip"]]
        .round(3)
        .to_string(index=False)
    )
    name = arguments.name or ("solvers" if arguments.system == "ldm" else f"solvers_{arguments.system}")
    sampling = {"sampling": cfg.sampling.model_dump(mode="json")}
    return timing.report(name, table, arguments=arguments, machine=machine, more=sampling)


if __name__ == "__main__":
    main()
