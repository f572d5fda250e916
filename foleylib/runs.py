"""The rows of every table: from a run of params.yaml to its clips, and from clips to scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from foleylib import audio, clap, corpora, evaluation, mel, params, paths, pipeline, sampling, train
from foleylib.embedders import weights_sha256
from foleylib.judge import load_judge
from foleylib.progress import progress


def sample(run: str, settings: params.Params) -> Path:
    """Make data/samples/`run`/SEED for every model behind the run: audio/*.wav and manifest.parquet; returns the folder.

    A run of source "model" is sampled from each seed of its variant, with noise of that seed; "reconstruction" passes
    test clips through VAE and vocoder; "real" takes validation clips, which no model was trained on, as a system of
    their own against the test clips. Manifest: [id, path, label, target, prompt, seed].
    """
    source = _known(run, settings).source
    out = paths.SAMPLES / run
    shutil.rmtree(out, ignore_errors=True)
    for seed, folder in models_of(run, settings).items():
        if source == "model":
            manifest, waves = _sampled(folder, seed, settings.sampling_of(run), settings)
        else:
            manifest, waves = _real(settings, "test" if source == "reconstruction" else "val")
        if source == "reconstruction":
            place = train.pick_device(settings.device)
            front = mel.front_end(settings.audio).to(place)
            waves = sampling.reconstruct(
                sampling.load(folder).to(place), waves, front, batch_size=settings.sampling.batch_size
            )
        write(out / str(seed), manifest, waves.numpy(), settings.audio.rate)
    return out


def _known(run: str, settings: params.Params) -> params.Run:
    """The entry of `runs`; for a selected run, that of the run it selects from."""
    if run in settings.filters:
        return settings.runs[settings.filters[run].of]
    if run not in settings.runs:
        known = ", ".join([*settings.runs, *settings.filters])
        raise ValueError(f"runs in params.yaml has no '{run}'; it has: {known}")
    return settings.runs[run]


def models_of(run: str, settings: params.Params) -> dict[int, Path]:
    """The pipeline folders behind a run by training seed; a run without training has the seed of the settings."""
    chosen = _known(run, settings)
    made_from, variant = chosen.made_from, chosen.made_from.removeprefix("models/foley/")
    if variant in settings.foley.variants:
        return {seed: paths.ROOT / made_from / str(seed) for seed in chosen.seeds or settings.seeds_of(variant)}
    return {settings.seed: paths.ROOT / made_from}


def prompts(settings: params.Params, folder: Path | None = None):
    """One row a class of the sampled corpus [label, target, prompt]; the prompts of the model in `folder`, if it has its own."""
    manifest = corpora.load(paths.CLIPS / settings.sampling.corpus)
    classes = manifest.drop_duplicates("target").sort_values("target")[["label", "target", "prompt"]]
    own = folder / "prompts.json" if folder is not None else None
    if own is None or not own.is_file():
        return classes
    return classes.assign(prompt=classes.label.map(json.loads(own.read_text())))


def numbered(classes, first: dict[str, int], count: dict[str, int], seed: int):
    """Rows [label, target, prompt, id, seed] of clips number first..first+count-1 of each class."""
    rows = classes.loc[classes.index.repeat(classes.label.map(count))].reset_index(drop=True)
    number = rows.groupby("label", sort=False).cumcount() + rows.label.map(first)
    return rows.assign(id=[f"{label}-{i:04d}" for label, i in zip(rows.label, number)],
                       seed=sampling.clip_seeds(seed, list(zip(rows.label, number))))  # fmt: skip


def _sampled(folder: Path, seed: int, chosen: params.Sampling, settings: params.Params):
    """Clips of a model: classes in order, numbered within the class, each with its own seed."""
    classes = prompts(settings, folder)
    manifest = numbered(classes, dict.fromkeys(classes.label, 0), dict.fromkeys(classes.label, chosen.clips_per_class),
                        settings.seed + seed)  # fmt: skip
    return manifest, draw(sampling.load(folder).to(train.pick_device(settings.device)), manifest, chosen, settings)


def draw(system: sampling.System, manifest, chosen, settings: params.Params, text: clap.Clap | None = None):
    """Waves [shape=(N, T)] of a system for the rows of a manifest (their prompt and seed), sampled as `chosen` says.

    `text` is the foundation's CLAP, if it is loaded already.
    """
    text = text or load_clap(settings)
    texts = list(dict.fromkeys(manifest.prompt))
    embedded = dict(zip(texts, text.embed_text(texts)))
    latents = sampling.sample(
        system, torch.stack([embedded[p] for p in manifest.prompt]), pipeline.unconditional(text),
        latent_shape(settings), seeds=list(manifest.seed), solver=chosen.solver, steps=chosen.steps, eta=chosen.eta,
        guidance=chosen.guidance, batch_size=chosen.batch_size,
    )  # fmt: skip
    return sampling.decode(system, latents, hop=mel.front_end(settings.audio).config.hop, batch_size=chosen.batch_size)


def first_draws(system: sampling.System, settings: params.Params, folder: Path | None = None, seed: int = 0):
    """One clip of each class, the first that a run would sample: (waves [shape=(C, T)], DataFrame of the classes)."""
    classes = prompts(settings, folder)
    classes = numbered(classes, dict.fromkeys(classes.label, 0), dict.fromkeys(classes.label, 1), settings.seed + seed)
    system = system.to(train.pick_device(settings.device))
    return draw(system, classes, settings.sampling, settings), classes


def latent_shape(settings: params.Params) -> tuple[int, int, int]:
    """(channels, frames, bands) of a clip's latent."""
    config, ratio = mel.front_end(settings.audio).config, 2 ** (len(settings.foundation.vae.channels) - 1)
    frames = settings.audio.samples // config.hop
    return settings.foundation.vae.latent_channels, frames // ratio, config.n_mels // ratio


def _real(settings: params.Params, split: str):
    """The first `clips_per_class` clips of each class in a split."""
    folder = paths.CLIPS / settings.sampling.corpus
    manifest = corpora.load(folder)
    manifest = manifest[manifest.split == split].groupby("target").head(settings.sampling.clips_per_class)
    manifest = manifest.sort_values("target", kind="stable").reset_index(drop=True)
    waves = corpora.Waves(folder, manifest)[np.arange(len(manifest))]
    return manifest[["label", "target", "prompt", "id"]].assign(seed=0), waves


def write(out: Path, manifest, waves: np.ndarray, rate: int) -> Path:
    """Write clips and their manifest; columns beyond the usual ones are kept."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "audio").mkdir(parents=True)
    manifest = manifest.assign(path=[f"audio/{i}.wav" for i in manifest.id])
    for path, wave in zip(manifest.path, waves):
        audio.write(out / path, wave, rate)
    usual = ["id", "path", "label", "target", "prompt", "seed"]
    manifest = manifest[usual + [c for c in manifest if c not in usual]]
    manifest.to_parquet(out / "manifest.parquet", index=False)
    return out


def seeds(run: str) -> list[int]:
    """The training seeds of which data/samples/`run` holds clips."""
    found = sorted(int(p.parent.name) for p in (paths.SAMPLES / run).glob("*/manifest.parquet"))
    if not found:
        raise ValueError(f"{paths.SAMPLES / run} holds no samples; run the sample stage of '{run}' first")
    return found


