"""The evaluators of the literature, PANNs (FD, IS, KL), VGGish (FAD) and LAION's CLAP, from their files as published."""

from pathlib import Path

import torch

from foleylib.audio.mel import MelConfig
from foleylib.networks.embedders import Embedder
from foleylib.networks.panns import PannsCnn, PannsConfig
from foleylib.networks.published import laion, reader
from foleylib.networks.vggish import FAD_16K, FAD_DCASE, Vggish, VggishConvention
from foleylib.runtime import finite, weights_sha256

# Kong et al. (2020), Table I and their released code.
MEL_32K = MelConfig(rate=32000, n_fft=1024, hop=320, n_mels=64, fmin=50, fmax=14000, padding="center")
MEL_16K = MelConfig(rate=16000, n_fft=512, hop=160, n_mels=64, fmin=50, fmax=8000, padding="center")
CNN14 = {"widths": (64, 128, 256, 512, 1024, 2048), "pool_last": False, "embedding_dim": 2048}

# Name -> (network, its settings). The two FAD conventions read the same VGGish file.
PUBLISHED = {
    "cnn10": (PannsCnn, PannsConfig(MEL_32K)),
    "cnn14": (PannsCnn, PannsConfig(MEL_32K, **CNN14)),
    "cnn14_16k": (PannsCnn, PannsConfig(MEL_16K, **CNN14)),
    "fad_16k": (Vggish, FAD_16K),
    "fad_dcase": (Vggish, FAD_DCASE),
}
# What files hold beside the weights: PANNs the matrices of its front end, torchvggish its PCA, which follows the network.
FIXED = ("spectrogram_extractor.", "logmel_extractor.", "pproc.")


LAION = (
    "laion_clap"  # a `.pt` of LAION's, or a folder of `transformers.ClapModel`, as the Hub has laion/clap-htsat-unfused
)

# Where the authors have the files.
PANNS_AT = "the Zenodo record that the README of qiuqiangkong/audioset_tagging_cnn on GitHub links"
VGGISH_AT = "the releases of harritaylor/torchvggish on GitHub"
LAION_AT = "lukewys/laion_clap (.pt) or laion/clap-htsat-unfused (folder) on the Hugging Face Hub"


def load_published(
    name: str,
    path: str | Path,
    *,
    sha256: str | None,
    pinned: bool = True,
    device: str | torch.device = "cpu",
    through: str = "transformers",
    tokenizer: str | Path | None = None,
) -> Embedder:
    """The evaluator `name` of `PUBLISHED` from its PyTorch file, or LAION's CLAP from its file or folder; the hash of either
    must be `sha256`.

    Results that are compared with published numbers need a hash; `pinned=False` with `sha256=None` takes any file.
    `through` and `tokenizer` are those of `laion.load`.
    """
    if name not in (*PUBLISHED, LAION):
        raise ValueError(f"name={name!r}: give one of {sorted([*PUBLISHED, LAION])}")
    if not (Path(path).is_file() or name == LAION and Path(path).is_dir()):
        raise ValueError(
            f"weights {path}: no such file{' or folder' * (name == LAION)}; fetch the weights of {name} from "
            f"{_publisher(name)}, or correct the path"
        )
    actual = weights_sha256(path)
    if sha256 is None and pinned:
        raise ValueError(f"{path}: no sha256 is pinned for {name}; if you trust the file, set it to {actual}")
    if sha256 is not None and actual != sha256.lower():
        raise ValueError(f"{path}: sha256 is {actual}, not {sha256}; fetch {name} again")
    if name == LAION:
        model = laion.load(path, through=through, tokenizer=tokenizer, device=device)
        return Embedder(LAION, model.dim, model.rate, actual, model)
    network, config = PUBLISHED[name]
    with torch.random.fork_rng(devices=[]):
        model = network(config)
    weights = reader.read(path)
    try:
        _load(model, weights.get("model", weights))
    except (RuntimeError, AttributeError) as error:
        said = " ".join(str(error).split())  # torch's own runs over several lines
        raise ValueError(f"{path}: not the weights of {name} as a plain state dict ({said})") from error
    finite(model, path)
    if isinstance(config, VggishConvention):
        return Embedder(name, 128, config.rate, actual, model.to(device), config.least, "vggish")
    least = max(config.mel.hop * config.stride, config.mel.n_fft)
    return Embedder(name, config.embedding_dim, config.mel.rate, actual, model.to(device), least)


def _publisher(name: str) -> str:
    if name == LAION:
        return LAION_AT
    return VGGISH_AT if isinstance(PUBLISHED[name][1], VggishConvention) else PANNS_AT


def _load(model: PannsCnn | Vggish, weights: dict[str, torch.Tensor]) -> None:
    """Load published weights; the mel filters that a PANNs file stores must be those of the network's front end."""
    if "logmel_extractor.melW" in weights:
        stored, ours = weights["logmel_extractor.melW"], model.log_mel.basis.T
        if stored.shape != ours.shape or not torch.allclose(stored.float(), ours, atol=1e-4):
            raise ValueError("the checkpoint's mel filters are not those of the configuration; check rate, fmin, fmax")
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith(FIXED)})
