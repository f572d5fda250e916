"""Small models in the formats in which AudioLDM is published."""

from types import SimpleNamespace

import numpy as np
import torch
from golden_cases import clap_config, original_state, unet_config, vae_config, vocoder_config

from foleylib.diffusion import process
from foleylib.networks import clap
from foleylib.networks.published import audioldm, original
from foleylib.networks.published.weights import fold_weight_norm

SMALL = {
    "unet": "06_unet_small_hc16",
    "vae": "07_vae_small",
    "vocoder": "05_hifigan_audioldm_16k64_small",
    "clap": "10_clap_small",
}


def miniature(golden, draw_weights, folder):
    """A whole AudioLDM file of the small golden cases, LAION's file of its CLAP, and a tokenizer, in `folder`."""
    tokenizer = clap.train_tokenizer(["a dog barks", "footsteps on gravel", "rain"], 300, 77)
    tokenizer.save_pretrained(folder / "tokenizer")
    cases = {part: golden(name) for part, name in SMALL.items()}
    states = {part: original_state(case, draw_weights) for part, case in cases.items()}
    states["vocoder"] = fold_weight_norm(states["vocoder"])
    words = "text_branch.embeddings.word_embeddings.weight"
    states["clap"][words] = states["clap"][words][: len(tokenizer)]
    prefixes = original.PREFIXES
    file = {prefixes[part] + key: value for part, state in states.items() for key, value in state.items()}
    file |= {f"model_ema.diffusion_model{k.replace('.', '')}": 0.9 * v for k, v in states["unet"].items()}
    file |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    file |= {"scale_factor": torch.tensor(0.25), "alphas_cumprod": process.schedule()}
    torch.save({"state_dict": file, "epoch": 3, "loss": np.float64(0.5)}, folder / "small.ckpt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in states["clap"].items()}, "epoch": 1}, folder / "clap.pt")
    sizes = audioldm.Sizes(
        unet=unet_config(cases["unet"]),
        clap=clap_config(cases["clap"], vocab_size=len(tokenizer)),
        vae=vae_config(cases["vae"]),
        vocoder=vocoder_config(cases["vocoder"]),
    )
    return SimpleNamespace(folder=folder, sizes=sizes, file=file, unet=states["unet"], tokens=len(tokenizer))
