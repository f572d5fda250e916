"""The stage published: parts from the Hub, from folders and from original files, each check fed with what must fail it."""

import json
import os
import shutil

import pytest
import torch
from loopback_hub import commit_of, point_client_at
from networks import module_sha256
from safetensors.torch import load_file, save_file
from test_foundation import with_foundation

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.datasets.features import encode_moments, sample_latents
from foleylib.networks import clap as claps
from foleylib.networks import pipeline as pipelines
from foleylib.networks import unet as unets
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.networks.published import audioldm, weights, whole_clap
from foleylib.networks.published.original import split
from foleylib.params import profiles
from foleylib.params import settings as params
from foleylib.runtime import parameters, step_generator, weights_sha256
from foleylib.stages import bundle, foundation, pretrain, published, vae

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
CARD = "---\nlicense: cc-by-nc-sa-4.0\n---\n"


@pytest.fixture
def folder(tiny_models, tmp_path, monkeypatch):
    """A pipeline's folder in diffusers' format with the whole CLAP beside it, and a project of its own."""
    for name in ("PUBLISHED", "FOUNDATION"):
        monkeypatch.setattr(paths, name, tmp_path / "models" / name.lower())
    out = shutil.copytree(tiny_models / "ldm", tmp_path / "pipeline")
    shutil.copytree(tiny_models / "clap", out / "clap")
    (out / "README.md").write_text(CARD)
    return out


@pytest.fixture
def cfg(tiny, folder):
    """Settings of that folder, and of no other size."""
    vocoder = tiny.foundation.vocoder.changed(upsampling=None)  # as that of `tiny_parts`
    return with_foundation(tiny, corpus="foley", source="checkpoint", checkpoint=str(folder), sizes={}, vocoder=vocoder)


def config(folder, part, **values):
    """Change a part's config; a value None takes the key out."""
    name = {"scheduler": "scheduler_config.json"}.get(part, "config.json")
    content = json.loads((folder / part / name).read_text()) | values
    (folder / part / name).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def nested(folder, part, section, **values):
    """Change a section of a part's config."""
    file = folder / part / "config.json"
    content = json.loads(file.read_text())
    content[section] |= values
    file.write_text(json.dumps(content))


def refused(cfg, sentence):
    """The one sentence with which the stage stops; nothing is left for the stages after it."""
    with pytest.raises(ValueError, match=sentence) as error:
        published.make(cfg)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert not (paths.PUBLISHED / "published.json").exists()
    return str(error.value)


# Where the parts come from


@pytest.mark.parametrize("source", ["bundled", "scratch", "finetuned"])
def test_another_source_needs_nothing(cfg, source):
    content = published.make(with_foundation(cfg, source=source))
    assert content == {"source": source, "parts": {}} and published.table(content).round(2).empty
    assert [p.name for p in paths.PUBLISHED.iterdir()] == ["published.json"]
    with pytest.raises(ValueError, match="vae is missing, or of another foundation.source; run the published stage"):
        bundle.take("vae", cfg, paths.FOUNDATION / "vae")


def test_a_folder_is_taken_whole(cfg, folder, tiny_parts):
    content = published.make(cfg)
    assert json.loads((paths.PUBLISHED / "published.json").read_text()) == content
    assert module_sha256(unets.load(paths.PUBLISHED / "ldm")) == module_sha256(tiny_parts.unet)
    for name, load in {"vae": vaes.load, "vocoder": vocoders.load}.items():
        assert module_sha256(load(paths.PUBLISHED / name)) == module_sha256(getattr(tiny_parts, name))
    own = claps.load(paths.PUBLISHED / "clap")
    assert torch.equal(own.embed_text(["rain"]), tiny_parts.clap.embed_text(["rain"]))
    assert list(content["parts"]) == ["clap", "vae", "vocoder", "ldm"]
    entry = content["parts"]["vae"]
    assert entry["from"] == str(folder) and entry["revision"] is None and entry["licence"] == "cc-by-nc-sa-4.0"
    assert entry["sha256"] == weights_sha256(folder / "vae") and entry["latent_scale"] == 0.7
    assert entry["notes"] == ["latent scale 0.70000"] and content["parts"]["ldm"]["notes"] == []
    table = published.table(content).round(2)
    assert list(table.index) == list(content["parts"]) and (table["M parameters"] > 0).all()
    assert table.loc["vae", "notes"] == "latent scale 0.70000"


