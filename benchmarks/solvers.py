"""Which solver, in how many steps: average FAD on *validation* clips beside seconds per clip, of trained models.

./run python -m benchmarks.solvers [--variant ldm]
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from benchmarks import timing
from foleylib import params, paths, pipeline, runs, train

CASES = ["dpm++:5", "dpm++:8", "dpm++:10", "dpm++:15", "dpm++:20", "ddim:20:0", "ddim:40:1"]


def choice(case: str, settings: params.Params) -> params.Sampling:
    """`solver:steps[:eta]` as a change of `sampling`."""
    solver, steps, *eta = case.split(":")
    change = {"solver": solver, "steps": int(steps)} | ({"eta": float(eta[0])} if eta else {})
    return params.Sampling.model_validate(settings.sampling.model_dump() | change)


def measure(settings: params.Params, arguments: argparse.Namespace, device: torch.device) -> list[dict]:
    """A row for each case: seconds over the seeds, mean and range of the scores; ratios are to the last case."""
    validation, rounds, scores = runs.Validation(settings), {case: [] for case in arguments.cases}, []
    texts = dict(zip(validation.classes.label, validation.classes.prompt))
    for seed in [arguments.seeds[0], *arguments.seeds]:  # the first once more: the warm-up
        unet = pipeline.load_unet(paths.MODELS / "foley" / arguments.variant / str(seed))
        for case in arguments.cases[:: -1 if len(rounds[arguments.cases[0]]) % 2 else 1]:
            clock = timing.Clock(device)
            with clock.part("total"):
                clips = validation.draw(unet, texts, seed=seed, clips_per_class=arguments.clips_per_class,
                                        chosen=choice(case, settings))  # fmt: skip
            if rounds[case]:
                scores.append({"case": case, **validation.score(*clips)})
            rounds[case].append(clock.parts)
    table = pd.DataFrame(scores).groupby("case")
    found = table.mean().join(table.fad.agg(fad_min="min", fad_max="max"))
    items = len(clips[0])
    rows = timing.rows(rounds, baseline=arguments.cases[-1], items=items, unit="clip")
    return [{**row, "seconds_per_clip": row["seconds"] / items, **found.loc[row["case"]]} for row in rows]


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file")
    parser.add_argument("--variant", default="ldm", help="of foley.variants; its models must have been trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds of the variant")
    parser.add_argument("--cases", nargs="+", default=CASES, help="solver:steps[:eta]; the last is the baseline")
    parser.add_argument("--clips-per-class", type=int, default=15)
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    settings = params.load(arguments.params)
    device = train.pick_device(settings.device)
    machine = timing.environment(device)
    rows = measure(settings, arguments, device)
    print(pd.DataFrame(rows)[["case", "fad", "fad_min", "fad_max", "judge_accuracy"]].round(3).to_string(index=False))
    chosen = {"sampling": settings.sampling.model_dump()}
    name = "solvers" if arguments.variant == "ldm" else f"solvers_{arguments.variant}"
    return timing.report(name, rows, settings=timing.plain(arguments) | chosen, machine=machine, out=arguments.out)


if __name__ == "__main__":
    main()
