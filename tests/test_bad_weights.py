"""Folders of weights that are damaged, half copied or of something else: one sentence each, never a number."""

import json
import shutil

import pytest
import torch
from published_files import t5
from safetensors.torch import load_file, save_file

from foleylib import paths
from foleylib.commands.generate import load_model
from foleylib.networks import clap, detector, judge, latent_clap, rates, retrieval, tokens, unet, vae, vocoder
from foleylib.networks.published import evaluators, laion
from foleylib.networks.published.part import config_of
from foleylib.networks.published.reader import read
from foleylib.params.retrieval import Tokens

LOADERS = {
    "clap": clap.load,
    "vae": vae.load,
    "vocoder": vocoder.load,
    "judge": judge.load,
    "detector": detector.load,
    "latent_clap": latent_clap.load,
    "ldm": unet.load,
    "re_audioldm": rates.load,
    "src_gaudio/joint": rates.load,
}
WEIGHTS, CONFIG = "model.safetensors", "config.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
OWN = {
    "judge": "",
    "detector": "",
    "latent_clap": "",
    "re_audioldm": "retrieval/",
    "src_gaudio/joint": "rate/",
}


def absent(file):
    file.unlink()


def empty(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other(file):
    file.write_bytes(b"\xff\xfe\x00 no weights and no JSON" * 20)


def a_list(file):
    file.write_text("[1, 2]")


def a_number(file):
    file.write_text("3")


def no_keys(file):
    file.write_text("{}")


def nulls(file):
    file.write_text(json.dumps(dict.fromkeys(json.loads(file.read_text()))))


def without(key):
    def change(file):
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))

    return change


def with_value(key, value):
    def change(file):
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))

    return change


def weights(change):
    def changed(file):
        state = load_file(file)
        names = [name for name in state if name.startswith("encoder.")] or state  # the decoder of a T5 is not read
        change(state, max(names, key=lambda name: state[name].numel()))
        save_file(state, file, metadata={"format": "pt"})

    return changed


nan = weights(lambda state, name: state[name].view(-1)[:1].fill_(torch.nan))
inf = weights(lambda state, name: state[name].view(-1)[-1:].fill_(torch.inf))
missing = weights(lambda state, name: state.pop(name))
unknown = weights(lambda state, name: state.update({"made.up": torch.zeros(3)}))
reshaped = weights(lambda state, name: state.update({name: torch.zeros(2, 2)}))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def row(part, file, change, said, name):
    return pytest.param(part, file, change, said, id=f"{part}-{file}-{name}".replace("/", "-"))


def rows():
    """Every part with every fault of its configuration and weights."""
    for part, file in {
        "clap": CONFIG,
        "vae": CONFIG,
        "vocoder": CONFIG,
        "ldm": f"unet/{CONFIG}",
        **{part: inside + CONFIG for part, inside in OWN.items()},
    }.items():
        for change in (cut, other, a_list, a_number, no_keys, nulls):
            yield row(part, file, change, "", change.__name__)
    for part, inside in OWN.items():
        yield row(part, inside + CONFIG, with_value("made_up", 1), "'made_up' is missing or unknown", "unknown-key")
    for part, file in {
        "clap": WEIGHTS,
        "vocoder": WEIGHTS,
        "vae": "diffusion_pytorch_model.safetensors",
        "ldm": UNET,
        **{part: inside + WEIGHTS for part, inside in OWN.items()},
    }.items():
        for change in (absent, empty, cut, other):
            yield row(part, file, change, "", change.__name__)
        for change, name in {nan: "nan", inf: "inf"}.items():
            yield row(part, file, change, "holds NaN or Inf", name)
        for change, name in {missing: "missing", unknown: "unknown", reshaped: "reshaped"}.items():
            yield row(part, file, change, "weight" if change is missing else "", name)


