"""What belongs to text-driven-foley alone: Table 2 and the box plot, one class trained and selected with several texts."""

from functools import partial

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import fad
from foleylib.evaluation.quick import quick
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.params.systems import System
from foleylib.runtime import fingerprint, in_parallel, write_csv
from foleylib.sampling import selection, thresholds
from foleylib.stages.candidates import candidates_of
from foleylib.stages.embedders import Embedders
from foleylib.stages.finetune import Tuned, class_prompts, training_key, tune
from foleylib.stages.reference import reference
from foleylib.stages.sample import Drawer, class_rows

TUNED, AUDIO = "Tuned embedding", "Audio embedding"  # rows of the table beside the texts


def compare_texts(cfg: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of one class for models trained, prompted and selected with different texts, against its real test clips.

    Every model is a fine-tuning of the foundation on the whole corpus, in which the prompt of that one class is the
    row's; "Tuned embedding" adds the tuning layer to the last text, "Audio embedding" selects the clips of that model by
    the embeddings of training clips (multi-target). Half of the candidates set a row's threshold, against validation
    clips; its clips are the first of the other half that pass.

    Writes results/targets.csv and results/targets_boxes.csv.

    Returns
    -------
    table [row, text, seed, clips, candidates, passed, selected (bool), and the scores of `evaluation.quick.quick`]; boxes
    [row, seed, sampling, and the scores] of unselected clips.
    """
    settings, classes = cfg.targets, list(class_rows(cfg).label)
    if settings.label not in classes:
        has = f"has {', '.join(classes)}" if any(classes) else "has no classes: take the stage targets out"
        raise ValueError(f"targets.label is '{settings.label}', but corpus '{cfg.sampling.corpus}' {has}")
    texts = {**settings.texts, TUNED: list(settings.texts.values())[-1]}
    calls, how = [(row, text, seed) for seed in settings.seeds for row, text in texts.items()], {"desc": "texts"}
    told = in_parallel(_compare, calls, partial(_context, cfg), device=cfg.device, jobs=cfg.jobs, **how)
    table, boxes = ([line for lines in part for line in lines] for part in zip(*told))
    order = {row: number for number, row in enumerate([*texts, AUDIO])}
    table = pd.DataFrame(table).sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    boxes = pd.DataFrame(boxes).sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    write_csv(table, paths.RESULTS / "targets.csv")
    write_csv(boxes, paths.RESULTS / "targets_boxes.csv")
    return table, boxes


def _context(cfg: Params) -> tuple[Params, Embedders, dict[str, Embeddings]]:
    """What all rows are scored with: the settings, the networks, and the real clips of the class."""
    embedders = Embedders(cfg)
    splits = ("val", cfg.evaluate.split)
    return cfg, embedders, {s: embedders.embed(*reference(cfg, s)).only(cfg.targets.label) for s in splits}


def _compare(context, row: str, text: str, seed: int) -> tuple[list[dict], list[dict]]:
    """The lines of the table and of the boxes of one model."""
    cfg, embedders, real = context
    settings, test, labels = cfg.targets, real[cfg.evaluate.split], embedders.judge.model.labels
    table, boxes, model = [], [], _train(row, text, seed, cfg)
    drawn = _candidates(model, seed, cfg, embedders)
    for sampling, part in enumerate(np.array_split(np.arange(len(drawn)), len(drawn) // settings.clips)):
        scores = quick(test, drawn.at(part[: settings.clips]), labels)
        boxes.append({"row": row, "seed": seed, "sampling": sampling} | scores)
    targets = {row: _text_target(model, settings.label, embedders)}
    targets |= {AUDIO: _audio_targets(cfg)} if row == TUNED else {}
    for name, target in targets.items():
        rows, passed = _selected(drawn, target, real["val"], cfg)
        what = {"row": name, "text": text, "seed": seed, "clips": settings.clips, "candidates": len(drawn)}
        for selected, chosen in ((False, len(drawn) // 2 + np.arange(settings.clips)), (True, rows)):
            scores = quick(test, drawn.at(chosen), labels)
            table.append(what | {"passed": passed, "selected": selected} | scores)
    return table, boxes


def _train(row: str, text: str, seed: int, cfg: Params) -> Tuned:
    """The model of a row."""
    settings, parts = cfg.targets, load_parts(paths.FOUNDATION)
    common = cfg.finetune.changed(train=cfg.finetune.train.changed(steps=settings.steps))
    system = System(corpus=settings.corpus, init="ldm", tuning=row == TUNED)
    prompts = class_prompts(system) | {settings.label: text}
    scratch = paths.SCRATCH / "targets" / fingerprint(training_key(system, common, seed, cfg), prompts)
    return tune(system, seed, cfg, parts, scratch=scratch, common=common, prompts=prompts)


def _candidates(model: Tuned, seed: int, cfg: Params, embedders: Embedders) -> Embeddings:
    """Embeddings of the class's candidates."""
    drawer, label = Drawer(paths.FOUNDATION / "ldm", cfg, clap=embedders.clap), cfg.targets.label
    drawer.pipeline.unet = model.unet.eval().to(drawer.pipeline.vae.device)
    drawer.classes = drawer.classes.assign(prompt=drawer.classes.label.map(model.prompts))
    rows = candidates_of(drawer, seed, cfg).rows([(label, number) for number in range(cfg.targets.candidates)])
    return embedders.embed(rows, drawer.draw(rows).numpy())


def _text_target(model: Tuned, label: str, embedders: Embedders) -> np.ndarray:
    E = embedders.clap.embed_text([model.prompts[label]]).cpu()
    return (E if model.tuning is None else model.tuning(E)).detach().numpy()


def _audio_targets(cfg: Params) -> np.ndarray:
    index, arrays = features.load(paths.FEATURES / cfg.targets.corpus, "train")
    E = arrays["audio"][index.label == cfg.targets.label]
    return selection.multi_targets(E, min(cfg.selection.targets, len(E)))


def _selected(drawn: Embeddings, target: np.ndarray, validation: Embeddings, cfg: Params) -> tuple[np.ndarray, int]:
    """Rows of the clips that are taken, and how many candidates pass.

    They are the first to pass, in order; where fewer pass than are asked for, the best of the others fill up.
    """
    settings, label, half = cfg.targets, cfg.targets.label, len(drawn) // 2
    pool, rest = drawn.at(np.arange(half)), np.arange(half, len(drawn))
    options = {"metric": fad, "shares": cfg.selection.shares, "seed": cfg.seed}
    reference_E = {label: validation["clap"]}
    threshold, _ = thresholds.calibrate(pool["clap"], pool.labels, {label: target}, reference_E, **options)
    E, unit = selection.unit_rows("candidates", drawn["clap"]), selection.unit_rows("target", target)
    _, score = selection.scores_of(label, E, unit, seed=cfg.seed)
    passing = score[rest] >= threshold[label]
    taken = rest[np.lexsort((rest, -score[rest] * ~passing, ~passing))][: settings.clips]
    return np.sort(taken), int(passing.sum())
