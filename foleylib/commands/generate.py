"""`foleylib generate`: sounds from texts, by any model of the repository or of its bundle."""

import argparse
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.commands.outputs import free_files, place, save
from foleylib.commands.prompts import check_prompts, read_prompts
from foleylib.diffusion.condition import Condition
from foleylib.evaluation.texts import TextCut, cut
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
LONGEST = 600  # seconds of a clip: memory grows with its square
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
    """Generated clips: waves [shape=(N, T)] in [-1, 1] at a rate (Hz), and a row for each [prompt, number, seed].

    `remarks` are sentences on prompts of which the model did not read all.
    """

    waves: np.ndarray
    rate: int
    rows: pd.DataFrame
    remarks: tuple[str, ...] = ()


class _TextHalf:
    """The text half of CLAP that a pipeline folder holds, called as a whole `networks.clap.Clap` is."""

    def __init__(self, folder: Path, device):
        from transformers import ClapTextModelWithProjection

        self.model = load_strictly(ClapTextModelWithProjection, folder / "text_encoder", stage="pretrain").to(device)
        self.tokenizer = claps.load_tokenizer(folder / "tokenizer", stage="pretrain")
        claps.check_vocabulary(folder, self.tokenizer, self.model.config)

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
    prompts = list(prompts) if isinstance(prompts, Iterable) and not isinstance(prompts, str) else [prompts]
    check_prompts(prompts, number)
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}: give 0 or more, below 2 to the power of 63")
    model = model if isinstance(model, Model) else load_model(model, device)
    drawn = settings.load().sampling.changed(**{name: value for name, value in options.items() if value is not None})
    if drawn.steps > model.pipeline.noise["num_train_timesteps"]:
        raise ValueError(
            f"steps {drawn.steps}: the model's noise has {model.pipeline.noise['num_train_timesteps']}; give no more"
        )
    keys = [(text, n) for text in prompts for n in range(number)]
    if told := cut(model.text.tokenizer, prompts):
        warnings.warn(told[0], TextCut, stacklevel=2)
    waves = _draw(model, [text for text, _ in keys], clip_seeds(seed, keys), seconds, drawn)
    if not np.isfinite(waves).all():
        raise ValueError("the model made sounds that are not finite: lower guidance, or look at the model's weights")
    rows = pd.DataFrame(keys, columns=["prompt", "number"]).assign(seed=seed)
    return Sounds(waves, model.rate, rows, tuple(told))


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
    if not (step / 2 < wanted <= LONGEST and np.isclose(wanted / step, round(wanted / step), atol=1e-6)):
        raise ValueError(
            f"seconds is {wanted:g}: give a multiple of {step:g} s, which the U-Net halves three times, of {LONGEST} s at most"
        )
    return round(wanted * model.rate)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("prompts", nargs="*", metavar="TEXT", help="what is to be heard: 'a dog bark'")
    parser.add_argument("--prompts-from", type=Path, metavar="FILE", help="a text file with a prompt in each line")
    parser.add_argument("-o", "--out", type=place, required=True, help="a .wav file for one clip, else a folder")
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
    prompts = arguments.prompts + ([] if arguments.prompts_from is None else read_prompts(arguments.prompts_from))
    if not prompts:
        raise ValueError("no text is given: name what is to be heard, or a file with --prompts-from")
    check_prompts(prompts, arguments.number)
    rows = pd.DataFrame([(text, n) for text in prompts for n in range(arguments.number)], columns=["prompt", "number"])
    free_files(arguments.out, rows, overwrite=arguments.overwrite)  # before the work is done
    names = ("number", "seed", "seconds", "device", "solver", "steps", "guidance", "vocoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextCut)  # they are among the remarks
        sounds = generate(prompts, arguments.model, **{name: getattr(arguments, name) for name in names})
    for file in save(sounds, arguments.out, overwrite=arguments.overwrite):
        print(file)
    for remark in sounds.remarks:
        print(f"Note: {remark}", file=sys.stderr)
