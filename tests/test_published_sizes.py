"""Networks of published size: all of them construct, with as many parameters as the published ones have; what the `paper`
profile describes are those; and one of them takes a step of training."""

import shutil

import numpy as np
import pytest
import torch
from networks import noise
from transformers import ClapModel, T5Config, T5EncoderModel

from foleylib.audio.mel import FRONT_ENDS
from foleylib.datasets.features import Latents
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import audiomae, clap, discriminators, latent_clap, rates, retrieval, unet, vae, vocoder
from foleylib.networks.published import evaluators, weights
from foleylib.params import profiles
from foleylib.params import settings as params
from foleylib.paths import ROOT
from foleylib.runtime import parameters
from foleylib.stages import ldm, rate_vocoder
from foleylib.stages import rates as rate_stage
from foleylib.stages.vocoder import new_generator
from foleylib.train import Job

T5_CHANNELS = 1024  # of FLAN-T5-large
T5 = {"d_model": T5_CHANNELS, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16, "vocab_size": 32128}


def t5_encoder():
    """As the config.json of google/flan-t5-large says."""
    return T5EncoderModel(T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False))


def hifigan(name):
    return vocoder.generator(vocoder.generator_config(**vocoder.PUBLISHED[name]))


def beside(name):
    """Attention to tokens beside AudioLDM's own, where its weights are kept."""
    sizes = dict(retrieval.PUBLISHED[name])
    base = unet.build(sizes.pop("channels"), sizes.pop("head_channels"))
    return retrieval.add_to(base, audio=sizes["audio"], text=sizes["text"], width=sizes["width"])


def evaluator(name):
    network, config = evaluators.PUBLISHED[name]
    return network(config)


COUNTS = {
    "Cnn10": (5_219_279, lambda: evaluator("cnn10")),  # PANNs
    "Cnn14": (80_753_615, lambda: evaluator("cnn14")),
    "Cnn14, 16 kHz": (80_753_615, lambda: evaluator("cnn14_16k")),
    "VGGish": (72_141_184, lambda: evaluator("fad_16k")),
    "CLAP, HTSAT-tiny": (153_492_890, lambda: ClapModel(weights.clap_config("tiny"))),
    "CLAP, HTSAT-base": (193_913_882, lambda: ClapModel(weights.clap_config("base"))),
    "U-Net of AudioLDM-S": (185_036_552, lambda: unet.build(**unet.PUBLISHED["audioldm-s-full"])),
    "U-Net of AudioLDM-M": (415_954_568, lambda: unet.build(**unet.PUBLISHED["audioldm-m-full"])),
    "U-Net of AudioLDM-L": (739_139_080, lambda: unet.build(**unet.PUBLISHED["audioldm-l-full"])),
    "VAE of AudioLDM": (55_376_873, lambda: vae.build(**vae.PUBLISHED, seed=0)),
    "HiFi-GAN of AudioLDM": (55_264_897, lambda: hifigan("audioldm_16k")),
    "HiFi-GAN V1": (13_926_017, lambda: hifigan("hifigan_22k")),
    "HiFi-GAN, 24 kHz": (54_773_377, lambda: hifigan("srcgaudio_24k")),
    "HiFi-GAN, 32 kHz": (54_740_609, lambda: hifigan("srcgaudio_32k")),
    "HiFi-GAN, 48 kHz": (52_381_313, lambda: hifigan("srcgaudio_48k")),
    "HiFi-GAN of AudioLDM 2, 48 kHz": (190_281_889, lambda: hifigan("audioldm2_48k")),
    "discriminators of HiFi-GAN, periods": (41_105_770, discriminators.MultiPeriodDiscriminator),
    "discriminators of HiFi-GAN, scales": (29_618_821, discriminators.MultiScaleDiscriminator),
    "AudioMAE": (85_648_128, lambda: audiomae.vit(**audiomae.PUBLISHED)),
    "FLAN-T5-large, encoder": (341_231_104, t5_encoder),
    "Re-AudioLDM-S": (190_182_664, lambda: retrieval.build(**retrieval.PUBLISHED["re-audioldm-s"])),
    "Re-AudioLDM-L": (417_701_000, lambda: retrieval.build(**retrieval.PUBLISHED["re-audioldm-l"])),
    "attention added to AudioLDM-S": (204_272_904, lambda: beside("re-audioldm-s")),
    "attention added to AudioLDM-M": (449_404_040, lambda: beside("re-audioldm-l")),
    "SRC-gAudio": (561_097_288, lambda: rates.build(**rates.PUBLISHED, place="time")),
    "SRC-gAudio without the rate": (559_046_728, lambda: rates.build(**rates.PUBLISHED, place="time").unet),
    "Latent CLAP": (5_215_520, lambda: latent_clap.LatentClap(latent_clap.LatentClapConfig())),
}

# What papers and public code say, in millions, to as many digits as they do.
SAID = {
    "Cnn10": "5.2",
    "Cnn14": "80.8",
    "VGGish": "72.1",
    "CLAP, HTSAT-tiny": "153.49",
    "CLAP, HTSAT-base": "193.91",
    "U-Net of AudioLDM-S": "185.04",
    "U-Net of AudioLDM-M": "416",
    "U-Net of AudioLDM-L": "739",
    "VAE of AudioLDM": "55.38",
    "HiFi-GAN of AudioLDM": "55.26",
    "HiFi-GAN V1": "13.93",
    "discriminators of HiFi-GAN, periods": "41.1",
    "discriminators of HiFi-GAN, scales": "29.6",
    "AudioMAE": "85.65",
    "SRC-gAudio": "561.1",
    "Latent CLAP": "5.22",
}


def count(build):
    with torch.device("meta"):
        return parameters(build())


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes_construct(name):
    expected, build = COUNTS[name]
    assert count(build) == expected