def load(run: str, seed: int | None = None):
    """The clips of a run and training seed (the first by default) as (manifest, waves [shape=(N, T), float32])."""
    import pandas as pd

    folder = paths.SAMPLES / run / str(seeds(run)[0] if seed is None else seed)
    if not (folder / "manifest.parquet").is_file():
        raise ValueError(f"{folder} holds no samples; run the sample stage of '{run}' with that seed first")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    return manifest, np.stack([audio.read(folder / path)[0] for path in manifest.path])


def reference(settings: params.Params, split: str | None = None):
    """The clips every run is compared with (of `evaluate.split`, or another), as (manifest, waves)."""
    folder = paths.CLIPS / settings.sampling.corpus
    manifest = corpora.load(folder)
    manifest = manifest[manifest.split == (split or settings.evaluate.split)].reset_index(drop=True)
    return manifest, corpora.read_waves(folder, manifest)


def load_clap(settings: params.Params) -> clap.Clap:
    """The foundation's CLAP, on the device: it conditions the LDM, scores candidates and is what FAD hears with."""
    return clap.load(paths.FOUNDATION / "clap", train.pick_device(settings.device))


def reference_by_class(ear: clap.Clap, settings: params.Params, split: str | None = None) -> dict[str, np.ndarray]:
    """CLAP embeddings of `reference` by class, label -> [shape=(N, D)]."""
    manifest, waves = reference(settings, split)
    E = ear.embed_audio(waves, settings.audio.rate).cpu().numpy()
    return {label: E[rows] for label, rows in manifest.groupby("label", sort=False).indices.items()}


class Ears:
    """Judge and CLAP, loaded once: clips to what the metrics hear."""

    def __init__(self, settings: params.Params):
        self.settings, self.device = settings, train.pick_device(settings.device)
        self.judge = load_judge(paths.MODELS / "judge", device=self.device)
        self.clap = load_clap(settings)
        self.texts = prompts(settings).set_index("label").prompt  # the corpus' own, whatever a model was prompted with

    def hear(self, manifest, waves: np.ndarray) -> evaluation.Heard:
        return evaluation.hear(waves, list(manifest.label), list(manifest.label.map(self.texts)), judge=self.judge,
                               clap=self.clap, rate=self.settings.audio.rate)  # fmt: skip


