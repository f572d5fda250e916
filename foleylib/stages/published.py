"""Stage published: the foundation's parts from published files, taken and checked once; nothing where it has another source.

models/published has a folder a part in diffusers' and transformers' formats: clap, vae, vocoder, and the U-Net of each
latent diffusion model as NAME/unet. published.json says where each is from and what was put right.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from foleylib import paths
from foleylib.networks import clap as claps
from foleylib.networks import vocoder as vocoders
from foleylib.networks.published import audioldm, folder, hub, whole_clap
from foleylib.networks.published.audioldm import Parts
from foleylib.params.settings import Params
from foleylib.runtime import parameters, weights_sha256, write_json

PIPELINE_FILES = ["*.json", "*.txt"]
SHARED = ("clap", "vae", "vocoder")


@dataclass(frozen=True)
class Place:
    """Where a model was found: its folder or file, and what the settings call it."""

    path: Path
    name: str
    revision: str | None

    def of(self, part: str) -> Path:
        """The folder of a part, or the file that has all of them."""
        return self.path / part if (self.path / part).is_dir() else self.path

    @property
    def licence(self) -> str | None:
        return hub.licence_of(self.path if self.path.is_dir() else self.path.parent)


def make(cfg: Params) -> dict:
    """Make models/published; returns the content of its published.json."""
    out, foundation = paths.PUBLISHED, cfg.foundation
    shutil.rmtree(out, ignore_errors=True)
    content, first = {"source": foundation.source, "parts": {}}, None
    for name in foundation.ldms if foundation.published else []:
        place = _place(cfg, name)
        parts, places = _read(cfg, name, place)
        if first is None:
            first = parts
            _save_shared(parts, out)
            content["parts"] |= {own: _entry(own, parts, places.get(own, place)) for own in SHARED}
        else:
            _check_shared(parts, first, _setting(name, "checkpoint"))
        parts.unet.save_pretrained(out / name / "unet")
        content["parts"][name] = _entry("unet", parts, place)
    write_json(out / "published.json", content)
    return content


def table(content: dict) -> pd.DataFrame:
    """What was taken, a row a part."""
    columns = ["from", "revision", "licence", "M parameters", "sha256", "notes"]
    rows = {
        name: {**part, "sha256": part["sha256"][:12], "M parameters": part["parameters"] / 1e6}
        | {"notes": "; ".join(part["notes"])}
        for name, part in content["parts"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("part")


def _setting(name: str, key: str) -> str:
    return f"foundation.{key}" if name == "ldm" else f"foundation.sizes.{name}.{key}"


def _own(cfg: Params, name: str):
    """The section that names the checkpoint of a latent diffusion model."""
    return cfg.foundation if name == "ldm" else cfg.foundation.sizes[name]


def _place(cfg: Params, name: str) -> Place:
    """The folder or file of a latent diffusion model, fetched where it is on the Hub."""
    own, setting = _own(cfg, name), _setting(name, "checkpoint")
    if cfg.foundation.source == "hub":
        instead = f"foundation.source to 'checkpoint' and {setting} to it"
        told = {"setting": _setting(name, "revision"), "instead": instead}
        return Place(hub.fetch(own.checkpoint, own.revision, PIPELINE_FILES, **told), own.checkpoint, own.revision)
    where = paths.ROOT / own.checkpoint
    if not where.exists():
        raise ValueError(
            f"{setting}: {where} is no folder and no file; fetch it there, or set foundation.source to 'hub' with its id"
        )
    return Place(where, own.checkpoint, None)


def _elsewhere(cfg: Params, key: str, revision: str, *, weights: bool) -> Place:
    """What `foundation.KEY` names: a path here, or an id of the Hub with its commit."""
    name, commit = getattr(cfg.foundation, key), getattr(cfg.foundation, revision)
    where = paths.ROOT / name
    if where.exists():
        return Place(where, name, None)
    told = {"setting": f"foundation.{revision}", "instead": f"foundation.{key} to it"}
    try:
        return Place(hub.fetch(name, commit, PIPELINE_FILES, weights=weights, **told), name, commit)
    except hub.HubError as error:
        raise ValueError(f"foundation.{key}: {where} is not there; {error}") from error


def _read(cfg: Params, name: str, place: Place) -> tuple[Parts, dict[str, Place]]:
    """The parts of a model, and the places of those that are not from `place`."""
    foundation, rate, places = cfg.foundation, cfg.corpus_of("foundation").rate, {}
    ldm, where = foundation.section(name), str(place.path)
    if place.path.is_dir():
        clap, notes, places["clap"] = _clap(cfg, place)
        own = "foundation.ldm" if name == "ldm" else f"foundation.sizes.{name}"
        parts = folder.load(place.path, own, ldm, foundation, rate=rate, clap=clap)
        parts.notes["clap"] += notes
    else:
        tokenizer = _tokenizer(cfg, _setting(name, "checkpoint"))
        extractor = whole_clap.front_end(foundation.clap)
        parts = audioldm.load(place.path, _sizes(foundation, ldm, rate), tokenizer, extractor=extractor)
        folder.checked_vocoder(parts.vocoder, where, foundation.vocoder, rate)
        folder.checked_noise(parts.noise, where, ldm.noise)
        parts.notes["clap"] = whole_clap.front_notes(foundation.clap)
    parts.notes["vae"] = [f"latent scale {parts.scale:.5f}{_beside_published(place.name, parts.scale)}"]
    return parts, places


def _beside_published(checkpoint: str, scale: float) -> str:
    known = audioldm.SCALES.get(Path(checkpoint).name.removesuffix(".ckpt"))
    return "" if known is None or abs(scale / known - 1) < 1e-3 else f", published with {known}"


def _clap(cfg: Params, place: Place) -> tuple[claps.Clap, list[str], Place]:
    """The whole CLAP of a pipeline's folder, notes, and where it is from."""
    settings = cfg.foundation.clap
    if (place.path / "clap").is_dir():
        return *whole_clap.load_folder(place.path / "clap", settings), place
    if not cfg.foundation.clap_checkpoint:
        raise ValueError(
            f"{place.path} has the text half of CLAP alone, and sounds are embedded too: set foundation.clap_checkpoint to "
            "the whole CLAP of this model, or foundation.checkpoint to its original .ckpt file, which has it"
        )
    other = _elsewhere(cfg, "clap_checkpoint", "clap_revision", weights=True)
    if other.path.is_dir():
        return *whole_clap.load_folder(other.path, settings), other
    return *whole_clap.load_laion(other.path, settings, _tokenizer(cfg, "foundation.clap_checkpoint")), other


