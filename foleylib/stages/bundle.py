"""Where a part's weights come from when they are not trained here: the bundle, or published files.

``python -m foleylib.stages.bundle`` packs what was trained here into data/bundled, with the provenance of each part.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.params.corpora import Corpus
from foleylib.params.settings import Params
from foleylib.runtime import own_folder, pick_device, wait_for_all, weights_sha256, write_json
from foleylib.stages import cards
from foleylib.stages.cards import provenance_of

# Settings of a section, or of a section within it, that do not change the size of the weights: a bundled part may differ
# in them.
NOT_SIZES = {
    "train",
    "weights",
    "decoded_from",
    "adversarial_from",
    "segment",
    "periods",
    "scales",
    "discriminator_width",
    "condition_dropout",
    "retrieval_dropout",
    "k",
    "prompt_share",
    "microphone_share",
    "classmates",
    "uniformity",
    "confused",
    "others",
    "frozen_encoder",
    "snr_gamma",
    "source",
    "corpus",
    "dropout",
    "mixup_alpha",
    "noise_share",
    "parameters",
}


def write_provenance(
    folder: Path,
    section,
    corpus: str,
    cfg: Params,
    seconds: float,
    history: pd.DataFrame,
    start: dict | None = None,
) -> None:
    """Write beside weights how they came to be: settings, corpus with the licences of its clips, seed, device, seconds, last
    held-out scores, and the provenance of the weights that training started from, where there were any; and the training
    history."""
    history.to_csv(folder / "history.csv", index=False)
    last = history.dropna().iloc[-1] if len(history.dropna()) else history.iloc[-1]
    provenance = {
        "settings": section.model_dump(mode="json"),
        "corpus": cfg.corpora[corpus].model_dump(mode="json"),
        "licences": manifests.licences(paths.CLIPS / corpus),
        "seed": cfg.seed,
        "device": str(pick_device(cfg.device)),
        "seconds": round(seconds),
        "held_out": {k: round(float(v), 5) for k, v in last.items() if not isinstance(v, str)},
    }
    write_json(folder / "provenance.json", provenance | ({"start": start} if start else {}))


def history_of(folder: Path) -> pd.DataFrame:
    """The training history kept beside weights; empty for a published checkpoint."""
    file = folder / "history.csv"
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def copy_bundled(part: str, section, name: str, corpus: Corpus, out: Path) -> None:
    """Copy data/bundled/`part` to `out`, float16 weights brought to float32.

    It must have the sizes of `section` (named `name` in the settings) and, but for CLAP, which resamples, the rate of
    the corpus it is used on.
    """
    bundle = paths.BUNDLED / part
    switch = "foundation.source" if name.startswith("foundation.") else f"{name}.source"
    if not bundle.is_dir():
        raise ValueError(f"{bundle} is missing: check out data/bundled, or set {switch} to 'scratch'")
    provenance = provenance_of(bundle)
    trained, rate = _sizes(provenance["settings"]), provenance["corpus"]["rate"]
    sizes = _sizes(section.model_dump(mode="json"))
    wrong = [
        f"{name}.{k} differs from the bundle's ({trained.get(k)})" for k, v in sizes.items() if trained.get(k) != v
    ]
    if part != "clap" and rate != corpus.rate:
        wrong.append(f"the corpus has a rate of {corpus.rate} Hz, the bundled {part} is for {rate} Hz")
    if wrong:
        raise ValueError(f"{wrong[0]}: put it back, or set {switch} to 'scratch' to train such a one")
    shutil.copytree(bundle, out)
    _cast(out, torch.float32)


def make(name: str, section, corpus: Corpus, out: Path, train: Callable[[Path], None]) -> pd.DataFrame:
    """Make `out`, a part that is no part of the foundation, from the bundle or by `train(out)`; returns its training history.

    `section`, named `name` in the settings, says which in its `source`; the bundle has the part under the name of `out`.
    """
    out = own_folder(out)
    shutil.rmtree(out, ignore_errors=True)
    if section.source == "bundled":
        copy_bundled(out.name, section, name, corpus, out)
    else:
        train(out)
    cards.write(out, provenance_of(out))
    wait_for_all()
    return history_of(out)


def _sizes(settings: dict) -> dict:
    """The settings of a section, and of those within it, that change the size of the weights."""
    kept = {name: value for name, value in settings.items() if name not in NOT_SIZES}
    return {name: _sizes(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _cast(folder: Path, dtype: torch.dtype) -> None:
    """Bring the floating-point weights under `folder` to `dtype`, and the configs with them."""
    for file in folder.rglob("*.safetensors"):
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
    for file in folder.rglob("config.json"):
        config = json.loads(file.read_text())
        if "dtype" in config:
            file.write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n")


def take(part: str, cfg: Params, out: Path) -> None:
    """Take a part from models/published, where the stage published has put it, with what is told of it."""
    source, told = paths.PUBLISHED / part, paths.PUBLISHED / "published.json"
    entry = json.loads(told.read_text()) if told.is_file() else {}
    if entry.get("source") != cfg.foundation.source or not source.is_dir():
        raise ValueError(f"{source} is missing, or of another foundation.source; run the published stage first")
    shutil.copytree(source, out)
    write_json(out / "published.json", {"source": entry["source"], **entry["parts"][part]})


def pack() -> None:
    """Copy what was trained here (foundation, vocoders, Latent CLAP encoder, judge, detector, the U-Nets of re-audioldm and
    src-gaudio) to data/bundled, as float16, of a pipeline the U-Net alone; prints what.

    SHA-256 and commit are noted in provenance.json. Parts that came from the bundle are left alone.
    """
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()
    folders = [*sorted(paths.FOUNDATION.glob("*")), *sorted(paths.VOCODERS.glob("*"))]
    folders += [paths.LATENT_CLAP, paths.JUDGE, paths.DETECTOR, paths.RE_AUDIOLDM, paths.SRC_GAUDIO]
    for file in filter(Path.is_file, (folder / "provenance.json" for folder in folders)):
        source, out, provenance = file.parent, paths.BUNDLED / file.parent.name, json.loads(file.read_text())
        if "commit" in provenance:  # noted by an earlier packing
            print(f"{source.name}: came from the bundle, left alone")
            continue
        shutil.rmtree(out, ignore_errors=True)
        is_pipeline = (source / "model_index.json").is_file()
        shutil.copytree(source / "unet" if is_pipeline else source, out / "unet" if is_pipeline else out)
        _cast(out, torch.float16)
        _thinned(pd.read_csv(source / "history.csv")).to_csv(out / "history.csv", index=False, float_format="%.5g")
        weights = {f.relative_to(out).as_posix(): weights_sha256(f) for f in sorted(out.rglob("*.safetensors"))}
        write_json(out / "provenance.json", provenance | {"commit": commit, "sha256": weights})
        cards.write(out, provenance_of(out))
        print(f"{source.name}: packed, {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 2**20:.1f} MiB")


def _thinned(history: pd.DataFrame, rows: int = 200) -> pd.DataFrame:
    scored = history[[c for c in history if c.startswith("val_")]].notna().any(axis=1)
    return history[(history.index % max(1, len(history) // rows) == 0) | scored]


if __name__ == "__main__":
    pack()
