"""The rows of every table: from a run of params.yaml to its clips, and from clips to scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from foleylib import audio, clap, corpora, evaluation, mel, params, paths, pipeline, sampling, train
from foleylib.embedders import weights_sha256
from foleylib.judge import load_judge


def sample(run: str, settings: params.Params) -> Path:
    """Make data/samples/`run`: audio/*.wav and manifest.parquet [id, path, label, target, prompt, seed]; returns the folder.

    A run of source "model" is sampled; "reconstruction" passes test clips through VAE and vocoder; "real" takes
    validation clips, which no model was trained on, as a system of their own against the test clips.
    """
    if run not in settings.runs:
        raise ValueError(f"runs in params.yaml has no '{run}'; it has: {', '.join(settings.runs)}")
    source = settings.runs[run].source
    if source == "model":
        manifest, waves = _sampled(run, settings)
    else:
        manifest, waves = _real(settings, "test" if source == "reconstruction" else "val")
    if source == "reconstruction":
        system = sampling.load(paths.ROOT / settings.runs[run].made_from).to(train.pick_device(settings.device))
        front = mel.front_end(settings.audio).to(train.pick_device(settings.device))
        waves = sampling.reconstruct(system, waves, front, batch_size=settings.sampling.batch_size)
    return _write(paths.SAMPLES / run, manifest, waves.numpy(), settings.audio.rate)


def prompts(settings: params.Params):
    """One row a class of the sampled corpus, with its prompt."""
    manifest = corpora.load(paths.CLIPS / settings.sampling.corpus)
    return manifest.drop_duplicates("target").sort_values("target")[["label", "target", "prompt"]]


def _sampled(run: str, settings: params.Params):
    """Clips of a model: classes in order, numbered within the class, each with its own seed."""

    chosen, classes = settings.sampling_of(run), prompts(settings)
    manifest = classes.loc[classes.index.repeat(chosen.clips_per_class)].reset_index(drop=True)
    number = manifest.groupby("label").cumcount()
    manifest["id"] = [f"{label}-{i:04d}" for label, i in zip(manifest.label, number)]
    manifest["seed"] = sampling.clip_seeds(settings.seed, list(manifest.label))
    system = sampling.load(paths.ROOT / settings.runs[run].made_from).to(train.pick_device(settings.device))
    return manifest, draw(system, manifest, chosen, settings)


def draw(system: sampling.System, manifest, chosen, settings: params.Params) -> torch.Tensor:
    """Waves [shape=(N, T)] of a system for the rows of a manifest (their prompt and seed), sampled as `chosen` says."""
    text = clap.load(paths.FOUNDATION / "clap")
    texts = list(dict.fromkeys(manifest.prompt))
    embedded = dict(zip(texts, text.embed_text(texts)))
    latents = sampling.sample(
        system, torch.stack([embedded[p] for p in manifest.prompt]), pipeline.unconditional(text),
        latent_shape(settings), seeds=list(manifest.seed), solver=chosen.solver, steps=chosen.steps, eta=chosen.eta,
        guidance=chosen.guidance, batch_size=chosen.batch_size,
    )  # fmt: skip
    return sampling.decode(system, latents, hop=mel.front_end(settings.audio).config.hop, batch_size=chosen.batch_size)


def first_draws(system: sampling.System, settings: params.Params):
    """One clip of each class, the first that a run would sample: (waves [shape=(C, T)], DataFrame of the classes)."""
    classes = prompts(settings)
    classes = classes.assign(seed=sampling.clip_seeds(settings.seed, list(classes.label)))
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


def _write(out: Path, manifest, waves: np.ndarray, rate: int) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    (out / "audio").mkdir(parents=True)
    manifest = manifest.assign(path=[f"audio/{i}.wav" for i in manifest.id])
    for path, wave in zip(manifest.path, waves):
        audio.write(out / path, wave, rate)
    manifest[["id", "path", "label", "target", "prompt", "seed"]].to_parquet(out / "manifest.parquet", index=False)
    return out


def load(run: str):
    """The clips of a run as (manifest, waves [shape=(N, T), float32])."""
    import pandas as pd

    folder = paths.SAMPLES / run
    if not (folder / "manifest.parquet").is_file():
        raise ValueError(f"{folder} holds no samples; run the sample stage of '{run}' first")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    return manifest, np.stack([audio.read(folder / path)[0] for path in manifest.path])


def reference(settings: params.Params):
    """The test clips every run is compared with, as (manifest, waves)."""
    folder = paths.CLIPS / settings.sampling.corpus
    manifest = corpora.load(folder)
    manifest = manifest[manifest.split == settings.evaluate.split].reset_index(drop=True)
    return manifest, corpora.read_waves(folder, manifest)


def evaluate(run: str, settings: params.Params) -> Path:
    """Score data/samples/`run` against the test clips; writes results/evaluate/`run`.json and returns its path."""
    device, rate = train.pick_device(settings.device), settings.audio.rate
    judge = load_judge(paths.MODELS / "judge", device=device)
    ear = clap.load(paths.FOUNDATION / "clap", device)
    (made, made_waves), (real, real_waves) = load(run), reference(settings)
    heard = {
        name: evaluation.hear(waves, list(manifest.label), list(manifest.prompt), judge=judge, clap=ear, rate=rate)
        for name, manifest, waves in [("real", real, real_waves), ("made", made, made_waves)]
    }
    scores = evaluation.score(heard["real"], heard["made"], judge_labels=judge.model.labels, settings=settings.evaluate)
    chosen = settings.runs[run]
    models = _weights(chosen)
    card = evaluation.card(
        run, made, settings.sampling_of(run).model_dump() if chosen.source == "model" else {"source": chosen.source},
        models=models, reference=corpora.digest(real), judge=judge.sha256,
        clap=weights_sha256(paths.FOUNDATION / "clap" / "model.safetensors"), seed=settings.seed, rate=rate,
        device=str(device), settings=settings.evaluate,
    )  # fmt: skip
    path = paths.RESULTS / "evaluate" / f"{run}.json"
    evaluation.save(path, card, scores)
    return path


def _weights(run: params.Run) -> dict[str, str]:
    if run.source == "real":
        return {}
    folder = paths.ROOT / run.made_from
    parts = ("vae", "vocoder") if run.source == "reconstruction" else ("unet", "vae", "vocoder")
    names = {"vocoder": "model.safetensors"}
    return {p: weights_sha256(folder / p / names.get(p, "diffusion_pytorch_model.safetensors")) for p in parts}


def scores(run: str) -> dict:
    """results/evaluate/`run`.json: {headline, card, scores}."""
    path = paths.RESULTS / "evaluate" / f"{run}.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run the evaluate stage of '{run}' first")
    return json.loads(path.read_text())