@pytest.mark.parametrize("name", SAID)
def test_counts_are_those_that_were_published(name):
    digits = len(SAID[name].partition(".")[2])
    assert f"{COUNTS[name][0] / 1e6:.{digits}f}" == SAID[name]


# The profiles


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Makes the settings of `paper`, or of a profile on top of it."""
    folder = tmp_path_factory.mktemp("profiles")
    shutil.copytree(ROOT / "params", folder / "params")

    def settings(*more):
        shutil.copy(ROOT / "params.yaml", folder)
        for profile in ("paper", *more):
            profiles.apply(profile, params=folder / "params.yaml")
        return params.load(folder / "params.yaml")

    return settings


def parts(cfg):
    """What the settings describe, by name of a part: a function that builds it."""
    own, frames = cfg.foundation, cfg.corpus_of("foundation")
    latent = {"dim": own.clap.dim, "latent_channels": own.vae.latent_channels}
    bands = FRONT_ENDS[frames.rate].n_mels // 2 ** (len(own.vae.channels) - 1)
    autoencoder = {"channels": own.vae.channels, "layers": own.vae.layers, "groups": own.vae.groups}
    encoder = {"channels": own.vae.latent_channels, "bands": bands, "widths": tuple(cfg.latent_clap.widths)}
    reads, text = cfg.re_audioldm.pretrained, T5_CHANNELS if cfg.retrieval.tokens.text == "t5" else None
    audio = audiomae.PUBLISHED["dim"] if cfg.retrieval.tokens.audio == "audiomae" else None

    def retrieving():
        base = unet.new(reads, **latent, seed=0)
        return retrieval.of_settings(reads.retrieval, base, audio=audio, text=text, seed=0)

    return {
        "clap": lambda: ClapModel(clap.config(own.clap, own.clap.text.vocabulary)),
        "vae": lambda: vae.build(**autoencoder, latent_channels=own.vae.latent_channels, seed=0),
        "vocoder": lambda: new_generator(own.vocoder, FRONT_ENDS[frames.rate], 0),
        **{name: lambda name=name: ldm.new_unet(cfg, name, 0) for name in own.ldms},
        "latent_clap": lambda: latent_clap.LatentClap(latent_clap.LatentClapConfig(**encoder, dim=own.clap.dim)),
        "re_audioldm": retrieving,
        "src_gaudio": lambda: rate_stage.new_unet(cfg),
    }


def test_the_paper_profile_has_the_published_sizes(paper, monkeypatch):
    cfg = paper()
    monkeypatch.setattr(rate_stage, "channels", lambda corpus: T5_CHANNELS)  # else those of tokens already made
    expected = {
        "clap": "CLAP, HTSAT-base",
        "vae": "VAE of AudioLDM",
        "vocoder": "HiFi-GAN of AudioLDM",
        "ldm": "U-Net of AudioLDM-M",
        "latent_clap": "Latent CLAP",
        "re_audioldm": "Re-AudioLDM-S",
        "src_gaudio": "SRC-gAudio",
    }
    found = {name: count(build) for name, build in parts(cfg).items()}
    assert found == {name: COUNTS[what][0] for name, what in expected.items()}
    assert cfg.retrieval.tokens.text == "t5" and cfg.src_gaudio.pretrained.place == "time"


def test_the_vocoders_of_the_paper_profile_have_the_published_sizes(paper):
    cfg = paper()
    for name, kilohertz in (("24khz", 24), ("32khz", 32), ("48khz", 48)):
        section = rate_vocoder.section(name, cfg)
        assert section.rate == 1000 * kilohertz
        made = count(lambda section=section: new_generator(section, FRONT_ENDS[section.rate], 0))
        assert made == COUNTS[f"HiFi-GAN, {kilohertz} kHz"][0]


def test_text_foley_has_audioldm_s_and_l_with_their_clap(paper):
    made = parts(paper("text_foley"))
    expected = {"clap": "CLAP, HTSAT-tiny", "ldm": "U-Net of AudioLDM-S", "ldm_large": "U-Net of AudioLDM-L"}
    assert {name: count(made[name]) for name in expected} == {name: COUNTS[what][0] for name, what in expected.items()}


def test_the_evaluators_of_the_paper_profile_are_known(paper):
    kinds = {entry.kind for entry in paper().evaluators.values()}
    assert kinds <= {*evaluators.PUBLISHED, evaluators.LAION} and {"cnn14", "fad_dcase", evaluators.LAION} <= kinds


# A step


@pytest.mark.slow
def test_audioldm_s_takes_a_step_of_training(paper, tmp_path):
    """185 M parameters, 4 GB with gradients, moments and average; latents of 16 by 16, so that even the lowest level has
    several cells to attend to."""
    cfg = paper("text_foley")
    settings = cfg.finetune.train.changed(steps=1, batch_size=2, warmup=0)
    model = ldm.new_unet(cfg, "ldm", 0)
    assert parameters(model) == COUNTS["U-Net of AudioLDM-S"][0]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    embeddings = torch.nn.functional.normalize(noise(2, 512), dim=1)
    data = Latents(np.asarray(noise(2, 16, 16, 16, seed=1)), {"embedding": np.asarray(embeddings)}, 1.0)
    loss = DiffusionLoss(ldm.alphas_bar(cfg), Condition(embedding=embeddings[:1]), 1.0, cfg.finetune.condition_dropout)
    history = ldm.fit_unet(model, data, loss, settings, Job(0, tmp_path / "step", "cpu"))
    (row,) = history.to_dict("records")
    assert row["step"] == 1 and 0.1 < row["ddpm"] < 10 and 0 < row["grad_norm"] < np.inf
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not still and all(value.isfinite().all() for value in model.parameters())
