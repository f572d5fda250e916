"""Model cards: the README.md beside weights, which says what they are, how to load them and what they may be used for."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import yaml
from safetensors import safe_open

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.params.systems import System

# Licences of published weights, as their pages on the Hugging Face Hub and Zenodo state them.
CHECKPOINTS = {"audioldm": "CC BY-NC-SA 4.0"}  # by what the name of the file or folder holds
UNKNOWN = "unknown"
OWN = "mit"  # of weights that learned from sounds that were made here
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class Kind(NamedTuple):
    """What the card of a kind of model says: its title, the library that loads it, the Hub's task, what it is, and lines of
    Python that load it from FOLDER."""

    title: str
    library: str
    task: str
    what: str
    lines: str


KINDS = {
    "clap": Kind(
        "CLAP",
        "transformers",
        "feature-extraction",
        "Embeds texts and sounds in one space (HTS-AT and RoBERTa towers, contrastive).",
        "import torch\nfrom transformers import AutoProcessor, ClapModel\n\n"
        'model = ClapModel.from_pretrained("FOLDER", dtype=torch.float32).eval()\n'
        "# processor(audio=waves, sampling_rate=rate) and processor(text=texts, padding=True)\n"
        'processor = AutoProcessor.from_pretrained("FOLDER")\n'
        "heard = processor.feature_extractor\n"
        "heard.nb_max_samples = int(heard.nb_max_samples)  # else a clip shorter than that fails",
    ),
    "vae": Kind(
        "VAE",
        "diffusers",
        "feature-extraction",
        "Log-mel spectrograms to latents and back.",
        "import torch\nfrom diffusers import AutoencoderKL\n\n"
        'vae = AutoencoderKL.from_pretrained("FOLDER", torch_dtype=torch.float32)',
    ),
    "vocoder": Kind(
        "HiFi-GAN",
        "transformers",
        "feature-extraction",
        "Log-mel spectrograms to waves.",
        "import torch\nfrom transformers import SpeechT5HifiGan\n\n"
        'vocoder = SpeechT5HifiGan.from_pretrained("FOLDER", dtype=torch.float32)',
    ),
    "judge": Kind(
        "Judge",
        "foleylib",
        "audio-classification",
        "Names the class of a clip; its embeddings are behind KAD, FD and coverage. Used for nothing but scoring.",
        'from foleylib.networks import judge\n\njudge = judge.load("FOLDER")  # judge.embed(waves)',
    ),
    "detector": Kind(
        "Event detector",
        "foleylib",
        "audio-classification",
        "Finds the sounds of a clip, and when they are. Used for nothing but scoring.",
        'from foleylib.networks import detector\n\ndetector = detector.load("FOLDER")',
    ),
    "latent_clap": Kind(
        "Latent CLAP encoder",
        "foleylib",
        "feature-extraction",
        "A Cnn10 from latents of the VAE to CLAP's space (latent-clap-loss, Section III.D).",
        'from foleylib.networks import latent_clap\n\nencoder = latent_clap.load("FOLDER")',
    ),
    "re_audioldm": Kind(
        "U-Net of Re-AudioLDM",
        "foleylib",
        "text-to-audio",
        "A latent diffusion U-Net that reads the sound and the captions of retrieved clips.",
        'from pathlib import Path\nfrom foleylib.networks import rates\n\nunet = rates.load(Path("FOLDER"))',
    ),
    "src_gaudio": Kind(
        "U-Nets of SRC-gAudio",
        "foleylib",
        "text-to-audio",
        "Latent diffusion U-Nets that are told the sampling rate: `low` knows the lowest alone, `joint` all.",
        'from pathlib import Path\nfrom foleylib.networks import rates\n\nunet = rates.load(Path("FOLDER/joint"))',
    ),
    "unet": Kind(
        "U-Net of the latent diffusion model",
        "diffusers",
        "text-to-audio",
        "The U-Net alone; CLAP, VAE and vocoder lie beside it.",
        "import torch\nfrom diffusers import UNet2DConditionModel\n\n"
        'unet = UNet2DConditionModel.from_pretrained("FOLDER/unet", torch_dtype=torch.float32)',
    ),
    "pipeline": Kind(
        "Latent diffusion model, text to sound",
        "diffusers",
        "text-to-audio",
        "A latent diffusion model in the manner of AudioLDM, as a whole pipeline.",
        "import torch\nfrom diffusers import AudioLDMPipeline\n\n"
        'pipeline = AudioLDMPipeline.from_pretrained("FOLDER", torch_dtype=torch.float32)\n'
        '# ./run foleylib generate "a dog bark" --model FOLDER -o bark.wav decodes by Griffin-Lim, which is better here',
    ),
}


def write(folder: Path, told: dict, place: Path | None = None) -> None:
    """Write the card of the weights in `folder`, of what is `told` of them (`provenance_of`); `place` is where they will lie.

    It holds no time and no machine, so that two runs write the same.
    """
    place = place or folder
    where = place.relative_to(paths.ROOT).as_posix() if place.is_relative_to(paths.ROOT) else place.name
    (folder / "README.md").write_text(card(folder, told, where), encoding="utf8")


def card(folder: Path, told: dict, where: str) -> str:
    """The text of the card of weights that are to be found at `where`, from the root of the repository."""
    kind, known, corpus = KINDS[kind_of(folder, where)], of_weights(told), told.get("corpus", {})
    trained = corpus.get("root") or corpus.get("kind") or told.get("from") or "unknown"
    ours = set(known) <= {manifests.SYNTHETIC} and "from" not in told
    front = {
        "library_name": kind.library,
        "pipeline_tag": kind.task,
        "license": OWN if ours else "other",
        **({} if ours else {"license_name": "; ".join(known)}),
        "tags": ["foley", "text-to-audio", "foleylib"],
        **({"datasets": [corpus["kind"]]} if corpus else {}),
    }
    count, dtype = sizes(folder)
    sections = {
        "Load it": f"```python\n{kind.lines.replace('FOLDER', where)}\n```",
        "Trained on": f"{trained}" + (f", {corpus['rate']} Hz, clips of {corpus['seconds']} s" if corpus else "") + ".",
        "Scores": _scores(told.get("held_out", {})),
        "Licence": f"{'MIT, as the code' if ours else '; '.join(known)}. It learned from clips under: {'; '.join(known)}.",
        "Provenance": _provenance(told),
    }
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in sections.items())
    head = f"# {kind.title}: `{where}`\n\n{kind.what} {count / 1e6:.2f} M parameters, stored in {dtype}."
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{head}\n\n{body}\n"


def kind_of(folder: Path, where: str) -> str:
    """The key of `KINDS` of a folder of weights: by what is in it, else by its name."""
    if (folder / "model_index.json").is_file():
        return "pipeline"
    name = re.sub(r"^vocoder_.*", "vocoder", Path(where).name)
    return name if name in KINDS else "unet"


def provenance_of(folder: Path) -> dict:
    """How weights came to be, as `bundle.write_provenance` and `bundle.pack` noted it, or `bundle.take` of published ones."""
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


def behind(system: System, decoder: list[str]) -> list[Path]:
    """Folders of the weights behind a system's models and what decodes their latents (parts of the foundation)."""
    parts = ["clap", *([system.init] if system.pretrained else []), *decoder]
    return [*(paths.FOUNDATION / part for part in parts), *([paths.LATENT_CLAP] if system.loss.lclap else [])]


