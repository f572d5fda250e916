"""What belongs to text-driven-foley alone: Table 2 and the box plot, one class trained and selected with several texts."""

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.evaluation.frechet import fad
from foleylib.networks import clap as claps
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.params.systems import System
from foleylib.runtime import fingerprint, progress, write_csv
from foleylib.sampling import selection
from foleylib.stages.candidates import candidates_of
from foleylib.stages.finetune import Tuned, class_prompts, training_key, tune
from foleylib.stages.reference import embeddings_by_class
from foleylib.stages.sample import Drawer, load_clap

TUNED, AUDIO = "Tuned embedding", "Audio embedding"  # rows of the table beside the texts


def compare_texts(cfg: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """FAD of one class for models trained, prompted and selected with different texts, against its real clips.

    Every model is a fine-tuning of the foundation on the whole corpus, in which the prompt of that one class is the
    row's; "Tuned embedding" adds the tuning layer to the last text, "Audio embedding" selects the clips of that model by
    the embeddings of training clips (multi-target). A row's clips are the best `clips` of its candidates by similarity.

    Writes results/targets.csv and results/targets_boxes.csv.

    Returns
    -------
    table [row, text, fad, unselected, clips, candidates]; boxes [row, sampling, fad] of unselected clips.
    """
    settings, clap = cfg.targets, load_clap(cfg)
    real = embeddings_by_class(clap, cfg)[settings.label]
    texts = {**settings.texts, TUNED: list(settings.texts.values())[-1]}
    models = _train(texts, cfg)

    drawn = {row: _candidates(model, cfg, clap) for row, model in models.items()}
    targets = {row: _text_target(model, settings.label, clap) for row, model in models.items()}
    drawn[AUDIO], targets[AUDIO] = drawn[TUNED], _audio_targets(cfg)
    rows = [
        {"row": row, "text": texts.get(row, texts[TUNED]), **_scores(drawn[row], target, real, cfg)}
        for row, target in targets.items()
    ]
    boxes = [
        {"row": row, "sampling": i, "fad": fad(real, part)}
        for row in texts
        for i, part in enumerate(_samplings(drawn[row], cfg))
    ]
    table, boxes = pd.DataFrame(rows), pd.DataFrame(boxes)
    write_csv(table, paths.RESULTS / "targets.csv")
    write_csv(boxes, paths.RESULTS / "targets_boxes.csv")
    return table, boxes


def _train(texts: dict[str, str], cfg: Params) -> dict[str, Tuned]:
    """A model for each row."""
    settings, parts, models = cfg.targets, load_parts(paths.FOUNDATION), {}
    common = cfg.finetune.changed(train=cfg.finetune.train.changed(steps=settings.steps))
    for row, text in progress(texts.items(), desc="texts"):
        system = System(corpus=settings.corpus, init="ldm", tuning=row == TUNED)
        prompts = class_prompts(system) | {settings.label: text}
        scratch = paths.SCRATCH / "targets" / fingerprint(training_key(system, common, cfg.seed, cfg), prompts)
        models[row] = tune(system, cfg.seed, cfg, parts, scratch=scratch, common=common, prompts=prompts)
    return models


def _candidates(model: Tuned, cfg: Params, clap: claps.Clap) -> np.ndarray:
    """CLAP embeddings [shape=(N, D)] of the class's clips: first the candidates, then those of the repeated samplings."""
    settings, drawer = cfg.targets, Drawer(paths.FOUNDATION / "ldm", cfg, clap=clap)
    drawer.pipeline.unet = model.unet.eval().to(drawer.pipeline.vae.device)
    drawer.classes = drawer.classes.assign(prompt=drawer.classes.label.map(model.prompts))
    count = max(settings.candidates, _box(cfg) * settings.repeats)
    return candidates_of(drawer, 0, cfg)({settings.label: (0, count)})[settings.label]


def _box(cfg: Params) -> int:
    """Clips of one of the repeated samplings."""
    return max(2, cfg.targets.candidates // cfg.targets.repeats)


def _samplings(E: np.ndarray, cfg: Params) -> list[np.ndarray]:
    size = _box(cfg)
    return [E[i * size : (i + 1) * size] for i in range(cfg.targets.repeats)]


def _text_target(model: Tuned, label: str, clap: claps.Clap) -> np.ndarray:
    E = clap.embed_text([model.prompts[label]]).cpu()
    return (E if model.tuning is None else model.tuning(E)).detach().numpy()


def _audio_targets(cfg: Params) -> np.ndarray:
    index, arrays = features.load(paths.FEATURES / cfg.targets.corpus, "train")
    E = arrays["audio"][index.label == cfg.targets.label]
    return selection.multi_targets(E, min(cfg.selection.targets, len(E)))


def _scores(E: np.ndarray, target: np.ndarray, real: np.ndarray, cfg: Params) -> dict:
    settings = cfg.targets
    E = E[: settings.candidates]
    E, target = selection.unit_rows("candidates", E), selection.unit_rows("target", target)
    _, score = selection.scores_of(settings.label, E, target, seed=cfg.seed)
    best = np.sort(np.argsort(-score, kind="stable")[: settings.clips])
    return {
        "fad": fad(real, E[best]),
        "unselected": fad(real, E[: settings.clips]),
        "clips": len(best),
        "candidates": len(E),
    }
