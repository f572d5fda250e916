"""Table 2 and the box plot of text-driven-foley: one class, trained and selected with several texts."""

import numpy as np
import pandas as pd

from foleylib import clap, features, filtered, foley, metrics, params, paths, pipeline, runs, sampling, selection, train
from foleylib.progress import progress

TUNED, AUDIO = "Tuned embedding", "Audio embedding"  # rows of the table beside the texts


def compare(settings: params.Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """FAD of one class for models trained, prompted and selected with different texts, against its *test* clips.

    Every model is a fine-tuning of the foundation on the whole corpus, in which the prompt of that one class is the
    row's; "Tuned embedding" adds the tuning layer to the last text, "Audio embedding" selects the clips of that model by
    the embeddings of training clips (multi-target). A row's clips are the best `clips` of its candidates by similarity.

    Returns
    -------
    table [row, text, fad, unselected, clips, candidates]; boxes [row, sampling, fad] of unselected clips.
    """
    chosen, ear = settings.targets, runs.load_clap(settings)
    real = runs.reference_by_class(ear, settings)[chosen.label]
    models, parts = {}, pipeline.load_parts()
    common = settings.foley.common
    common = common.model_copy(update={"train": common.train.model_copy(update={"steps": chosen.steps})})
    rows = {**chosen.texts, TUNED: list(chosen.texts.values())[-1]}
    for row, text in progress(rows.items(), desc="texts"):
        variant = params.FoleyVariant(init="ldm", tuning=row == TUNED)
        prompts = foley.class_prompts(variant, common.corpus) | {chosen.label: text}
        key = params.fingerprint(foley.fingerprint(variant, common, settings.seed, settings), prompts)
        models[row] = foley.tune(variant, settings.seed, settings, parts, scratch=paths.SCRATCH / "targets" / key,
                                 common=common, prompts=prompts)  # fmt: skip
    drawn = {row: _candidates(model, settings, ear) for row, model in models.items()}
    targets = {row: _text_target(models[row], chosen.label, ear) for row in rows} | {AUDIO: _audio_targets(settings)}
    drawn[AUDIO] = drawn[TUNED]
    table = [{"row": row, "text": rows.get(row, rows[TUNED]), **_scored(drawn[row], targets[row], real, settings)}
             for row in targets]  # fmt: skip
    boxes = [{"row": row, "sampling": i, "fad": metrics.fad(real, part)} for row in rows
             for i, part in enumerate(_samplings(drawn[row], settings))]  # fmt: skip
    return pd.DataFrame(table), pd.DataFrame(boxes)


def _candidates(model: foley.Tuned, settings: params.Params, ear: clap.Clap) -> np.ndarray:
    """CLAP embeddings [shape=(N, D)] of the class's clips: first the candidates, then those of the repeated samplings."""
    chosen, system = settings.targets, sampling.load(paths.FOUNDATION / "ldm")
    system.unet = model.unet.eval()
    classes = runs.prompts(settings)
    classes = classes[classes.label == chosen.label].assign(prompt=model.prompts[chosen.label])
    source = filtered.Candidates(system.to(train.pick_device(settings.device)), classes, settings.seed,
                                 settings.sampling, settings, ear)  # fmt: skip
    return source({chosen.label: (0, max(chosen.candidates, _box(settings) * chosen.repeats))})[chosen.label]


def _box(settings: params.Params) -> int:
    """Clips of one of the repeated samplings."""
    return max(2, settings.targets.candidates // settings.targets.repeats)


def _samplings(E: np.ndarray, settings: params.Params) -> list[np.ndarray]:
    size = _box(settings)
    return [E[i * size : (i + 1) * size] for i in range(settings.targets.repeats)]


def _text_target(model: foley.Tuned, label: str, ear: clap.Clap) -> np.ndarray:
    E = ear.embed_text([model.prompts[label]]).cpu()
    return (E if model.tuning is None else model.tuning(E)).detach().numpy()


def _audio_targets(settings: params.Params) -> np.ndarray:
    index, arrays = features.load(paths.FEATURES / settings.sampling.corpus, "train")
    E = arrays["audio"][index.label == settings.targets.label]
    return selection.multi_targets(E, min(settings.selection.targets, len(E)))


def _scored(E: np.ndarray, target: np.ndarray, real: np.ndarray, settings: params.Params) -> dict:
    chosen = settings.targets
    E = E[: chosen.candidates]
    E, target = selection.unit_rows("candidates", E), selection.unit_rows("target", target)
    _, score = selection.scores_of(chosen.label, E, target, seed=settings.seed)
    best = np.sort(np.argsort(-score, kind="stable")[: chosen.clips])
    return {"fad": metrics.fad(real, E[best]), "unselected": metrics.fad(real, E[: chosen.clips]), "clips": len(best),
            "candidates": len(E)}  # fmt: skip