def test_the_stages_after_it_take_their_parts(cfg, folder, tiny_models):
    published.make(cfg)
    for part in ("clap", "vae", "vocoder"):
        assert foundation.make(part, cfg, None).empty
    assert pretrain.make("ldm", cfg).empty
    pipeline = pipelines.load(paths.FOUNDATION / "ldm")
    assert module_sha256(pipeline.unet) == module_sha256(unets.load(tiny_models / "ldm")) and pipeline.scale == 0.7
    assert bundle.provenance_of(paths.FOUNDATION / "vae") == {
        "source": "checkpoint",
        **json.loads((paths.PUBLISHED / "published.json").read_text())["parts"]["vae"],
    }


@pytest.fixture
def on_the_hub(hub, folder, cfg):
    """Settings of the same pipeline and CLAP as two repositories of the Hub, both pinned."""
    shutil.move(folder / "clap", hub.root / "laion" / "clap-small")
    shutil.move(folder, hub.root / "cvssp" / "audioldm-m-full")
    (hub.root / "laion" / "clap-small" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return with_foundation(
        cfg,
        source="hub",
        checkpoint="cvssp/audioldm-m-full",
        revision=commit_of("cvssp/audioldm-m-full"),
        clap_checkpoint="laion/clap-small",
        clap_revision=commit_of("laion/clap-small"),
    )


def test_repositories_are_taken_at_their_commits(on_the_hub, hub, tiny_parts, tmp_path, monkeypatch):
    content = published.make(on_the_hub)
    told = {part: (entry["from"], entry["revision"], entry["licence"]) for part, entry in content["parts"].items()}
    model = ("cvssp/audioldm-m-full", on_the_hub.foundation.revision, "cc-by-nc-sa-4.0")
    whole = ("laion/clap-small", on_the_hub.foundation.clap_revision, "apache-2.0")
    assert told == {"clap": whole, "vae": model, "vocoder": model, "ldm": model}
    assert content["parts"]["vae"]["notes"] == ["latent scale 0.70000, published with 0.91383"]
    assert module_sha256(unets.load(paths.PUBLISHED / "ldm")) == module_sha256(tiny_parts.unet)
    point_client_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    assert published.make(on_the_hub) == content  # from the cache


def test_what_is_not_pinned_or_not_there_is_told(on_the_hub, monkeypatch, tmp_path):
    pin = commit_of("cvssp/audioldm-m-full")
    for revision in (None, "main"):
        refused(with_foundation(on_the_hub, revision=revision), f"foundation.revision is .*today's is {pin}$")
    said = refused(
        with_foundation(on_the_hub, clap_revision=None), "foundation.clap_revision is empty: pin a commit of"
    )
    assert said.startswith("foundation.clap_checkpoint: ") and said.endswith(commit_of("laion/clap-small"))
    refused(
        with_foundation(on_the_hub, clap_checkpoint="laion/none"),
        "foundation.clap_checkpoint: .*no repository laion/no",
    )
    refused(
        with_foundation(on_the_hub, clap_checkpoint=None), "text half of CLAP alone.*set foundation.clap_checkpoint"
    )
    point_client_at("http://127.0.0.1:9", tmp_path / "empty", monkeypatch)
    said = refused(on_the_hub, "cvssp/audioldm-m-full at .* is not, or not whole, in the cache .*cannot be reached")
    assert said.endswith("set foundation.source to 'checkpoint' and foundation.checkpoint to it")
    refused(
        with_foundation(on_the_hub, source="checkpoint", checkpoint="data/raw/no.ckpt"), "data/raw/no.ckpt is no folder"
    )


# What is put right


def test_heads_of_diffusers_conversion_are_put_right(cfg, folder, tiny_parts):
    config(folder, "unet", attention_head_dim=8)
    content = published.make(cfg)
    heads = tiny_parts.unet.config.attention_head_dim
    assert unets.load(paths.PUBLISHED / "ldm").config.attention_head_dim == heads
    note = f"its config had 8 attention heads at every level, diffusers' default: put right to {heads}"
    assert content["parts"]["ldm"]["notes"] == [note]
    z, c = torch.randn(1, 8, 16, 16), torch.randn(1, 48)
    both = [
        model(z, 5, None, class_labels=c).sample for model in (unets.load(paths.PUBLISHED / "ldm"), tiny_parts.unet)
    ]
    assert torch.equal(*both)
    config(folder, "unet", attention_head_dim=[1, 16, 16, 16])
    refused(cfg, "attention heads by level, .* by foundation.ldm.head_channels; set that")


def test_defaults_of_transformers_in_clap_are_put_right(cfg, folder, tiny_parts):
    nested(folder, "clap", "text_config", layer_norm_eps=1e-12)
    config(folder, "text_encoder", layer_norm_eps=1e-12)
    file = folder / "clap" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"frequency_min": 0}))
    notes = published.make(cfg)["parts"]["clap"]["notes"]
    assert notes == [
        "its config had a text layer_norm_eps of 1e-12: put right to RoBERTa's 1e-05",
        "its front end began at 0 Hz, transformers' default: put right to 50 Hz",
    ]
    own, waves = claps.load(paths.PUBLISHED / "clap"), torch.randn(2, 16000)
    assert torch.equal(own.embed_text(["rain"]), tiny_parts.clap.embed_text(["rain"]))
    assert torch.equal(own.embed_audio(waves), tiny_parts.clap.embed_audio(waves))
    assert own.model.config.text_config.layer_norm_eps == 1e-5


