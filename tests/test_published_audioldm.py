"""A whole published AudioLDM file as a pipeline folder; its noise schedule, sampler and average as we compute them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AudioLDMPipeline
from diffusers.training_utils import EMAModel
from golden_cases import check, tensor

from foleylib.diffusion import process
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import clap
from foleylib.networks.pipeline import Pipeline, scheduler
from foleylib.networks.published import audioldm, original
from foleylib.runtime import parameters
from foleylib.sampling import sampler


def layout(golden, name):
    """The keys of a published file with empty tensors."""
    rows = golden(f"08_ckpt_layout_{name}").rows
    return {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in rows}


@pytest.mark.parametrize("name, ema", [("audioldm-s-full", False), *((name, None) for name in audioldm.PUBLISHED)])
def test_published_layouts_convert_whole(golden, name, ema):
    with torch.device("meta"):
        state = layout(golden, name)
        state["cond_stage_model.model.text_branch.embeddings.position_ids"] = torch.empty(1, 514)
        parts = original.split(state)
        nets = audioldm.models(parts, audioldm.PUBLISHED[name], ema=ema)
    assert sum(map(len, parts.values())) == len(state)
    for part in ("unet", "vae", "vocoder"):
        expected = sum(value.numel() for value in parts[part].values())
        assert parameters(nets[part]) == expected


def test_whole_file_faults_are_named(golden):
    with torch.device("meta"):
        state = layout(golden, "audioldm-s-full")
        sizes = audioldm.PUBLISHED["audioldm-s-full"]
        with pytest.raises(ValueError, match="unexpected keys: first_stage.loss, other; name them in ignore"):
            original.split(state | {"first_stage.loss": torch.zeros(1), "other": torch.zeros(1)})
        extra = original.split(state | {"other.x": torch.zeros(1)}, ignore=("other.",))
        assert sum(map(len, extra.values())) == len(state)
        with pytest.raises(ValueError, match="missing: first_stage_model.vocoder., scale_factor;"):
            original.split({k: v for k, v in state.items() if "vocoder" not in k and k != "scale_factor"})
        parts = original.split(state)
        parts["ema"].pop("diffusion_modelout2bias")
        with pytest.raises(ValueError, match="missing .'diffusion_modelout2bias'"):
            audioldm.models(parts, sizes)
        with pytest.raises(ValueError, match="convert with ema=False"):
            audioldm.models({**parts, "ema": {}}, sizes, ema=True)


def test_miniature_file_becomes_a_pipeline(miniature, tmp_path):
    folder = tmp_path / "pipeline"
    parts = audioldm.convert_audioldm(
        miniature.folder / "small.ckpt",
        folder,
        name=miniature.sizes,
        tokenizer=miniature.folder / "tokenizer",
    )
    assert parts.scale == 0.25 and parts.notes == {"unet": ["the average of its training"]}
    pipeline = AudioLDMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae.config.scaling_factor == 0.25
    assert torch.equal(pipeline.unet.conv_in.weight, 0.9 * miniature.unet["input_blocks.0.0.weight"])
    whole = clap.load(folder / "clap")
    tokens = whole.tokenizer(["rain"], return_tensors="pt")
    with torch.no_grad():
        text = pipeline.text_encoder(**tokens).text_embeds
    torch.testing.assert_close(torch.nn.functional.normalize(text), whole.embed_text(["rain"]), rtol=0, atol=1e-6)
    wave = pipeline("rain", audio_length_in_s=0.64, num_inference_steps=2, guidance_scale=2.5).audios
    assert wave.shape == (1, 10240) and np.isfinite(wave).all()


def test_conversion_writes_nothing_where_a_part_does_not_fit(miniature, tmp_path):
    convert, sizes, tokenizer = audioldm.convert_audioldm, miniature.sizes, miniature.folder / "tokenizer"
    with pytest.raises(ValueError, match="audioldm-s-full"):
        convert(miniature.folder / "small.ckpt", tmp_path / "out", name="audioldm-xl", tokenizer=tokenizer)
    with pytest.raises(ValueError, match="the U-Net does not fit"):
        convert(miniature.folder / "small.ckpt", tmp_path / "out", name="audioldm-s-full", tokenizer=tokenizer)
    torch.save(
        {"state_dict": miniature.file | {"alphas_cumprod": process.schedule(beta_end=0.02)}}, tmp_path / "a.ckpt"
    )
    with pytest.raises(ValueError, match="alphas_cumprod"):
        convert(tmp_path / "a.ckpt", tmp_path / "out", name=sizes, tokenizer=tokenizer)
    clap.train_tokenizer(["a"], 270, 77).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="tokens, the model has"):
        convert(miniature.folder / "small.ckpt", tmp_path / "out", name=sizes, tokenizer=tmp_path / "other")
    assert not (tmp_path / "out").exists()


def converted(miniature, monkeypatch, *options, file="small.ckpt"):
    """Exit code of the command on the miniature file, whose sizes stand under a published name."""
    monkeypatch.setitem(audioldm.PUBLISHED, "audioldm-s-full", miniature.sizes)
    own = ["--tokenizer", str(miniature.folder / "tokenizer")]
    return audioldm.main([str(miniature.folder / file), *map(str, options), *own])


def test_the_command_tells_what_it_made(miniature, tmp_path, monkeypatch, capsys):
    assert converted(miniature, monkeypatch, tmp_path / "out", "--name", "audioldm-s-full", "--last") == 0
    unet, vae, vocoder, whole, written = capsys.readouterr().out.splitlines()
    assert unet.split() == ["unet", "11.66", "M", "parameters;", "the", "last", "weights,", "without", "average"]
    assert vae.split() == ["vae", "3.49", "M", "parameters;", "latent", "scale", "0.25000"]
    assert vocoder.startswith("vocoder") and vocoder.endswith("M parameters; 16000 Hz")
    assert whole.startswith("clap") and whole.endswith(f"{miniature.tokens} tokens, 48000 Hz")
    assert written == f"written to {tmp_path / 'out'}" and (tmp_path / "out" / "model_index.json").is_file()
    before = sorted(tmp_path.rglob("*"))
    assert converted(miniature, monkeypatch, tmp_path / "out", "--name", "audioldm-s-full") == 1
    assert "there is something already" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "file", "said"),
    [
        ([], "small.ckpt", "small.ckpt: the U-Net and CLAP have the widths of no published AudioLDM"),
        (["--name", "audioldm-m-full"], "small.ckpt", "small.ckpt: the U-Net does not fit its config: "),
        ([], "none.ckpt", "none.ckpt: no such file"),
        (["--tokenizer", "roberta-base"], "small.ckpt", "tokenizer_revision is empty: pin a commit of roberta-base"),
    ],
)
def test_the_command_fails_in_one_line(miniature, tmp_path, monkeypatch, capsys, hub, options, file, said):
    own = ["--tokenizer", str(miniature.folder / "tokenizer")]
    code = audioldm.main([str(miniature.folder / file), str(tmp_path / "out"), *own, *options])
    error = capsys.readouterr().err
    assert code == 1 and said in error and error.count("\n") == 1 and len(error) < 1000
    assert not (tmp_path / "out").exists()


def test_sizes_are_told_by_the_widths(golden):
    for name in ("audioldm-s-full", "audioldm-m-full", "audioldm-l-full"):
        with torch.device("meta"):
            parts = original.split(layout(golden, name))
        assert audioldm.sizes_of(parts) is audioldm.PUBLISHED[name]
    assert audioldm.PUBLISHED["audioldm-m-text-ft"] is audioldm.PUBLISHED["audioldm-m-full"]


def test_weights_that_are_no_numbers_are_refused(miniature, tmp_path):
    broken = miniature.file | {"first_stage_model.quant_conv.bias": torch.full((16,), torch.nan)}
    torch.save({"state_dict": broken}, tmp_path / "nan.ckpt")
    with pytest.raises(ValueError, match="nan.ckpt, vae: 'quant_conv.bias' holds NaN"):
        audioldm.load(tmp_path / "nan.ckpt", miniature.sizes, miniature.folder / "tokenizer")


@pytest.mark.parametrize("positions, longest", [(514, 77), (18, 16)])
def test_tokenizer_cuts_texts_at_the_positions_of_the_model(miniature, positions, longest):
    text = SimpleNamespace(vocab_size=miniature.sizes.clap.text_config.vocab_size, max_position_embeddings=positions)
    model = SimpleNamespace(config=SimpleNamespace(text_config=text))
    assert audioldm.read_tokenizer(miniature.folder / "tokenizer", model).model_max_length == longest


def test_golden_schedule(golden):
    case, ours = golden("11_schedule"), process.schedule()
    ddim = scheduler(audioldm.NOISE, "ddim")
    check(case, betas=ddim.betas, alphas_cumprod=ours, sqrt_one_minus_alphas_cumprod=(1 - ours).sqrt())
    check(case, alphas_cumprod=ddim.alphas_cumprod)


def test_golden_forward_process_and_loss(golden, monkeypatch):
    case = golden("11_forward")
    z_0, eps, n = (tensor(case.inputs[name]) for name in ("x0", "noise", "t"))
    exact = torch.cat([z_0, torch.full_like(z_0, -100.0)], dim=1)  # moments of a posterior without spread

    def half_tanh(z_n, n, tokens, class_labels):
        return SimpleNamespace(sample=0.5 * torch.tanh(z_n))

    def loss(part):  # the loss draws its own noise and steps: hand it those of the case
        monkeypatch.setattr(torch, "randn", lambda *size, **options: eps[part])
        monkeypatch.setattr(torch, "randint", lambda *size, **options: n[part])
        terms = DiffusionLoss(process.schedule(), Condition(embedding=torch.zeros(1, 1)), scale=1.0)
        batch = {"moments": exact[part], "embedding": torch.zeros(len(exact[part]), 1)}
        return terms(half_tanh, batch, torch.Generator())["ddpm"]

    check(case, x_t=process.add_noise(z_0, eps, n, process.schedule()), loss=loss(slice(None))[None])
    check(case, loss_per_item=torch.stack([loss(slice(i, i + 1)) for i in range(len(n))]))
    check(case, v=scheduler(audioldm.NOISE, "ddim").get_velocity(z_0, eps, n))


class ToyUnet:
    """The noise estimate of the golden case: tanh(0.3 z + c + n / 1000), c in place of the CLAP embedding."""

    device = torch.device("cpu")

    def __init__(self):
        self.steps = []

    def __call__(self, z, n, tokens, class_labels):
        self.steps.append(int(n))
        return SimpleNamespace(sample=torch.tanh(0.3 * z + class_labels[:, :, None, None] + n / 1000))


@pytest.mark.parametrize("eta", [0, 1])
def test_golden_ddim(golden, monkeypatch, eta):
    case, unet = golden("11_ddim"), ToyUnet()
    settings, pipeline = case.manifest["config"], Pipeline(unet, None, None, audioldm.NOISE)
    draws = iter([case.inputs["x_T"], *case.inputs["noise"]])  # the sampler draws its own: hand it those of the case
    monkeypatch.setattr(sampler, "_noise", lambda *_: tensor(next(draws)))
    options = sampler.SamplerOptions(steps=settings["steps"], guidance=settings["guidance_scale"], eta=eta)
    condition, unconditional = (Condition(embedding=torch.tensor([[c]])) for c in (0.2, 0.0))
    z_0 = sampler.sample(pipeline, condition, unconditional, (8, 8, 8), seeds=[0], options=options, show=False)
    assert unet.steps == settings["timesteps"]
    check(case, **{f"eta{eta}": z_0})


def test_golden_ema(golden):
    case = golden("11_ema")
    weight = torch.nn.Parameter(tensor(case.inputs["w0"]))
    average = EMAModel([weight], decay=case.manifest["config"]["decay"], update_after_step=-1)  # by default one late
    shadows = []
    for increment in tensor(case.inputs["increments"]):
        weight.data += increment
        average.step([weight])
        shadows.append(average.shadow_params[0].clone())
    check(case, shadow=torch.stack(shadows))
