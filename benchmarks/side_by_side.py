"""Short fine-tunings of U-Nets of one seed each: one after another on all threads, and side by side on one thread each.

./run python -m benchmarks.side_by_side [--steps 20]
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from benchmarks import models, timing
from benchmarks.training_step import Step, loss_of
from foleylib import paths
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import in_parallel, pick_device

TURN, SIDE = "one after another", "side by side"


def given(cfg: Params, arguments: argparse.Namespace) -> tuple[Params, argparse.Namespace]:
    """What a process needs."""
    return cfg, arguments


def training(context: tuple[Params, argparse.Namespace], seed: int) -> int:
    """`steps` steps of a U-Net in the size of params.yaml on made-up latents; returns the threads it had."""
    cfg, arguments = context
    section, parts = cfg.finetune, models.build(cfg, arguments, with_clap=False)
    step, loss = Step(parts, section.train, "float32"), loss_of(parts, cfg, section)
    channels, frames, bands = parts.latent_shape
    generator = torch.Generator().manual_seed(seed)
    moments = torch.randn(section.train.batch_size, 2 * channels, frames, bands, generator=generator)
    batch = {"moments": moments, "embedding": models.embeddings(len(moments), parts.dim)}
    for _ in range(arguments.steps):
        step.forward(loss, batch).backward()
        step.update()
    return torch.get_num_threads()


def cases(cfg: Params, arguments: argparse.Namespace) -> dict:
    """Both ways of doing the same trainings."""
    context = given(cfg, arguments)

    def in_turn(clock: timing.Clock) -> None:
        with clock.part("total"):
            for seed in range(arguments.trainings):
                training(context, seed)

    def side_by_side(clock: timing.Clock) -> None:
        calls = [(seed,) for seed in range(arguments.trainings)]
        how = {"device": "cpu", "jobs": cfg.jobs, "desc": SIDE}
        with clock.part("total"):
            in_parallel(training, calls, partial(given, cfg, arguments), **how)

    return {SIDE: side_by_side, TURN: in_turn}


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file")
    parser.add_argument("--trainings", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="of each training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    arguments.published, arguments.seconds, arguments.device = None, None, "cpu"
    cfg = settings.load(arguments.params)
    machine = timing.environment(pick_device("cpu"))
    seconds = timing.interleaved(cases(cfg, arguments), arguments.repeats)
    table = timing.rows(seconds, baseline=TURN, items=arguments.trainings, unit="training")
    return timing.report("side_by_side", table, arguments=arguments, machine=machine)


if __name__ == "__main__":
    main()