def test_files_of_older_versions_are_read(cfg, folder, tiny_parts):
    """PyTorch's files, other names in the VAE's attention, constants that were not stored."""
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = load_file(folder / VAE)
    for new, name in old.items():
        state = {key.replace(new, name) if ".attentions." in key else key: value for key, value in state.items()}
    assert any(".proj_attn." in key for key in state)
    torch.save(state, (folder / VAE).with_suffix(".bin"))
    (folder / VAE).unlink()
    for part in ("clap", "text_encoder"):
        file = folder / part / "model.safetensors"
        computed = (".position_ids", ".token_type_ids", ".relative_position_index")
        kept = {key: value for key, value in load_file(file).items() if not key.endswith(computed)}
        assert len(kept) < len(load_file(file))
        torch.save(kept, folder / part / "pytorch_model.bin")
        file.unlink()
    published.make(cfg)
    assert module_sha256(vaes.load(paths.PUBLISHED / "vae")) == module_sha256(tiny_parts.vae)
    own = claps.load(paths.PUBLISHED / "clap")
    assert module_sha256(own.model) == module_sha256(tiny_parts.clap.model)


# What is refused


@pytest.mark.parametrize(
    ("part", "values", "sentence"),
    [
        (
            "vae",
            {"scaling_factor": None},
            "vae/config.json: scaling_factor is missing, no AudioLDM's; write the model's own",
        ),
        ("vae", {"scaling_factor": 0.18215}, "scaling_factor is 0.18215, diffusers' default, no AudioLDM's"),
        ("unet", {"class_embeddings_concat": False}, "unet: damaged, or no UNet2DConditionModel"),
        ("unet", {"norm_num_groups": 2}, "unet: norm_num_groups is 2, foundation.ldm.groups 4; set that"),
        ("scheduler", {"beta_end": 0.02}, "beta_end is 0.02, foundation.ldm.noise.beta_end 0.0195"),
        ("scheduler", {"num_train_timesteps": 500}, "num_train_timesteps is 500, foundation.ldm.noise.steps 1000"),
        ("scheduler", {"beta_schedule": "linear"}, "beta_schedule is linear, AudioLDM's scaled_linear"),
        ("scheduler", {"prediction_type": "v_prediction"}, "prediction_type is v_prediction, AudioLDM's epsilon"),
        ("vocoder", {"sampling_rate": 48000}, "vocoder: a vocoder of 48000 Hz; the foundation's corpus has 16000"),
        ("vocoder", {"model_in_dim": 80}, "vocoder: damaged, or no SpeechT5HifiGan"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(cfg, folder, part, values, sentence):
    config(folder, part, **values)
    refused(cfg, sentence)


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        (
            "ldm",
            {"channels": [32, 32, 32, 64]},
            "unet: block_out_channels is .*, foundation.ldm.channels .32, 32, 32, 64",
        ),
        ("ldm", {"layers": 2}, "unet: layers_per_block is 1, foundation.ldm.layers 2"),
        ("vae", {"channels": [8, 8, 8]}, "vae: block_out_channels is .*, foundation.vae.channels .8, 8, 8"),
        ("vae", {"latent_channels": 4}, "unet: in_channels is 8, foundation.vae.latent_channels 4"),
        ("vocoder", {"channels": 256}, "vocoder: upsample_initial_channel is .*, foundation.vocoder.channels 256"),
        ("clap", {"dim": 64}, "clap: projection_dim is 48, foundation.clap.dim 64"),
    ],
)
def test_settings_that_are_another_models_are_named(cfg, section, values, sentence):
    refused(with_foundation(cfg, **{section: getattr(cfg.foundation, section).changed(**values)}), sentence)


def test_sizes_and_front_end_of_clap_must_be_those_of_the_settings(cfg):
    own = cfg.foundation.clap
    for half, values, sentence in (
        ("audio", {"depths": [1, 2]}, "clap: depths is .1, 1., foundation.clap.audio.depths .1, 2"),
        ("audio", {"fmax": 7000}, "clap: frequency_max is 8000.*, foundation.clap.audio.fmax 7000"),
        ("audio", {"seconds": 2.0}, "clap: nb_max_samples is .*, foundation.clap.audio.seconds 32000"),
        ("text", {"layers": 3}, "clap: num_hidden_layers is 1, foundation.clap.text.layers 3"),
    ):
        changed = own.changed(**{half: getattr(own, half).changed(**values).model_dump()})
        refused(with_foundation(cfg, clap=changed), sentence)


def test_a_clap_with_fusion_is_refused(cfg, folder):
    nested(folder, "clap", "audio_config", enable_fusion=True)
    refused(cfg, "clap: .*(fusion|weights are not those)")


def test_another_clap_than_the_models_is_refused(cfg, folder, tiny):
    shutil.rmtree(folder / "clap")
    other = claps.build(tiny.foundation.clap, ["a big dog barks twice, far away", "steady rain on a roof"], seed=7)
    other.save(folder.parent / "other")
    text = pipelines.text_encoder(claps.load(paths.FOUNDATION.parents[1] / "other").model)
    assert text.config.vocab_size != json.loads((folder / "text_encoder" / "config.json").read_text())["vocab_size"]
    wrong = with_foundation(cfg, clap_checkpoint=str(folder.parent / "other"))
    refused(wrong, "text_encoder: of another vocabulary or dimension than the CLAP; give the CLAP of this model")
    text.save_pretrained(folder / "text_encoder")
    published.make(wrong)
    stranger = claps.build(tiny.foundation.clap, ["a big dog barks twice, far away", "steady rain on a roof"], seed=8)
    pipelines.text_encoder(stranger.model).save_pretrained(folder / "text_encoder")
    refused(wrong, "embed a text with a cosine of .*, so that their spaces differ; set foundation.clap_checkpoint")


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        ("unet/config.json", "unet/config.json: no such file; the folder is not whole"),
        (UNET, "unet: no weights .* there; fetch them too"),
        ("scheduler/scheduler_config.json", "scheduler_config.json: no such file, but the noise schedule"),
        ("clap/preprocessor_config.json", "clap: preprocessor_config.json is missing, which has CLAP's front end"),
        ("clap/tokenizer*", "clap: .*(tokens, the model has|no tokenizer can be read)"),
    ],
)
def test_what_is_missing_in_a_folder_is_named(cfg, folder, absent, sentence):
    for file in list(folder.glob(absent)):
        file.unlink()
    refused(cfg, sentence)