@pytest.mark.parametrize(
    ("part", "file", "change", "said"),
    [
        *rows(),
        row("clap", "tokenizer.json", absent, "no such file", "absent"),
        row("clap", "tokenizer.json", cut, "no JSON", "cut"),
        row("clap", "tokenizer.json", a_list, "holds a list", "list"),
        row("clap", "tokenizer.json", no_keys, "damaged or incomplete", "no-keys"),
        row("clap", "tokenizer.json", with_value("made_up", 1), "damaged or incomplete", "unknown-key"),
        row("clap", "tokenizer_config.json", absent, "no such file", "absent"),
        row("clap", "tokenizer_config.json", cut, "no JSON", "cut"),
        row("clap", "tokenizer_config.json", without("model_max_length"), "'model_max_length'", "no-length"),
        row("clap", "tokenizer_config.json", with_value("model_max_length", 512), "is 512", "too-long"),
        row("clap", "preprocessor_config.json", absent, "no such file", "absent"),
        row("clap", "preprocessor_config.json", other, "no JSON", "other"),
        row("clap", "preprocessor_config.json", a_number, "holds a int", "number"),
        row("clap", "preprocessor_config.json", without("sampling_rate"), "'sampling_rate' is missing", "no-rate"),
        row("clap", "preprocessor_config.json", with_value("hop_length", None), "'hop_length' is missing", "no-hop"),
        row("clap", "preprocessor_config.json", with_value("frequency_max", float("nan")), "no finite", "nan"),
        row("vae", CONFIG, without("scaling_factor"), "'scaling_factor' is missing", "no-scale"),
        row("vae", CONFIG, with_value("scaling_factor", float("inf")), "'scaling_factor' is inf", "infinite-scale"),
        row("vocoder", CONFIG, without("sampling_rate"), "'sampling_rate' is missing", "no-rate"),
        row("vocoder", CONFIG, without("normalize_before"), "'normalize_before' is missing", "no-normalize"),
        row("latent_clap", CONFIG, without("scale"), "'scale' is missing or unknown", "no-scale"),
    ],
)
def test_a_damaged_part_is_refused(part, file, change, said, tmp_path):
    folder = shutil.copytree(paths.BUNDLED / part, tmp_path / "part")
    change(folder / file)
    before = contents(folder)
    with pytest.raises(ValueError) as caught:
        LOADERS[part](folder)
    sentence = str(caught.value)
    assert type(caught.value) is ValueError and str(folder) in sentence and said in sentence
    assert ";" in sentence and "\n" not in sentence and len(sentence) < 900
    assert contents(folder) == before


def gone(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        pytest.param("model_index.json", absent, "model_index.json is missing", id="no-index"),
        pytest.param("model_index.json", cut, "model_index.json: no JSON", id="index-cut"),
        pytest.param("model_index.json", a_list, "model_index.json: holds a list", id="index-list"),
        pytest.param("model_index.json", without("vae"), "its vae is missing", id="index-without-vae"),
        pytest.param("unet", gone, "its unet is missing", id="no-unet"),
        pytest.param("vae", gone, "its vae is missing", id="no-vae"),
        pytest.param("vocoder", gone, "its vocoder is missing", id="no-vocoder"),
        pytest.param("scheduler", gone, "its scheduler is missing", id="no-scheduler"),
        pytest.param("text_encoder", gone, "its text_encoder is missing", id="no-text-encoder"),
        pytest.param("tokenizer", gone, "its tokenizer is missing", id="no-tokenizer"),
        pytest.param("tokenizer/tokenizer.json", absent, "tokenizer.json: no such file", id="no-tokens"),
        pytest.param("tokenizer/tokenizer_config.json", cut, "tokenizer_config.json: no JSON", id="tokens-cut"),
        pytest.param("scheduler/scheduler_config.json", absent, "no such file", id="no-schedule"),
        pytest.param("scheduler/scheduler_config.json", cut, "no JSON", id="schedule-cut"),
        pytest.param("scheduler/scheduler_config.json", no_keys, "is missing", id="schedule-empty"),
        pytest.param(
            "scheduler/scheduler_config.json",
            with_value("beta_schedule", "linear"),
            "of the kind",
            id="linear-schedule",
        ),
        pytest.param(
            "scheduler/scheduler_config.json",
            with_value("beta_end", float("nan")),
            "'beta_end' is nan",
            id="nan-schedule",
        ),
        pytest.param(
            "scheduler/scheduler_config.json", with_value("num_train_timesteps", 0), "no schedule", id="no-steps"
        ),
        pytest.param("text_encoder/model.safetensors", missing, "its weights are not", id="text-weight-missing"),
        pytest.param("text_encoder/model.safetensors", nan, "holds NaN or Inf", id="text-weight-nan"),
        pytest.param("text_encoder/model.safetensors", cut, "damaged or incomplete", id="text-weights-cut"),
        pytest.param("text_encoder/config.json", cut, "no JSON", id="text-config-cut"),
        pytest.param("vae/diffusion_pytorch_model.safetensors", missing, "its weights", id="vae-weight-missing"),
        pytest.param("vae/diffusion_pytorch_model.safetensors", nan, "NaN or Inf", id="vae-weight-nan"),
        pytest.param("vocoder/model.safetensors", missing, "its weights", id="vocoder-weight-missing"),
        pytest.param("vocoder/model.safetensors", nan, "NaN or Inf", id="vocoder-weight-nan"),
        pytest.param(UNET, unknown, "its weights", id="unet-weight-unknown"),
        pytest.param(UNET, inf, "NaN or Inf", id="unet-weight-inf"),
    ],
)
def test_a_half_copied_pipeline_makes_no_sound(file, change, said, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models / "ldm", tmp_path / "copied")
    change(folder / file)
    with pytest.raises(ValueError) as caught:
        load_model(folder, "cpu")
    assert str(folder) in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize("change", [cut, other, a_list, a_number])
