"""`foleylib generate`: sounds from texts, by any model of the repository or of its bundle."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from foleylib import paths
from foleylib.audio.io import write
from foleylib.audio.mel import front_end
from foleylib.diffusion.condition import Condition
from foleylib.networks import clap as claps
from foleylib.networks import pipeline as pipelines
from foleylib.networks import retrieval, vae, vocoder
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import Pipeline
from foleylib.networks.rates import RateUnet
from foleylib.params import settings
from foleylib.params.runs import Sampling
from foleylib.runtime import clip_seeds, load_strictly, pick_device
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages import bundle

HELP = "sounds from texts"
ABOUT = "Sounds from texts, as WAV files. Without --model: the foundation, which the bundle holds."
BATCH = 64  # texts embedded at once
LATENT_STEP = 8  # cells: the U-Net halves a latent three times


@dataclass(frozen=True)
class Model:
    """A latent diffusion model with what reads its texts (`embed_text`), and the rate (Hz) and seconds of its clips."""

    pipeline: Pipeline
    text: object
    rate: int
    seconds: float


@dataclass(frozen=True)
class Sounds:
    """Generated clips: waves [shape=(N, T)] in [-1, 1] at a rate (Hz), and a row for each [prompt, number, seed]."""

    waves: np.ndarray
    rate: int
    rows: pd.DataFrame


class _TextHalf:
    """The text half of CLAP that a pipeline folder holds, called as a whole `networks.clap.Clap` is."""

    def __init__(self, folder: Path, device):
        from transformers import AutoTokenizer, ClapTextModelWithProjection

        self.model = load_strictly(ClapTextModelWithProjection, folder / "text_encoder", stage="pretrain").to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> torch.Tensor:
        return torch.cat([self._embedded(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])

    def _embedded(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        return F.normalize(self.model(**tokens).text_embeds, dim=-1)


def load_model(folder: str | Path | None = None, device: str = "auto") -> Model:
    """The model of a pipeline folder (models/foundation/ldm, models/systems/NAME/SEED, or of AudioLDM in diffusers' format);
    without one the foundation, models/foundation/ldm where that was made, else the bundled one.

    Errors
    ------
    ValueError: the folder holds no pipeline, a damaged one, or one that wants more than a text (a sampling rate).
    """
    where = pick_device(device)
    if folder is None and not (paths.FOUNDATION / "ldm" / "model_index.json").is_file():
        pipeline, text = _bundled(where)
    else:
        folder = paths.FOUNDATION / "ldm" if folder is None else Path(folder)
        pipeline = pipelines.load(folder).to(where)
        if any(isinstance(module, RateUnet) for module in pipeline.unet.modules()):
            raise ValueError(
                f"{folder}: this model is told a sampling rate, which generate does not give; name another"
            )
        text = _TextHalf(folder, where)
    frames = _config(pipeline.unet).sample_size * pipelines.vae_ratio(pipeline.vae)
    return Model(pipeline, text, pipeline.vocoder.config.sampling_rate, frames / 100)


def _bundled(device) -> tuple[Pipeline, claps.Clap]:
    noise = bundle.provenance_of(paths.BUNDLED / "ldm")["settings"]["noise"]
    pipeline = Pipeline(
        unet=unets.load(paths.BUNDLED / "ldm"),
        vae=vae.load(paths.BUNDLED / "vae"),
        vocoder=vocoder.load(paths.BUNDLED / "vocoder"),
        noise={"num_train_timesteps": noise["steps"], **{key: noise[key] for key in ("beta_start", "beta_end")}},
    )
    return pipeline.to(device), claps.load(paths.BUNDLED / "clap", device)


def _config(unet):
    """The configuration of the U-Net of diffusers within a model."""
    from diffusers import UNet2DConditionModel

    return next(module.config for module in unet.modules() if isinstance(module, UNet2DConditionModel))


def generate(
    prompts: str | Sequence[str],
    model: Model | str | Path | None = None,
    *,
    number: int = 1,
    seed: int = 0,
    seconds: float | None = None,
    device: str = "auto",
    **options,
) -> Sounds:
    """Sounds for texts.

    >>> sounds = generate("a dog bark")
    >>> IPython.display.Audio(sounds.waves[0], rate=sounds.rate)

    Parameters
    ----------
    prompts : one text, or several.
    model : as in `load_model`, or what that returned.
    number : clips of each prompt. The same prompt, number and seed give the same clip, whatever else is asked for.
    seconds : length of a clip, in steps of 0.32 s; that which the model was trained with by default.
    options : solver, steps, guidance, spacing, eta, vocoder, batch_size: what is otherwise than `sampling` in params.yaml.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or not all(isinstance(text, str) and text.strip() for text in prompts):
        raise ValueError("a prompt is empty: give a text, such as 'a dog bark'")
    if number < 1:
        raise ValueError(f"number is {number}: ask for one clip at least")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give 0 or more")
    model = model if isinstance(model, Model) else load_model(model, device)
    drawn = settings.load().sampling.changed(**{name: value for name, value in options.items() if value is not None})
    if drawn.steps > model.pipeline.noise["num_train_timesteps"]:
        raise ValueError(
            f"steps {drawn.steps}: the model's noise has {model.pipeline.noise['num_train_timesteps']}; give no more"
        )
    keys = [(text, n) for text in prompts for n in range(number)]
    waves = _draw(model, [text for text, _ in keys], clip_seeds(seed, keys), seconds, drawn)
    rows = pd.DataFrame(keys, columns=["prompt", "number"]).assign(seed=seed)
    return Sounds(waves, model.rate, rows)


def _draw(model: Model, texts: list[str], seeds: list[int], seconds: float | None, drawn: Sampling) -> np.ndarray:
    log_mel, unique = front_end(model.rate, "dataset"), list(dict.fromkeys(texts))
    embedded = model.text.embed_text(unique)[[unique.index(text) for text in texts]].cpu()
    unconditional = retrieval.unconditional(model.text, model.pipeline.unet)
    given = {name: value.expand(len(texts), *value.shape[1:]) for name, value in unconditional.given().items()}
    shape = pipelines.latent_shape(model.pipeline.vae, log_mel, _samples(model, seconds))
    condition = Condition(**(given | {"embedding": embedded}))  # of a model that reads neighbours: none of them
    latents = sample(model.pipeline, condition, unconditional, shape, seeds=seeds, options=SamplerOptions.of(drawn))
    pipeline = model.pipeline
    if drawn.vocoder == "griffin_lim":
        own = vocoder.GriffinLim(log_mel.config).to(pipeline.vae.device)
        pipeline = Pipeline(pipeline.unet, pipeline.vae, own, pipeline.noise)
    return pipelines.decode(pipeline, latents, hop=log_mel.config.hop, batch_size=drawn.batch_size).numpy()


def _samples(model: Model, seconds: float | None) -> int:
    step = LATENT_STEP * pipelines.vae_ratio(model.pipeline.vae) / 100
    wanted = model.seconds if seconds is None else seconds
    if not (0 < wanted < np.inf and np.isclose(wanted / step, round(wanted / step), atol=1e-6)):
        raise ValueError(f"seconds is {wanted:g}: give a multiple of {step:g} s, which the U-Net halves three times")
    return round(wanted * model.rate)


def save(sounds: Sounds, out: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write clips to `out`: the file itself for a single clip and a name that ends in .wav; else a folder, with clips.csv.

    A file that is there already is kept, with an error, unless `overwrite`; nothing is written then.
    """
    out = Path(out)
    _check_name(out, len(sounds.waves))
    names = [_file_name(row.prompt, row.number) for row in sounds.rows.itertuples()]
    names = [f"{number:04d}_{name}" if names.count(name) > 1 else name for number, name in enumerate(names)]
    files = [out] if out.suffix else [out / name for name in names]
    if (there := [file for file in files if file.exists()]) and not overwrite:
        raise ValueError(f"{there[0]} is there already; give another name, or --overwrite")
    for file, wave in zip(files, sounds.waves):
        write(file, wave, sounds.rate)
    if not out.suffix:
        sounds.rows.assign(file=[file.name for file in files]).to_csv(out / "clips.csv", index=False)
    return files


def _check_name(out: Path, clips: int) -> None:
    if out.suffix and out.suffix.lower() != ".wav":
        raise ValueError(f"{out}: clips are written as WAV files; give a name that ends in .wav, or a folder")
    if out.suffix and clips > 1:
        raise ValueError(f"{out} is one file, and there are {clips} clips: give a folder, without .wav")


def _file_name(prompt: str, number: int) -> str:
    words = re.sub(r"\W+", "_", prompt.lower()).strip("_")[:60] or "clip"
    return f"{words}_{number}.wav"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("prompts", nargs="*", metavar="TEXT", help="what is to be heard: 'a dog bark'")
    parser.add_argument("--prompts-from", type=Path, metavar="FILE", help="a text file with a prompt in each line")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .wav file for one clip, else a folder")
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="a pipeline folder, such as models/systems/tuning/0"
    )
    parser.add_argument("--number", type=int, default=1, help="clips of each text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="of a clip, in steps of 0.32 s; the model's own without")
    parser.add_argument("--solver", choices=["ddim", "dpm++"], help="what is not given is as `sampling` in params.yaml")
    parser.add_argument("--steps", type=int, help="of the solver")
    parser.add_argument("--guidance", type=float, help="1: none")
    parser.add_argument("--vocoder", choices=["griffin_lim", "hifigan"], help="the model's own HiFi-GAN, or no network")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> None:
    prompts = arguments.prompts + _lines(arguments.prompts_from)
    if not prompts:
        raise ValueError("no text is given: name what is to be heard, or a file with --prompts-from")
    _check_name(arguments.out, len(prompts) * arguments.number)
    if arguments.out.suffix.lower() == ".wav" and arguments.out.exists() and not arguments.overwrite:
        raise ValueError(f"{arguments.out} is there already; give another name, or --overwrite")
    names = ("number", "seed", "seconds", "device", "solver", "steps", "guidance", "vocoder")
    sounds = generate(prompts, arguments.model, **{name: getattr(arguments, name) for name in names})
    for file in save(sounds, arguments.out, overwrite=arguments.overwrite):
        print(file)


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text(encoding="utf8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such file of prompts") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is no UTF-8; save the file in that encoding") from None