def of_system(system: System) -> list[str]:
    """The licences of a system's models: of the clips that they learned from, and of the weights behind them."""
    clips = paths.CLIPS / system.corpus
    known = list(manifests.licences(clips)) if (clips / "manifest.parquet").is_file() else [UNKNOWN]
    for folder in behind(system, ["vae", "vocoder"]):
        known += of_weights(provenance_of(folder))
    return list(dict.fromkeys(known))


def sizes(folder: Path) -> tuple[int, str]:
    """Parameters of all weights under a folder, and the types of their floating-point numbers."""
    count, found = 0, set()
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                part = weights.get_slice(name)
                count += math.prod(part.get_shape())
                found |= {DTYPES[part.get_dtype()]} if part.get_dtype() in DTYPES else set()
    return count, ", ".join(sorted(found))


def _scores(held_out: dict) -> str:
    rows = [
        f"| {name.removeprefix('val_')} | {value:g} |" for name, value in held_out.items() if name.startswith("val_")
    ]
    if not rows:
        return "None is stored with these weights; the reports of the repository score them."
    return "\n".join(["At the end of training, on validation clips:", "", "| score | value |", "|---|---|", *rows])


def _provenance(told: dict) -> str:
    """Settings and what else is told of an origin, but for times and machines."""
    kept = {name: told[name] for name in ("from", "revision", "seed", "commit", "sha256", "settings") if name in told}
    if "start" in told:
        kept["started_from"] = {name: told["start"][name] for name in ("commit", "sha256") if name in told["start"]}
    return f"```yaml\n{yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=110)}```"