def test_a_published_configuration_is_named(change, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models / "vae", tmp_path / "vae")
    change(folder / CONFIG)
    with pytest.raises(ValueError, match=r"config\.json: .*fetch it again"):
        config_of(folder)


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.safetensors"])
@pytest.mark.parametrize("change", [empty, cut, other])
def test_a_published_file_is_named(name, change, tmp_path):
    file = tmp_path / name
    state = {"weight": torch.ones(400)}
    save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
    change(file)
    with pytest.raises(ValueError, match=name):
        read(file)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_published_evaluator_that_is_not_finite_is_refused(value, tmp_path):
    network, config = evaluators.PUBLISHED["cnn10"]
    state = network(config).state_dict()
    state["fc1.bias"][3] = value
    torch.save({"model": state}, tmp_path / "cnn10.pth")
    with pytest.raises(ValueError, match=r"cnn10\.pth: 'fc1.bias' holds NaN or Inf; fetch the weights again"):
        evaluators.load_published("cnn10", tmp_path / "cnn10.pth", sha256=None, pinned=False)
    torch.save({"state_dict": {"text_branch.a": torch.tensor([0, value])}}, tmp_path / "clap.pt")
    with pytest.raises(ValueError, match=r"clap\.pt: 'text_branch.a' holds NaN or Inf; fetch the weights again"):
        laion.load(tmp_path / "clap.pt", tokenizer=tmp_path)


def test_a_file_that_is_no_audiomae_is_named(tmp_path):
    torch.save({"model": {"fc1.weight": torch.ones(3, 3)}}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=r"mae\.pth: .*give AudioMAE's own checkpoint"):
        tokens.of_audio(Tokens(audio="audiomae", audiomae=str(tmp_path / "mae.pth")), None)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        pytest.param("config.json", cut, "config.json: no JSON", id="config-cut"),
        pytest.param("config.json", a_list, "config.json: holds a list", id="config-list"),
        pytest.param("model.safetensors", cut, "damaged or incomplete", id="cut"),
        pytest.param("model.safetensors", nan, "holds NaN or Inf", id="nan"),
        pytest.param("model.safetensors", reshaped, "", id="reshaped"),
        pytest.param("tokenizer.json", cut, "tokenizer of the same T5", id="tokenizer-cut"),
        pytest.param("tokenizer.json", a_number, "tokenizer of the same T5", id="tokenizer-number"),
        pytest.param("tokenizer_config.json", cut, "tokenizer of the same T5", id="tokenizer-config-cut"),
    ],
)
def test_a_damaged_t5_is_refused(file, change, said, tmp_path):
    folder = t5(tmp_path / "t5", ["<pad>", "</s>", "<unk>", "rain", "dog"])
    change(folder / file)
    with pytest.raises(ValueError) as caught:
        tokens.t5(folder, 4)
    assert type(caught.value) is ValueError and str(folder) in str(caught.value) and said in str(caught.value)


def short_training(scratch):
    """Three steps of a small training, with a checkpoint after each."""
    from foleylib.params.base import Train
    from foleylib.train import Job, Trainable, fit

    values = {"steps": 3, "batch_size": 2, "lr": 0.1, "validate_every": 1, "checkpoint_every": 1}
    known = {"accumulate": 1, "betas": (0.9, 0.999), "weight_decay": 0.0, "warmup": 1, "schedule": "constant"}
    settings = Train(**values, **known, clip_norm=1.0, ema_decay=0.9)
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 1)
    trainable = Trainable(
        module, lambda net, batch, generator: {"error": net(batch["x"]).square().mean()}, {"error": 1.0}
    )
    return fit({"net": trainable}, lambda rows: {"x": torch.ones(len(rows), 2)}, 4, settings, Job(0, scratch, "cpu"))


def saved(**entries):
    def change(file):
        torch.save(torch.load(file, weights_only=True) | entries, file)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(empty, id="empty"),
        pytest.param(cut, id="cut"),
        pytest.param(other, id="other"),
        pytest.param(lambda file: torch.save([1, 2], file), id="a-list"),
        pytest.param(lambda file: torch.save({}, file), id="no-keys"),
        pytest.param(saved(trainables={}), id="other-modules"),
        pytest.param(saved(step="two"), id="step-a-text"),
        pytest.param(saved(step=7), id="more-steps-than-rows"),
        pytest.param(saved(history=[]), id="no-history"),
    ],
)
def test_a_damaged_state_is_named_with_the_way_out(change, tmp_path):
    whole = short_training(tmp_path)
    file = tmp_path / "state.pt"
    change(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"state\.pt: .*delete it, and the training begins anew"):
        short_training(tmp_path)
    assert file.read_bytes() == before
    file.unlink()
    assert short_training(tmp_path).equals(whole)


@pytest.mark.parametrize(
    "part, piece, load",
    [("re_audioldm", "retrieval", retrieval.load), ("src_gaudio/joint", "rate", rates.load)],
)
def test_a_unet_without_what_belongs_beside_it_is_refused_where_that_is_needed(tmp_path, part, piece, load):
    folder = shutil.copytree(paths.BUNDLED / part, tmp_path / "part")
    load(folder, needed=True)
    shutil.rmtree(folder / piece)
    with pytest.raises(ValueError, match=f"{piece} is missing; copy the whole folder again"):
        load(folder, needed=True)