def test_damaged_and_hostile_files_are_refused(cfg, folder):
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(whole[: len(whole) // 2])
    refused(cfg, "diffusion_pytorch_model.safetensors: damaged .*; fetch it again")
    (folder / UNET).write_bytes(whole)
    state = load_file(folder / UNET)
    save_file({k: v for k, v in state.items() if k != "conv_in.bias"}, folder / UNET)
    refused(cfg, "unet: its weights are not those of a UNet2DConditionModel: .*conv_in.bias")
    save_file(state | {"conv_in.bias": state["conv_in.bias"] * torch.nan}, folder / UNET)
    refused(cfg, "unet: 'conv_in.bias' holds NaN")
    (folder / UNET).unlink()
    torch.save({"state": Hostile(folder / "ran")}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(cfg, "diffusion_pytorch_model.bin: .*could run code")
    assert not (folder / "ran").exists()


class Hostile:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


# Sizes


def test_a_size_shares_the_parts_and_keeps_its_own_scale(cfg, folder):
    other = shutil.copytree(folder, folder.parent / "large")
    own = cfg.foundation.ldm
    size = {"channels": own.channels, "head_channels": own.head_channels, "checkpoint": str(other)}
    cfg = cfg.model_copy(update={"foundation": cfg.foundation.changed(sizes={"ldm_large": size})})
    config(other, "vae", scaling_factor=0.8)
    parts = published.make(cfg)["parts"]
    assert list(parts) == ["clap", "vae", "vocoder", "ldm", "ldm_large"] and parts["ldm_large"]["latent_scale"] == 0.8
    assert parts["ldm_large"]["notes"] == ["trained at a latent scale of 0.80000, not 0.70000"]
    for part in ("clap", "vae", "vocoder"):
        foundation.make(part, cfg, None)
    scales = {}
    for part in cfg.foundation.ldms:
        pretrain.make(part, cfg)
        scales[part] = pipelines.load(paths.FOUNDATION / part).scale
    assert scales == {"ldm": 0.7, "ldm_large": 0.8}
    state = load_file(other / VAE)
    save_file(state | {"quant_conv.bias": state["quant_conv.bias"] + 1}, other / VAE)
    refused(cfg, "foundation.sizes.ldm_large.checkpoint: its vae is not that of foundation.checkpoint, which all")
    shutil.rmtree(other)
    refused(cfg, "foundation.sizes.ldm_large.checkpoint: .*large is no folder and no file")


# The latent scale on our clips


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1.9, True), (2.1, False), (0.45, False)])
def test_latents_far_from_unit_variance_are_refused(cfg, folder, tiny_root, tiny_corpus, monkeypatch, factor, fits):
    monkeypatch.setattr(paths, "CLIPS", tiny_root / "data" / "clips")
    for name in ("PUBLISHED", "FOUNDATION"):
        monkeypatch.setattr(paths, name, folder.parent / "models" / name.lower())
    _, waves = foundation.held_out(cfg)
    model, log_mel = vaes.load(folder / "vae"), front_end(16000, "dataset")
    std = sample_latents(encode_moments(model, log_mel(waves)), 1.0, step_generator("cpu", cfg.seed)).detach().std()
    config(folder, "vae", scaling_factor=float(factor / std))
    published.make(cfg)
    if fits:
        assert vae.make(cfg).empty
    else:
        with pytest.raises(
            ValueError, match=rf"scaling_factor of .* standard deviation of {factor:.2f}\d*, not between 0.5"
        ):
            vae.make(cfg)


