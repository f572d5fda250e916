"""The foundation models: trained here, unpacked from the bundle, or taken from a published pipeline; all saved alike.

``python -m foleylib.foundation`` packs models/foundation into data/bundled, with the provenance of each part.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from foleylib import adversarial, clap, corpora, ldm, mel, params, paths, pipeline, train, vae, vocoder
from foleylib.embedders import weights_sha256


def make(part: str, settings: params.Params):
    """Make models/foundation/`part` from the settings' source; returns the training history [DataFrame].

    Raises
    ------
    ValueError
        if the bundle does not fit the settings (its sizes differ), or a part of the source is missing.
    """
    out = paths.FOUNDATION / part
    shutil.rmtree(out, ignore_errors=True)
    source = settings.foundation.source
    if source == "scratch":
        trainer = _TRAINERS.get(part, train_ldm)
        (history, seconds), section = _timed(trainer, settings, out), settings.foundation.section(part)
        made = provenance(section, settings.foundation.corpus, settings, seconds, history)
        history.to_csv(out / "history.csv", index=False)
        (out / "provenance.json").write_text(json.dumps(made, indent=1) + "\n")
    elif source == "bundled":
        unpack(part, settings, out)
    else:
        take(part, settings, out)
    return history_of(part)


def history_of(part: str):
    """The training history kept beside a part's weights; empty for a published checkpoint."""
    import pandas as pd

    file = paths.FOUNDATION / part / "history.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def provenance_of(part: str) -> dict:
    """How a part's weights came to be."""
    file = paths.FOUNDATION / part / "provenance.json"
    return json.loads(file.read_text()) if file.is_file() else {"source": "published checkpoint"}


def _timed(function, *args):
    import time

    start = time.perf_counter()
    return function(*args), time.perf_counter() - start


def provenance(section, corpus: str, settings: params.Params, seconds: float, history) -> dict:
    """What a part's provenance.json says: its section, the corpus it was trained on, seed, device, time, last held-out scores."""
    section, corpus = section.model_dump(mode="json"), settings.corpora[corpus].model_dump(mode="json")
    last = history.dropna().iloc[-1] if len(history.dropna()) else history.iloc[-1]
    return {"settings": section, "corpus": corpus, "seed": settings.seed, "device": str(train.pick_device(settings.device)),
            "seconds": round(seconds), "held_out": {k: round(float(v), 5) for k, v in last.items()}}  # fmt: skip


def _training(settings: params.Params, part: str, *inputs: str) -> dict:
    """What every trainer hands to `train.fit`; the folder of a resumable state changes with all that changes the run."""
    section, corpus = settings.foundation.section(part), settings.corpora[settings.foundation.corpus]
    print_ = params.fingerprint(section, corpus, settings.audio, settings.seed, settings.precision, *inputs)
    return {"seed": settings.seed, "scratch": paths.SCRATCH / f"foundation-{part}" / print_, "device": settings.device,
            "precision": settings.precision}  # fmt: skip


def _clips(settings: params.Params, split: str):
    folder = paths.CLIPS / settings.foundation.corpus
    manifest = corpora.load(folder)
    manifest = manifest[manifest.split == split].reset_index(drop=True)
    return manifest, corpora.Waves(folder, manifest)


def _held_out(settings: params.Params, limit: int = 256) -> tuple:
    """Up to `limit` validation clips, spread over the classes; (manifest, None) where the corpus has none."""
    manifest, waves = _clips(settings, "val")
    if not len(waves):
        return manifest, None
    rows = np.linspace(0, len(waves) - 1, min(limit, len(waves))).astype(int)
    return manifest.iloc[rows], waves[rows]


