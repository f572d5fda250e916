"""The card (README.md) in each folder of weights: what they are, of what, under which licence, and how they are loaded.

It is made of the folder and of its provenance alone, without a clock, so that reruns write the same bytes.
"""

import json
from pathlib import Path

import pandas as pd
import yaml
from safetensors import safe_open

from foleylib import paths
from foleylib.datasets import manifest as manifests

# Licences of published weights, as their pages on the Hugging Face Hub and Zenodo state them.
CHECKPOINTS = {"audioldm": "CC BY-NC-SA 4.0"}  # by what the name of the file or folder holds
UNKNOWN = "unknown"

# Kind of a folder -> what it is, library, task on the Hub, and the lines that load it from `folder`.
KINDS = {
    "pipeline": (
        "a latent diffusion model that makes sounds from texts, with all its parts",
        "diffusers",
        "text-to-audio",
        """from diffusers import AudioLDMPipeline

pipeline = AudioLDMPipeline.from_pretrained("{folder}")
wave = pipeline("a dog bark", num_inference_steps=25).audios[0]""",
    ),
    "unet": (
        "the U-Net of a latent diffusion model, with what reads retrieved clips or a sampling rate where it has that",
        "diffusers",
        "text-to-audio",
        """from pathlib import Path

from foleylib.networks import rates

unet = rates.load(Path("{folder}"))""",
    ),
    "clap": (
        "a CLAP: texts and clips embedded in one space",
        "transformers",
        "feature-extraction",
        """import numpy as np
from transformers import AutoProcessor, ClapModel

processor = AutoProcessor.from_pretrained("{folder}")
model = ClapModel.from_pretrained("{folder}").float().eval()
extractor = processor.feature_extractor
rate, window = extractor.sampling_rate, round(extractor.nb_max_samples)  # of a fraction of a second, samples are no int
read = processor(audio=np.zeros(rate), sampling_rate=rate, audio_kwargs={{"max_length": window}}, return_tensors="pt")
audio = model.get_audio_features(**read)
text = model.get_text_features(**processor(text=["a dog bark"], padding=True, return_tensors="pt"))""",
    ),
    "vae": (
        "a variational autoencoder of log-mel spectrograms; its config has the scale of its latents",
        "diffusers",
        "feature-extraction",
        """from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("{folder}").float().eval()""",
    ),
    "vocoder": (
        "a HiFi-GAN that turns log-mel spectrograms into waves",
        "transformers",
        "audio-to-audio",
        """from transformers import SpeechT5HifiGan

vocoder = SpeechT5HifiGan.from_pretrained("{folder}").float().eval()""",
    ),
    "judge": ("a classifier of sounds, by which generated clips are scored", "pytorch", "audio-classification", None),
    "detector": ("a detector of sound events, frame by frame", "pytorch", "audio-classification", None),
    "latent_clap": ("an encoder of noisy latents into the space of CLAP", "pytorch", "feature-extraction", None),
}
OWN = """from foleylib.networks import {kind}

model = {kind}.load("{folder}")"""
WITH_MORE = """from pathlib import Path

from foleylib.networks import pipeline

parts = pipeline.load(Path("{folder}"))"""


def write(folder: Path, told: dict | None = None) -> Path:
    """Write the card of a folder of weights; `told` is what is told of their origin where no file beside them does."""
    told = provenance_of(folder) if told is None else told
    kind = kind_of(folder)
    what, library, task, lines = KINDS[kind]
    known = of_weights(told)
    front = {
        "library_name": library,
        "license": _hub_licence(known),
        "tags": ["audio", "foley", kind.replace("_", "-")],
        "pipeline_tag": task,
        "datasets": [_corpus(told)],
    }
    if kind == "pipeline" and any((folder / part).is_dir() for part in ("rate", "retrieval")):
        lines = WITH_MORE
    where = folder.relative_to(paths.ROOT).as_posix() if folder.is_relative_to(paths.ROOT) else folder.name
    parts = [part for part in _unets(folder) if part] if kind == "unet" else []
    shown = [(lines or OWN).format(kind=kind, folder=f"{where}/{part}" if part else where) for part in parts or [""]]
    text = "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
            f"# {folder.name if not folder.name.isdigit() else f'{folder.parent.name}, seed {folder.name}'}\n",
            f"This is {what}. Weights are stored as {', '.join(dtypes(folder))}; foleylib loads them as float32.\n",
            "## How to load it\n\nFrom the root of the repository:\n",
            *(f"```python\n{code}\n```\n" for code in shown),
            *_sections(folder, told, known),
        ]
    )
    file = folder / "README.md"
    file.write_text(text, encoding="utf-8")
    return file