# Original files


@pytest.fixture
def original(miniature, tiny, folder):
    """Settings of the miniature .ckpt."""
    own = tiny.foundation.model_dump() | {"corpus": "foley", "source": "checkpoint", "sizes": {}}
    own |= {"checkpoint": str(miniature.folder / "small.ckpt"), "tokenizer": str(miniature.folder / "tokenizer")}
    own["clap"] |= {"dim": 512, "text": {"vocabulary": miniature.tokens, "hidden": 768, "layers": 2, "heads": 12}}
    own["clap"]["text"]["max_tokens"] = 512
    own["clap"]["audio"] |= {"spec_size": 256, "hop": 480, "fmax": 14000, "rate": 48000, "seconds": 10, "width": 32}
    own["clap"]["audio"] |= {"depths": [2, 2, 2, 2], "heads": [4, 8, 16, 32], "window": 8}
    own["vae"] |= {"channels": [32, 64, 128], "layers": 2, "groups": 32}
    own["vocoder"] |= {"channels": 64, "upsampling": None}
    own["ldm"] |= {"channels": [32, 64, 96, 160], "layers": 2, "head_channels": 16, "groups": 32}
    return tiny.model_copy(update={"foundation": type(tiny.foundation).model_validate(own)})


def test_an_original_file_is_taken_as_it_is(original, miniature):
    content = published.make(original)
    parts = content["parts"]
    unet = unets.load(paths.PUBLISHED / "ldm")
    assert torch.equal(unet.conv_in.weight, 0.9 * miniature.unet["input_blocks.0.0.weight"])
    assert unet.config.attention_head_dim == [2, 4, 6, 10]
    assert parts["ldm"]["notes"] == ["the average of its training"] and parts["clap"]["notes"] == []
    assert parts["vae"]["latent_scale"] == vaes.load(paths.PUBLISHED / "vae").config.scaling_factor == 0.25
    sha256 = weights_sha256(miniature.folder / "small.ckpt")
    assert {entry["sha256"] for entry in parts.values()} == {sha256} and parts["vae"]["licence"] is None
    own = claps.load(paths.PUBLISHED / "clap")
    assert own.rate == 48000 and own.embed_audio(torch.randn(1, 48000)).shape == (1, 512)