def _tokenizer(cfg: Params, file: str) -> Path:
    if not cfg.foundation.tokenizer:
        raise ValueError(f"{file} is a file without tokenizer: name RoBERTa's in foundation.tokenizer")
    return _elsewhere(cfg, "tokenizer", "tokenizer_revision", weights=False).path


def _sizes(foundation, ldm, rate: int) -> audioldm.Sizes:
    """The sizes in the settings, which those of a .ckpt file must be."""
    vae, vocoder = foundation.vae, foundation.vocoder
    up = vocoder.upsampling
    layers = {} if up is None else {"upsample_rates": up.rates, "upsample_kernels": up.kernels}
    return audioldm.Sizes(
        unet={
            "channels": ldm.channels,
            "head_channels": ldm.head_channels,
            "layers": ldm.layers,
            "groups": ldm.groups,
            "dim": foundation.clap.dim,
            "latent_channels": vae.latent_channels,
        },
        clap=claps.config(foundation.clap, foundation.clap.text.vocabulary),
        vae={key: getattr(vae, key) for key in ("channels", "layers", "latent_channels", "groups")},
        vocoder={"rate": rate, "channels": vocoder.channels, **layers},
    )


def _check_shared(parts: Parts, first: Parts, setting: str) -> None:
    """All sizes have one CLAP, VAE and vocoder; the latent scale alone is each model's own."""
    modules = {"clap": (parts.clap.model, first.clap.model), "vae": (parts.vae, first.vae)}
    for name, (one, other) in (modules | {"vocoder": (parts.vocoder, first.vocoder)}).items():
        own, shared = one.state_dict(), other.state_dict()
        if own.keys() != shared.keys() or not all(torch.equal(own[key], shared[key]) for key in own):
            raise ValueError(f"{setting}: its {name} is not that of foundation.checkpoint, which all sizes share")
    if abs(parts.scale / first.scale - 1) > 1e-4:
        parts.notes["unet"].append(f"trained at a latent scale of {parts.scale:.5f}, not {first.scale:.5f}")


def _save_shared(parts: Parts, out: Path) -> None:
    parts.clap.save(out / "clap")
    parts.vae.save_pretrained(out / "vae")
    vocoders.save(parts.vocoder, out / "vocoder")


def _entry(part: str, parts: Parts, place: Place) -> dict:
    """What published.json tells of a part."""
    model = parts.clap.model if part == "clap" else getattr(parts, part)
    return {
        "from": place.name,
        "revision": place.revision,
        "licence": place.licence,
        "sha256": weights_sha256(place.of(part)),
        "parameters": parameters(model),
        "notes": parts.notes.get(part, []),
        **({"latent_scale": parts.scale} if part in ("vae", "unet") else {}),
    }