def train_clap(settings: params.Params, out: Path):
    """Contrastive pre-training on the corpus' captions; zero-shot accuracy on its validation clips is logged."""
    manifest, waves = _clips(settings, "train")
    held, held_waves = _held_out(settings)
    prompts = list(manifest.drop_duplicates("target").sort_values("target").prompt)
    targets = torch.tensor(held.target.to_list())

    def validate(model):
        audio = model.embed_audio(held_waves, settings.audio.rate)
        similarity = (audio * model.embed_text(list(held.caption))).sum(1).mean()
        accuracy = clap.retrieval_accuracy(audio, model.embed_text(prompts), targets.to(audio.device))
        return {"zero_shot": accuracy, "cosine": similarity}

    options = _training(settings, "clap")
    model, history = clap.fit(settings.foundation.clap, waves, list(manifest.caption), manifest.target.to_numpy(),
                              validate=None if held_waves is None else validate, **options)  # fmt: skip
    model.save(out)
    train.forget(options["scratch"])
    return history


def train_vae(settings: params.Params, out: Path):
    """Train the VAE; its latent scale is measured once, on training clips, and stored in its config."""
    _, waves = _clips(settings, "train")
    _, held = _held_out(settings)
    front, options = mel.front_end(settings.audio), _training(settings, "vae")
    model, history = vae.fit(
        settings.foundation.vae, waves, front, held_out=None if held is None else front(held), **options
    )
    front = front.cpu()
    rows = np.linspace(0, len(waves) - 1, min(512, len(waves))).astype(int)
    moments = torch.cat([vae.moments(model, front(waves[part])) for part in np.array_split(rows, -(-len(rows) // 32))])
    scale = vae.measure_scale(moments, train.step_generator("cpu", settings.seed))
    model.register_to_config(scaling_factor=scale)
    model.save_pretrained(out)
    train.forget(options["scratch"])
    return history


def train_vocoder(settings: params.Params, out: Path):
    """Train the HiFi-GAN on ground-truth mels."""
    _, waves = _clips(settings, "train")
    _, held = _held_out(settings, 96)
    options = _training(settings, "vocoder")
    model, history = adversarial.fit(
        settings.foundation.vocoder, waves, mel.front_end(settings.audio), held_out=held, **options
    )
    vocoder.save(model, out)
    train.forget(options["scratch"])
    return history


def train_ldm(settings: params.Params, out: Path):
    """Pre-train the LDM named as `out` on CLAP *audio* embeddings and save the whole pipeline."""
    section, corpus = settings.foundation.section(out.name), settings.foundation.corpus
    parts = pipeline.load_parts("clap", "vae")
    data = ldm.splits(paths.FEATURES / corpus, "audio", parts["vae"].config.scaling_factor)
    unet = pipeline.new_unet(settings, settings.seed, out.name)
    options = _training(settings, out.name, (paths.FEATURES / corpus / "features.json").read_text())
    history = ldm.fit(unet, data["train"], pipeline.alphas_bar(settings), pipeline.unconditional(parts["clap"]), section.train,
                      condition_dropout=section.condition_dropout, snr_gamma=section.snr_gamma, held_out=data.get("val"),
                      **options)  # fmt: skip
    pipeline.save_pipeline(out, unet.cpu(), settings, **parts, **pipeline.load_parts("vocoder"))
    train.forget(options["scratch"])
    return history


_TRAINERS = {"clap": train_clap, "vae": train_vae, "vocoder": train_vocoder}  # the others are LDMs


def unpack(part: str, settings: params.Params, out: Path) -> None:
    """Copy a bundled part of the foundation to `out`."""
    name = f"foundation.sizes.{part}" if part in settings.foundation.sizes else f"foundation.{part}"
    copy_bundled(part, settings.foundation.section(part), name, out)
    if part in settings.foundation.ldms:
        unet = pipeline.load_unet(out)
        shutil.rmtree(out / "unet")
        pipeline.save_pipeline(out, unet, settings, **pipeline.load_parts())


def copy_bundled(part: str, wanted, name: str, out: Path) -> None:
    """Copy data/bundled/`part` to `out`, its float16 weights brought to float32, if it has the sizes of section `wanted`."""
    bundle = paths.BUNDLED / part
    switch = "latent_clap.source" if part == "latent_clap" else "foundation.source"
    if not bundle.is_dir():
        raise ValueError(f"{bundle} is missing: check out data/bundled, or set {switch} to 'scratch'")
    made = json.loads((bundle / "provenance.json").read_text())["settings"]
    sizes = {k: v for k, v in wanted.model_dump(mode="json").items() if k not in _NOT_SIZES}
    differing = [k for k, v in sizes.items() if made.get(k) != v]
    if differing:
        raise ValueError(
            f"{name}.{differing[0]} differs from the bundle's ({made.get(differing[0])}): put it back, "
            f"or set {switch} to 'scratch' to train that size"
        )
    shutil.copytree(bundle, out)
    _cast(out, torch.float32)


_NOT_SIZES = ("train", "weights", "adversarial_from", "segment", "periods", "scales", "discriminator_width",
              "condition_dropout", "snr_gamma", "source", "corpus", "dropout")  # fmt: skip


def _cast(folder: Path, dtype: torch.dtype) -> None:
    """Bring the floating-point weights under `folder` to `dtype`, and the configs with them."""
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
    for file in folder.rglob("config.json"):
        config = json.loads(file.read_text())
        if "dtype" in config:
            file.write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n")


def pack() -> None:
    """Copy what was trained here of models/foundation and models/latent_clap to data/bundled, as float16; prints what.

    SHA-256 and commit are noted in provenance.json. Parts that came from the bundle are left alone.
    """
    import subprocess

    import pandas as pd

    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    commit = git.stdout.strip()
    for made in sorted(
        [*paths.FOUNDATION.glob("*/provenance.json"), *paths.MODELS.glob("latent_clap/provenance.json")]
    ):
        source, out = made.parent, paths.BUNDLED / made.parent.name
        provenance = json.loads(made.read_text())
        if "commit" in provenance:  # noted by an earlier packing
            print(f"{source.name}: came from the bundle, left alone")
            continue
        shutil.rmtree(out, ignore_errors=True)
        is_pipeline = (source / "unet").is_dir()
        shutil.copytree(source / "unet" if is_pipeline else source, out / "unet" if is_pipeline else out)
        _cast(out, torch.float16)
        _thinned(pd.read_csv(source / "history.csv")).to_csv(out / "history.csv", index=False, float_format="%.5g")
        weights = {f.relative_to(out).as_posix(): weights_sha256(f) for f in sorted(out.rglob("*.safetensors"))}
        (out / "provenance.json").write_text(
            json.dumps(provenance | {"commit": commit, "sha256": weights}, indent=1) + "\n"
        )
        print(f"{source.name}: packed, {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 2**20:.1f} MiB")


def _thinned(history, rows: int = 200):
    scored = history[[c for c in history if c.startswith("val_")]].notna().any(axis=1)
    return history[(history.index % max(1, len(history) // rows) == 0) | scored]


def take(part: str, settings: params.Params, out: Path) -> None:
    """Take a part from the folder `foundation.checkpoint`, as `published_audioldm.convert_audioldm` writes it.

    That is an AudioLDMPipeline folder with the whole CLAP (audio encoder too) in its sub-folder `clap`.
    """
    sizes = settings.foundation.sizes
    name = f"foundation.sizes.{part}.checkpoint" if part in sizes else "foundation.checkpoint"
    source = paths.ROOT / (sizes[part].checkpoint if part in sizes else settings.foundation.checkpoint)
    needed = source / ("unet" if part in settings.foundation.ldms else part)
    if not needed.is_dir():
        raise ValueError(f"{name}: {needed} is missing; convert an AudioLDM .ckpt with convert_audioldm")
    for own in ("clap", "vae", "vocoder") if part in sizes else ():
        if _weights(source / own) != _weights(paths.FOUNDATION / own):
            raise ValueError(f"{name}: the {own} in {source} is missing or not the foundation's, which all sizes share")
    if part in settings.foundation.ldms:
        shutil.copytree(source, out, ignore=shutil.ignore_patterns("clap"))
    else:
        shutil.copytree(needed, out)


def _weights(folder: Path) -> list[str]:
    return [weights_sha256(file) for file in sorted(folder.glob("*.safetensors"))]


if __name__ == "__main__":
    pack()