def test_laions_file_beside_a_folder_without_clap(original, miniature, folder, tmp_path):
    out, tokenizer = tmp_path / "converted", miniature.folder / "tokenizer"
    parts = audioldm.convert_audioldm(miniature.folder / "small.ckpt", out, name=miniature.sizes, tokenizer=tokenizer)
    shutil.rmtree(out / "clap")
    file = str(miniature.folder / "clap.pt")
    content = published.make(with_foundation(original, checkpoint=str(out), clap_checkpoint=file))
    assert content["parts"]["clap"]["from"] == file and content["parts"]["clap"]["notes"] == []
    own, waves = claps.load(paths.PUBLISHED / "clap"), torch.randn(1, 48000)
    assert torch.equal(own.embed_audio(waves), parts.clap.embed_audio(waves))
    assert torch.equal(own.embed_text(["rain"]), parts.clap.embed_text(["rain"]))


def test_an_original_file_on_the_hub(original, miniature, hub):
    files = {"haoheliu/small/small.ckpt": miniature.folder / "small.ckpt"}
    files |= {f"roberta-base/{file.name}": file for file in (miniature.folder / "tokenizer").iterdir()}
    for name, file in files.items():
        (hub.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, hub.root / name)
    (hub.root / "haoheliu/small/other.ckpt").write_bytes(b"not asked for")
    (hub.root / "roberta-base/model.safetensors").write_bytes(b"not asked for")
    pins = {"revision": commit_of("haoheliu/small"), "tokenizer_revision": commit_of("roberta-base")}
    own = {"source": "hub", "checkpoint": "haoheliu/small/small.ckpt", "tokenizer": "roberta-base"}
    parts = published.make(with_foundation(original, **own, **pins))["parts"]
    assert {(entry["from"], entry["revision"]) for entry in parts.values()} == {(own["checkpoint"], pins["revision"])}
    assert not any("model.safetensors" in path or "other.ckpt" in path for method, path, _ in hub.requests)
    refused(
        with_foundation(original, **own, revision=pins["revision"]),
        "foundation.tokenizer_revision is empty: pin a comm",
    )