def evaluate(names: list[str], settings: params.Params) -> None:
    """Score every seed of each run's clips against the test clips: results/evaluate/RUN.json.

    What the embedders heard is kept in data/heard/RUN/SEED.npz, for paired comparisons of runs.
    """
    from joblib import Parallel, delayed

    ears, (real, waves) = Ears(settings), reference(settings)
    heard, made, clips = ears.hear(real, waves), {}, {run: {} for run in names}
    for run, seed in progress([(name, seed) for name in names for seed in seeds(name)], desc="hear"):
        clips[run][seed], waves = load(run, seed)
        made[run, seed] = ears.hear(clips[run][seed], waves)
    score = delayed(evaluation.score)
    found = Parallel(n_jobs=-1, return_as="generator")(
        score(heard, m, judge_labels=ears.judge.model.labels, settings=settings.evaluate) for m in made.values()
    )
    scores = dict(zip(made, progress(found, total=len(made), desc="score")))
    models = {"reference": corpora.digest(real), "judge": ears.judge.sha256,
              "clap": weights_sha256(paths.FOUNDATION / "clap" / "model.safetensors")}  # fmt: skip
    for run in names:
        rows = [{**row, "seed": seed} for seed in clips[run] for row in scores[run, seed]]
        weights = {seed: _weights(_known(run, settings).source, models_of(run, settings)[seed]) for seed in clips[run]}
        card = evaluation.card(run, clips[run], _how(run, settings), models=weights, rate=settings.audio.rate,
                               device=str(ears.device), settings=settings.evaluate, **models)  # fmt: skip
        shutil.rmtree(paths.HEARD / run, ignore_errors=True)
        for seed in clips[run]:
            made[run, seed].save(paths.HEARD / run / f"{seed}.npz")
        evaluation.save(paths.RESULTS / "evaluate" / f"{run}.json", card, rows)


def _how(run: str, settings: params.Params) -> dict:
    """How a run's clips came about, for its card."""
    source = _known(run, settings).source
    how = settings.sampling_of(run).model_dump() if source == "model" else {"source": source}
    if run in settings.filters:
        how |= {"selection": settings.filters[run].model_dump() | settings.selection.model_dump()}
    return how


def differences(baseline: str, others: list[str], settings: params.Params):
    """Average FAD of runs minus that of a baseline, seed by seed, the same clips (class, number) drawn from both.

    Returns
    -------
    DataFrame [run, seed, value, low, high]; intervals are bootstraps over clips.
    """
    import pandas as pd

    real, rows = reference_by_class(load_clap(settings), settings), []
    for run in progress(others, desc=f"differences to {baseline}"):
        for seed in [s for s in seeds(run) if s in seeds(baseline)]:
            a, b = (evaluation.load_heard(paths.HEARD / name / f"{seed}.npz") for name in (run, baseline))
            found = evaluation.paired_difference(real, a, b, settings.evaluate)
            rows.append({"run": run, "seed": seed, "value": found.estimate, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


class Validation:
    """Scores U-Nets on *validation* clips without intervals, for choices: what does not change is loaded and heard once."""

    def __init__(self, settings: params.Params):
        self.settings, self.ears, self.classes = settings, Ears(settings), prompts(settings)
        self.real = self.ears.hear(*reference(settings, "val"))
        self.system = sampling.load(paths.FOUNDATION / "ldm").to(self.ears.device)

    def scores(self, unet, texts: dict[str, str], *, seed: int, clips_per_class: int) -> dict[str, float]:
        """Average FAD, judge accuracy and CLAP score of a U-Net's first clips, prompted with `texts` (label -> text)."""
        return self.score(*self.draw(unet, texts, seed=seed, clips_per_class=clips_per_class))

    def draw(self, unet, texts, *, seed: int, clips_per_class: int, chosen: params.Sampling | None = None):
        """Those clips, sampled as `sampling` or `chosen` says: (manifest, waves [shape=(N, T)])."""
        self.system.unet = unet.eval().to(self.ears.device)
        classes = self.classes.assign(prompt=self.classes.label.map(texts))
        first, count = (dict.fromkeys(classes.label, n) for n in (0, clips_per_class))
        manifest = numbered(classes, first, count, self.settings.seed + seed)
        chosen = chosen or self.settings.sampling
        return manifest, draw(self.system, manifest, chosen, self.settings, self.ears.clap).numpy()

    def score(self, manifest, waves) -> dict[str, float]:
        """The scores of clips."""
        return evaluation.quick(self.real, self.ears.hear(manifest, waves), self.ears.judge.model.labels)


def _weights(source: str, folder: Path) -> dict[str, str]:
    if source == "real":
        return {}
    parts = ("vae", "vocoder") if source == "reconstruction" else ("unet", "vae", "vocoder")
    names = {"vocoder": "model.safetensors"}
    return {p: weights_sha256(folder / p / names.get(p, "diffusion_pytorch_model.safetensors")) for p in parts}


def scores(run: str) -> dict:
    """results/evaluate/`run`.json: {headline, card, scores}."""
    path = paths.RESULTS / "evaluate" / f"{run}.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run the evaluate stage first")
    return json.loads(path.read_text())
