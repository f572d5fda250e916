"""Selected runs: from the candidates of a run's models to clips that pass the CLAP threshold of their class."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from torch.nn import functional as F

from foleylib import calibration, clap, conditioning, features, params, paths, runs, sampling, selection, train

POOL_FROM = 1_000_000  # number of the first calibrating candidate: none of them is ever a candidate of a run
THRESHOLDS = "thresholds.json"


@dataclass
class Candidates:
    """Draws numbered candidates of one model and keeps their waves; the first ones may be given."""

    system: sampling.System
    classes: pd.DataFrame  # [label, target, prompt]
    seed: int
    chosen: params.Sampling
    settings: params.Params
    clap: clap.Clap
    waves: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def __call__(self, requests: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
        """CLAP audio embeddings [shape=(count, D)] of candidates first..first+count-1 of each class."""
        wanted = [(c, n) for c, (first, count) in requests.items() for n in range(first, first + count)]
        absent = [key for key in wanted if key not in self.waves]
        if absent:
            rows = self.rows(absent)
            made = runs.draw(self.system, rows, self.chosen, self.settings, self.clap).numpy()
            self.waves |= dict(zip(absent, made))
        return {c: self.embed([self.waves[c, n] for n in range(first, first + count)])
                for c, (first, count) in requests.items()}  # fmt: skip

    def rows(self, keys: list[tuple[str, int]]) -> pd.DataFrame:
        """Manifest rows of candidates."""
        classes = self.classes.set_index("label", drop=False).loc[[label for label, _ in keys]].reset_index(drop=True)
        return classes.assign(id=[f"{label}-{n:04d}" for label, n in keys], seed=sampling.clip_seeds(self.seed, keys))

    def embed(self, waves: list[np.ndarray]) -> np.ndarray:
        return self.clap.embed_audio(np.stack(waves), self.settings.audio.rate).cpu().numpy()


def candidates_of(
    folder: Path, seed: int, chosen: params.Sampling, settings: params.Params, ear: clap.Clap
) -> Candidates:
    """Candidates of the model in `folder`, trained with `seed`."""
    system = sampling.load(folder).to(train.pick_device(settings.device))
    return Candidates(system, runs.prompts(settings, folder), settings.seed + seed, chosen, settings, ear)


def targets_of(kind: str, folder: Path, settings: params.Params, ear: clap.Clap) -> dict[str, np.ndarray]:
    """What candidates are compared with, label -> [shape=(M, D)].

    "text" is the prompt's embedding, "tuned" that after the model's tuning layer, "audio" the embeddings of the
    training clips that are nearest to the rest of their class (multi-target selection).
    """
    classes = runs.prompts(settings, folder)
    if kind == "audio":
        index, arrays = features.load(paths.FEATURES / settings.sampling.corpus, "train")
        return {label: selection.multi_targets(arrays["audio"][index.label == label], min(settings.selection.targets, n))
                for label, n in index.label.value_counts().items()}  # fmt: skip
    embedded = ear.embed_text(list(classes.prompt)).cpu()
    if kind == "tuned":
        tuning = conditioning.load(folder)
        if tuning is None:
            raise ValueError(
                f"{folder} has no tuning layer: a filter with target 'tuned' needs a variant with tuning: true"
            )
        embedded = F.normalize(tuning(embedded), dim=-1)
    return {label: row[None].numpy() for label, row in zip(classes.label, embedded)}


def calibrate(settings: params.Params) -> tuple[dict, pd.DataFrame]:
    """Thresholds of each kind of target from a pool of candidates that is never evaluated, scored on *validation* clips.

    Writes results/thresholds.json [kind -> class -> threshold].

    Returns
    -------
    thresholds, and the curves behind them [target, label, share, threshold, fad, n, draws].
    """
    ear, thresholds, curves = runs.load_clap(settings), {}, []
    reference = runs.reference_by_class(ear, settings, "val")
    for kind, variant in settings.selection.calibrate.items():
        seed = settings.seeds_of(variant)[0]
        folder = paths.MODELS / "foley" / variant / str(seed)
        pool = candidates_of(folder, seed, settings.sampling, settings, ear)
        drawn = pool({label: (POOL_FROM, settings.selection.pool) for label in reference})
        E, labels = np.concatenate(list(drawn.values())), np.repeat(list(drawn), settings.selection.pool)
        found, curve = calibration.calibrate(E, labels, targets_of(kind, folder, settings, ear), reference,
                                           shares=settings.selection.shares, seed=settings.seed)  # fmt: skip
        thresholds[kind] = {label: round(float(t), 6) for label, t in found.items()}
        curves.append(curve.assign(target=kind))
    (paths.RESULTS / THRESHOLDS).write_text(json.dumps(thresholds, indent=1) + "\n")
    return thresholds, pd.concat(curves, ignore_index=True)


def calibrated(kind: str) -> dict[str, float] | None:
    """The thresholds of results/thresholds.json for a kind of target; None where it was not calibrated."""
    file = paths.RESULTS / THRESHOLDS
    return json.loads(file.read_text()).get(kind) if file.is_file() else None


def select_run(name: str, settings: params.Params) -> pd.DataFrame:
    """Make data/samples/`name`/SEED: the clips of run `of` that pass, and as many more candidates as it takes.

    The first candidates are the clips of the unselected run, so both rows of a table differ by the selection alone.
    Manifests have the columns score, threshold and tries; candidates.parquet beside them has every candidate.

    Returns
    -------
    DataFrame, one row a class and seed: wanted, accepted, candidates, acceptance, threshold_first, threshold_last, short.
    """
    if name not in settings.filters:
        raise ValueError(f"filters in params.yaml has no '{name}'; it has: {', '.join(settings.filters)}")
    chosen, ear, reports = settings.filters[name], runs.load_clap(settings), []
    shutil.rmtree(paths.SAMPLES / name, ignore_errors=True)
    for seed, folder in runs.models_of(name, settings).items():
        source = candidates_of(folder, seed, settings.sampling_of(chosen.of), settings, ear)
        manifest, waves = runs.load(chosen.of, seed)
        number = manifest.groupby("label", sort=False).cumcount()
        source.waves |= dict(zip(zip(manifest.label, number), waves))
        labels = list(source.classes.label)
        thresholds = calibration.thresholds_of(settings.selection, calibrated(chosen.target), labels)
        targets = targets_of(chosen.target, folder, settings, ear)
        made = selection.select(source, settings.sampling_of(chosen.of).clips_per_class, thresholds, targets,
                                settings=settings.selection, seed=settings.seed + seed)  # fmt: skip
        _write(paths.SAMPLES / name / str(seed), made, source)
        reports.append(made.report.assign(seed=seed))
    report = pd.concat(reports, ignore_index=True)
    report.to_csv(paths.SAMPLES / name / "report.csv", index=False)
    return report


def _write(out: Path, made: selection.Selected, source: Candidates) -> None:
    kept = made.accepted
    keys = list(zip(kept.label, kept.number))
    if not keys:
        raise ValueError(f"{out.parent.name}: no candidate passed. {selection.sentence(made.report)}")
    rows = source.rows(keys).assign(score=kept.score, threshold=kept.threshold, tries=kept.tries)
    runs.write(out, rows, np.stack([source.waves[key] for key in keys]), source.settings.audio.rate)
    made.candidates.to_parquet(out / "candidates.parquet", index=False)


def report_of(name: str) -> pd.DataFrame:
    """What `select_run` returned, read from data/samples/`name`."""
    file = paths.SAMPLES / name / "report.csv"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run the selection stage of '{name}' first")
    return pd.read_csv(file)


def similarity(run: str, settings: params.Params) -> pd.DataFrame:
    """Mean CLAP similarity of a run's clips to the text and, of a tuned model, to the tuned embedding [target, seed, value]."""
    from foleylib import evaluation

    ear, rows = runs.load_clap(settings), []
    for seed, folder in runs.models_of(run, settings).items():
        heard = evaluation.load_heard(paths.HEARD / run / f"{seed}.npz")
        for kind in ("text", "tuned") if conditioning.load(folder) is not None else ("text",):
            targets = targets_of(kind, folder, settings, ear)
            value = np.mean([np.sum(E * targets[label][0]) for label, E in zip(heard.labels, heard.clap)])
            rows.append({"run": run, "target": kind, "seed": seed, "value": float(value)})
    return pd.DataFrame(rows)
