"""A small world for the graph of the profile paper: data sets in the layouts of their publishers, and tiny models in the
formats in which the real ones are published, on a Hub of this machine and in data/raw."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AudioLDMPipeline
from loopback_hub import commit_of
from made_corpora import audiocaps, dcase, wavcaps
from published_files import t5
from ruamel.yaml import YAML

from foleylib.audio.mel import front_end
from foleylib.datasets.features import encode_moments, sample_latents
from foleylib.networks import clap as claps
from foleylib.networks import pipeline
from foleylib.networks import unet as unets
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.networks.audiomae import vit
from foleylib.networks.panns import PannsCnn
from foleylib.networks.published import audioldm, evaluators
from foleylib.networks.vggish import Vggish
from foleylib.params import profiles, settings
from foleylib.runtime import weights_sha256

CAPTIONS = ["a dog barks, then a man talks", "rain on a roof", "an engine idles", "a door is slammed", "birds sing"]
WORLD = Path(__file__).with_suffix(".yaml")
REVISIONS = {"revision": "checkpoint", "clap_revision": "clap_checkpoint"}
SMOKE_ALONE = {"corpora": ("foley", "broad", "wide"), "foundation": None}  # of sounds and models that are made here


def configure(root: Path, hub: Path) -> settings.Params:
    """Write the params.yaml of this world into a copy of the repository, and put what it names onto a Hub."""
    yaml, file = YAML(), root / "params.yaml"
    merged = yaml.load(file)
    profiles.merge(merged, yaml.load(root / "params" / "paper.yaml"))
    smoke = yaml.load(root / "params" / "smoke.yaml")
    for section, keys in SMOKE_ALONE.items():
        for key in keys or list(smoke[section]):
            smoke[section].pop(key)
    profiles.merge(merged, smoke)
    profiles.merge(merged, yaml.load(WORLD))
    foundation, tokens = merged["foundation"], merged["retrieval"]["tokens"]
    foundation |= {key: commit_of(foundation[of]) for key, of in REVISIONS.items()}
    tokens |= {f"{name}_revision": commit_of(repository(tokens[name])) for name in ("audiomae", "t5")}
    cfg = settings.parse(merged, "paper_world")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        publish(hub, cfg)
        release(hub)
    for entry in merged["evaluators"].values():
        entry["revision"] = commit_of(repository(entry["weights"]))
        entry["sha256"] = weights_sha256(hub / entry["weights"])
    with open(file, "w", encoding="utf8") as out:
        yaml.dump(merged, out)
    return settings.load(file)


def repository(name: str) -> str:
    """The repository of an id of the Hub, which may name a file in it."""
    return "/".join(name.split("/")[:2])


def release(hub: Path) -> None:
    """Put the evaluators' files onto a Hub as they were released, AudioMAE's and FLAN-T5's."""
    sampler = {"indexes_per_class": [np.arange(3)], "queue": [2, 1], "pointers_of_classes": np.zeros(2, np.int64)}
    cnn14 = PannsCnn(evaluators.PUBLISHED["cnn14_16k"][1]).state_dict()
    _save({"iteration": 1, "model": cnn14, "sampler": sampler}, hub / "panns/cnn14/Cnn14_16k_mAP=0.438.pth")
    _save(Vggish(evaluators.PUBLISHED["fad_16k"][1]).state_dict(), hub / "torchvggish/vggish/vggish-10086976.pth")
    _save(audiomae(), hub / "facebook/audiomae/pretrained.pth")
    words = {word for text in CAPTIONS for word in text.split()}
    t5(hub / "google/flan-t5-large", ["<pad>", "</s>", "<unk>", *sorted(words)])


def _save(content: dict, path: Path) -> None:
    path.parent.mkdir(parents=True)
    torch.save(content, path)


def audiomae() -> dict:
    """The file of a small AudioMAE in the names of its authors' code, with the arguments of the script that trained it."""
    from argparse import Namespace

    from foleylib.networks.published.weights import AUDIOMAE_NAMES

    state = {}
    own = vit(dim=64, depth=3, heads=1).state_dict()
    for key, value in own.items():
        for old, new in reversed(AUDIOMAE_NAMES.items()):
            key = key.replace(new, old, 1)
        state[key.replace("layernorm.", "norm.", 1) if key.startswith("layernorm.") else key] = value
    for block in range(3):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"blocks.{block}.attn.{name}_proj.{kind}") for name in "qkv"]
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return {"model": state, "epoch": 1, "args": Namespace(batch_size=8)}


def _clap(cfg: settings.Params) -> claps.Clap:
    return claps.build(cfg.foundation.clap, CAPTIONS, seed=0).eval()


def publish(hub: Path, cfg: settings.Params) -> None:
    """Put an AudioLDM in diffusers' format and its whole CLAP onto a Hub."""
    sizes, rate = cfg.foundation, cfg.corpus_of("foundation").rate
    clap, folder = _clap(cfg), hub / sizes.checkpoint
    vae = vaes.build(sizes.vae.channels, sizes.vae.layers, sizes.vae.latent_channels, sizes.vae.groups, seed=0).eval()
    wave = 0.1 * torch.randn(4, 20480, generator=torch.Generator().manual_seed(0))
    moments = encode_moments(vae, front_end(rate, "dataset")(wave))
    vae.register_to_config(scaling_factor=float(1 / sample_latents(moments, 1.0, None).std()))
    AudioLDMPipeline(
        vae=vae,
        text_encoder=pipeline.text_encoder(clap.model),
        tokenizer=clap.tokenizer,
        unet=unets.new(sizes.ldm, dim=sizes.clap.dim, latent_channels=sizes.vae.latent_channels, seed=0),
        scheduler=pipeline.scheduler(audioldm.NOISE, "ddim"),
        vocoder=vocoders.generator(vocoders.generator_config(rate, channels=sizes.vocoder.channels), seed=0),
    ).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n")
    clap.save(hub / sizes.clap_checkpoint)
    (hub / sizes.clap_checkpoint / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def record(root: Path) -> None:
    """Put the data sets into data/raw."""
    raw = root / "data" / "raw"
    dcase(raw / "dcase" / "dev", per_class=24)
    wavcaps(raw / "wavcaps", more=30)
    rows = captioned(train=24, val=16, test=16)
    audiocaps(raw / "audiocaps", listed=rows)
    audiocaps(raw / "audiocaps48", listed=rows, rate=48000)


def captioned(**counts: int) -> dict[str, list]:
    """Rows of AudioCaps: a caption a training clip, five of the others."""
    rows, number = {}, 0
    for split, count in counts.items():
        rows[split] = []
        for i in range(count):
            for said in range(1 if split == "train" else 5):
                number += 1
                rows[split].append((number, f"{split}_{i:06d}"[-11:], 10 * i, CAPTIONS[(i + said) % len(CAPTIONS)]))
    return rows
