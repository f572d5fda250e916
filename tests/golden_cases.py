"""Golden cases as original state dicts and configurations, and the comparison with their outputs."""

import numpy as np
import torch
from transformers import ClapConfig

from foleylib.networks import vae


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def original_state(case, draw_weights):
    """State dict of a golden case under its original names, with the entries that an architecture computes."""
    weights = draw_weights(case.rows, case.manifest["seed"])
    return {key: tensor(value) for key, value in weights.items()} | fixed_weights(case.rows)


def empty_state(case):
    """As `original_state`, but zeros."""
    return {row[0]: torch.zeros(row[1]) for row in case.rows}


def fixed_weights(rows):
    """The entries that an architecture computes: window offsets as Swin defines them, else zeros of their shape."""
    fixed = {row[0]: torch.zeros(row[1]) for row in rows if row[2] == "fixed"}
    return {key: relative_index(8) if key.endswith("position_index") else value for key, value in fixed.items()}


def relative_index(window):
    """Row of the relative position table for each pair of cells of a window."""
    row, column = torch.arange(window**2) // window, torch.arange(window**2) % window
    down, right = row[:, None] - row[None] + window - 1, column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right


def check(case, **results):
    """Each result against the case's, within its tolerance; prints the differences (pytest -s)."""
    for name, result in results.items():
        bounds, expected = case.manifest["outputs"][name], case.outputs[name]
        difference = np.abs(np.asarray(result) - expected)
        print(f"{case.manifest['name']} {name}: {difference.max():.1e}, tolerance {bounds['tolerance_max_abs']:.0e}")
        assert np.asarray(result).shape == expected.shape
        assert difference.max() <= bounds["tolerance_max_abs"]
        assert difference.mean() <= bounds.get("tolerance_mean_abs", np.inf)


def unet_config(case):
    settings = case.manifest["config"]
    channels = [settings["model_channels"] * factor for factor in settings["channel_mult"]]
    return {"channels": channels, "head_channels": settings["num_head_channels"]}


def vae_config(case):
    settings = case.manifest["config"]["ddconfig"]
    return {**vae.PUBLISHED, "channels": [settings["ch"] * factor for factor in settings["ch_mult"]]}


def clap_config(case, **text):
    audio, words = case.manifest["config"]["audio"], case.manifest["config"]["text"]
    names = ("patch_embeds_hidden_size", "depths", "hidden_size", "num_attention_heads", "window_size", "spec_size")
    return ClapConfig(text_config=words | text, audio_config={name: audio[name] for name in names}, projection_dim=512)


def vocoder_config(case):
    settings = case.manifest["config"]
    return {
        "rate": settings["sampling_rate"],
        "n_mels": settings["num_mels"],
        "channels": settings["upsample_initial_channel"],
        "upsample_rates": settings["upsample_rates"],
        "upsample_kernels": settings["upsample_kernel_sizes"],
        "resblock_kernels": settings["resblock_kernel_sizes"],
        "dilations": settings["resblock_dilation_sizes"][0],
    }
