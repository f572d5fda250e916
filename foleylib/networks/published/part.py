"""A part of a published model, a folder in diffusers' or transformers' format: read whole, compared with what is wanted."""

import textwrap
from pathlib import Path

import torch
from torch import nn

from foleylib.networks.clap import TEXT_EPS
from foleylib.networks.published import reader
from foleylib.runtime import finite, read_object

COMPUTED = (".position_ids", ".token_type_ids", ".relative_position_index")  # constants of CLAP's two halves


def load_part(network: type, folder: Path) -> nn.Module:
    """A network of diffusers or transformers from a published folder, whole, in float32 and evaluation mode.

    Stricter than `from_pretrained`, which draws missing weights at random: only constants that the network computes
    itself, which some versions wrote and others did not, may be missing.
    """
    config_of(folder)
    check_files(folder)
    try:
        model, report = network.from_pretrained(
            folder, output_loading_info=True, torch_dtype=torch.float32, local_files_only=True
        )
    except Exception as error:  # a damaged configuration fails in many ways
        said = textwrap.shorten(" ".join(str(error).split()), 200)
        raise ValueError(f"{folder}: damaged, or no {network.__name__} ({said}); fetch it again") from error
    missing = set(report.get("missing_keys", ()))
    computed = {key for key in missing if key.endswith(COMPUTED)}
    faults = {name: sorted(map(str, set(keys) - computed))[:5] for name, keys in report.items() if set(keys) - computed}
    if faults:
        raise ValueError(f"{folder}: its weights are not those of a {network.__name__}: {faults}; give the whole model")
    if computed:
        _restore(model, computed)
    if hasattr(model, "register_to_config"):
        model.register_to_config(_name_or_path="")  # else it is saved with the folder that it was read from
    return finite(model, folder)


def check_files(folder: Path) -> None:
    """Stop where a part's weights are missing, damaged, or hold what could run code."""
    from safetensors import SafetensorError, safe_open

    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise ValueError(f"{folder}: no weights (*.safetensors or *.bin) there; fetch them too")
    for file in files:
        try:
            if file.suffix == ".bin":
                reader.read(file)
            else:
                with safe_open(file, "pt"):
                    pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: damaged ({error}); fetch it again") from error


def _restore(model: nn.Module, names: set[str]) -> None:
    """Give a model the buffers that its class computes when it is made."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        computed = dict(type(model)(model.config).named_buffers())
    own = dict(model.named_buffers())
    for name in names:
        own[name].copy_(computed[name])


def config_of(folder: Path) -> dict:
    """What stands in a part's config.json."""
    file = folder / "config.json"
    return read_object(file, remedy="the folder is not whole, or no AudioLDM in diffusers' format: fetch it again")


def compare(where: Path | str, config, wanted: dict[str, tuple[str, object]]) -> None:
    """Stop at the first key of a config that is not as wanted, with the setting that says so: key -> (setting, value)."""
    for key, (setting, value) in wanted.items():
        if plain(config[key]) != plain(value):
            raise ValueError(
                f"{where}: {key} is {plain(config[key])}, {setting} {plain(value)}; set that to this model's, or give another"
            )


def plain(value):
    """Lists in place of tuples, all the way down."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def with_text_eps(model: nn.Module) -> nn.Module:
    """The model with RoBERTa's layer-norm epsilon in its text half, in place of what transformers' config defaults to."""
    text = getattr(model.config, "text_config", model.config)
    text.layer_norm_eps = TEXT_EPS
    for layer in model.text_model.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = TEXT_EPS
    return model