def kind_of(folder: Path) -> str:
    """Which of `KINDS` a folder of weights holds, by its files and, of our own networks, by its name."""
    if (folder / "model_index.json").is_file():
        return "pipeline"
    if not (folder / "config.json").is_file():
        if _unets(folder):
            return "unet"
        raise ValueError(f"{folder}: no model there (config.json or model_index.json); make the folder again")
    config = json.loads((folder / "config.json").read_text())
    named = {"AutoencoderKL": "vae", "speecht5_hifigan": "vocoder", "clap": "clap"}
    kind = named.get(config.get("_class_name") or config.get("model_type"), folder.name)
    if kind not in KINDS:
        raise ValueError(f"{folder}: a model of no kind that has a card; name the folder {', '.join(KINDS)}")
    return kind


def _unets(folder: Path) -> list[str]:
    """Where in a folder there are U-Nets: "" for the folder itself."""
    found = (file.parent.parent for file in sorted(folder.glob("**/unet/config.json")))
    return ["" if part == folder else part.relative_to(folder).as_posix() for part in found]


def dtypes(folder: Path) -> list[str]:
    """Types of the floating-point weights in a folder's files."""
    names, found = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}, set()
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            found |= {names.get(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118
    return sorted(found - {None})


def _sections(folder: Path, told: dict, known: list[str]) -> list[str]:
    trained = f"Trained on {_corpus(told)}" if "from" not in told else f"Taken from {told['from']}"
    seed = f" with seed {told['seed']}" if "seed" in told else ""
    scores = told.get("held_out") or _last_scores(folder)
    rows = [f"| {name} | {value:g} |" for name, value in scores.items()]
    table = (
        ["| held-out score | value |", "| --- | --- |", *rows] if rows else ["None are recorded with these weights."]
    )
    # The seconds that training took and the device differ from run to run, and are left out.
    kept = {key: told[key] for key in ("settings", "corpus", "start", "source", "sha256", "commit") if key in told}
    kept.get("start", {}) and kept.update(start={k: v for k, v in kept["start"].items() if k not in VARIES})
    return [
        f"## What it was trained on\n\n{trained}{seed}.\n",
        "## Scores\n\n" + "\n".join(table) + "\n",
        f"## Licence\n\n{'; '.join(known)}.\n",
        f"## Provenance\n\n```json\n{json.dumps(kept, indent=1)}\n```\n",
    ]


VARIES = ("seconds", "device")


def _last_scores(folder: Path) -> dict[str, float]:
    """The last row of a training history in which every number stands."""
    file = folder / "history.csv"
    rows = pd.read_csv(file).select_dtypes("number").dropna() if file.is_file() else pd.DataFrame()
    return {name: float(value) for name, value in rows.iloc[-1].items()} if len(rows) else {}


def _corpus(told: dict) -> str:
    """What weights were trained on, or taken from."""
    corpus = told.get("corpus", {})
    if corpus.get("kind") == "synthetic":
        return f"synthetic sounds ({corpus['classes']})" if isinstance(corpus["classes"], str) else "synthetic sounds"
    return str(corpus.get("root") or corpus.get("kind") or told.get("from") or UNKNOWN)


def _hub_licence(known: list[str]) -> str:
    """The Hub's word for a licence it has one for; "other" for several, or for one that it does not know."""
    plain = known[0].split(" (")[0].lower().replace(" ", "-") if len(known) == 1 else ""
    return plain if plain.startswith(("cc0-", "cc-by", "apache-2.0", "mit")) else "other"


def provenance_of(folder: Path) -> dict:
    """How weights came to be, as `bundle.write_provenance` and `pack` noted it, or `take` of published ones."""
    files = [folder / name for name in ("provenance.json", "published.json") if (folder / name).is_file()]
    return json.loads(files[0].read_text()) if files else {"source": "published checkpoint"}


def of_weights(told: dict) -> list[str]:
    """The licences of weights by what is told of their origin: of published ones their own; of others those of the clips that
    they were trained on, and of the weights that they started from."""
    if "from" in told:
        known = (licence for part, licence in CHECKPOINTS.items() if part in told["from"].lower())
        return [told["licence"] or next(known, UNKNOWN)]
    known = list(told.get("licences", {}))
    if not known:  # packed before licences were noted
        known = [manifests.SYNTHETIC if told.get("corpus", {}).get("kind") == "synthetic" else UNKNOWN]
    start = of_weights(told["start"]) if "start" in told else []
    return list(dict.fromkeys(known + start))