def test_the_paper_profile_is_of_the_published_sizes(golden, tmp_path):
    """Its settings take the keys and shapes of audioldm-m-full, every one."""
    shutil.copytree(paths.ROOT / "params", tmp_path / "params")
    shutil.copy(paths.ROOT / "params.yaml", tmp_path)
    profiles.apply("paper", params=tmp_path / "params.yaml")
    foundation = params.load(tmp_path / "params.yaml").foundation
    assert whole_clap.front_notes(foundation.clap) == []
    with torch.device("meta"):
        rows = golden("08_ckpt_layout_audioldm-m-full").rows
        state = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in rows}
        nets = audioldm.models(split(state), published._sizes(foundation, foundation.ldm, 16000))
    counts = {name: round(parameters(net) / 1e6, 2) for name, net in nets.items()}
    assert counts == {"unet": 415.95, "vae": 55.38, "vocoder": 55.26, "clap": 193.91}


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        ("ldm", {"channels": [64, 64, 96, 160]}, "small.ckpt: the U-Net does not fit its config: .*size mismatch"),
        ("vae", {"channels": [32, 64, 64]}, "small.ckpt: the VAE does not fit its config"),
        ("vocoder", {"channels": 128}, "small.ckpt: the vocoder does not fit its config"),
        (
            "ldm",
            {"noise": {"steps": 1000, "beta_start": 0.0015, "beta_end": 0.02}},
            "small.ckpt: beta_end is 0.0195, founda",
        ),
        ("clap", {"dim": 256}, "small.ckpt: the (U-Net|CLAP) does not fit its config"),
    ],
)
def test_settings_that_are_not_the_files_are_named(original, section, values, sentence):
    refused(with_foundation(original, **{section: getattr(original.foundation, section).changed(**values)}), sentence)


def test_a_tokenizer_without_its_files_is_refused(original, miniature, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(with_foundation(original, tokenizer=str(tmp_path / "empty")), "tokenizer=.*empty: ")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "roberta"}')
    refused(with_foundation(original, tokenizer=str(tmp_path / "empty")), "tokenizer=.*empty: ")
    refused(
        with_foundation(original, tokenizer=None), "foundation.checkpoint is a file without tokenizer: name RoBERTa's"
    )
    refused(
        with_foundation(original, tokenizer="no/where"), "foundation.tokenizer: .*no/where is not there; .*_revision is"
    )


def test_a_front_end_that_is_not_laions_is_noted(original):
    section = original.foundation.clap.changed(audio=original.foundation.clap.audio.changed(fmin=0).model_dump())
    assert whole_clap.front_notes(original.foundation.clap) == []
    assert whole_clap.front_notes(section) == ["its front end is not LAION's: foundation.clap.audio.fmin"]
    ours, laion = whole_clap.front_end(original.foundation.clap), weights.clap_extractor()
    assert ours.to_dict() == laion.to_dict()


# The settings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "hub"}, "source 'hub' needs 'checkpoint': an id of the Hub"),
        ({"source": "checkpoint"}, "source 'checkpoint' needs 'checkpoint': a folder or .ckpt file"),
        ({"source": "hub", "checkpoint": "data/raw/audioldm"}, "'data/raw/audioldm' is no id of the Hub .owner/name"),
        (
            {"source": "checkpoint", "checkpoint": "a", "revision": "0" * 40},
            "revision is of source 'hub'; leave it empty",
        ),
        (
            {"source": "checkpoint", "checkpoint": "a.ckpt"},
            "'checkpoint' is a file without tokenizer: name RoBERTa's in",
        ),
        (
            {"source": "checkpoint", "checkpoint": "a", "clap_checkpoint": "a.pt"},
            "'clap_checkpoint' is a file without to",
        ),
        (
            {"source": "hub", "checkpoint": "a/b", "sizes": {"xl": {"channels": [48], "head_channels": 24}}},
            "source 'hub' needs 'sizes.xl.checkpoint'",
        ),
    ],
)
def test_settings_of_published_files(tiny, values, sentence):
    settings = tiny.model_dump()
    settings["foundation"] |= {"sizes": {}} | values
    settings["systems"].pop("large"), settings["runs"].pop("large")
    with pytest.raises(ValueError, match=sentence):
        params.parse(settings)


def test_a_revision_may_be_left_for_the_stage_to_tell(tiny):
    settings = tiny.model_dump()
    size = {"channels": [48], "head_channels": 12, "checkpoint": "cvssp/audioldm-l-full", "revision": "0" * 40}
    settings["foundation"] |= {"source": "hub", "checkpoint": "cvssp/audioldm-m-full", "sizes": {"ldm_large": size}}
    foundation = params.parse(settings).foundation
    assert foundation.published and foundation.revision is None
    assert foundation.section("ldm_large").channels == [48]
    settings["foundation"] |= {
        "checkpoint": "haoheliu/AudioLDM-S-Full/audioldm-s-full.ckpt",
        "tokenizer": "roberta-base",
    }
    assert params.parse(settings).foundation.published
