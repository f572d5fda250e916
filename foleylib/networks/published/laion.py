"""LAION's CLAP (Wu et al. 2023) as its authors score with it, from a `.pt` file or a folder of transformers.

A `.pt` is read through `transformers.ClapModel` or through the authors' code, `laion_clap.CLAP_Module`; on the same weights
both give the same embeddings. Clips are cut to their first 10 s, where the authors' code crops at random.
"""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from foleylib.networks import clap
from foleylib.networks.published import reader, weights
from foleylib.networks.published.part import load_part, with_text_eps

RATE, SAMPLES, DIM = 48000, 480000, 512
WORDS = 77  # tokens at which the authors' code cuts a text
BATCH = 64  # texts at once through the authors' code, which fills each to WORDS
POSITIONS = "text_branch.embeddings.position_ids"  # constants, which newer versions of transformers do not store
FUSION = ("audio_branch.patch_embed.mel_conv2d.", "audio_branch.patch_embed.fusion_model.")
ROBERTA = ("config.json", "model.safetensors", "vocab.json", "merges.txt")  # what CLAP_Module reads of roberta-base


class ThroughTransformers(nn.Module):
    """`networks.clap.Clap` as an evaluator; clips and texts are what the authors' code makes of them."""

    def __init__(self, model: clap.Clap) -> None:
        super().__init__()
        self.clap, self.rate, self.dim = model, model.rate, model.dim
        model.tokenizer.model_max_length = min(model.tokenizer.model_max_length, WORDS)

    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Waves [shape=(B, T)] at `rate` to "embedding" [shape=(B, D), unit norm]."""
        return {"embedding": self.clap.audio(sixteen_bits(waves))}

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        """Embeddings [shape=(B, D), unit norm] of texts."""
        return self.clap.embed_text(texts)


class ThroughReference(nn.Module):
    """`laion_clap.CLAP_Module` as an evaluator, on clips of at most 10 s, of which it draws nothing at random."""

    rate, dim = RATE, DIM

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @torch.no_grad()
    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Waves [shape=(B, T)] at 48 kHz to "embedding" [shape=(B, 512), unit norm]."""
        heard = waves[:, :SAMPLES].float().cpu().numpy()
        return {"embedding": torch.from_numpy(self.module.get_audio_embedding_from_data(heard))}

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> torch.Tensor:
        """Embeddings [shape=(B, 512), unit norm] of texts."""
        batches = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return torch.cat([torch.from_numpy(self.module.get_text_embedding(batch)) for batch in batches])


def sixteen_bits(waves: torch.Tensor) -> torch.Tensor:
    """Waves clipped to [-1, 1] and cut to 16 bits towards zero, as the authors' code hears them."""
    return (waves.clamp(-1, 1) * 32767).to(torch.int16) / 32767


def load(
    path: str | Path, *, through: str = "transformers", tokenizer: str | Path | None = None, device="cpu"
) -> nn.Module:
    """An evaluator with `rate`, `dim` and `embed_text` beside its forward pass, in evaluation mode.

    Parameters
    ----------
    path : a `.pt` file of LAION's, or a folder of `ClapModel`, which has its tokenizer and goes through transformers; its
        text epsilon and front end are put right where they are transformers' defaults and not LAION's.
    through : "transformers" or "laion_clap". The latter needs the files `ROBERTA` of roberta-base in the Hub's cache.
    tokenizer : folder of RoBERTa's tokenizer, for a file through transformers.

    Raises
    ------
    ValueError
        for weights of another network or with fusion, and files that are missing; nothing is asked of a network
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, through, device)
    state = state_of(reader.read(path))
    if broken := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"{path}: '{broken[0]}' holds NaN or Inf; fetch the weights again")
    try:
        size = size_of(state)
        if through == "laion_clap":
            return _through_reference(state, size, device)
        if tokenizer is None:
            raise ValueError(f"a file has no tokenizer; give {_TOKENIZER}, or set through to laion_clap")
        model = weights.clap_from_laion(state, config_of(state, size))
        words = read_tokenizer(tokenizer, model.config.text_config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ThroughTransformers(clap.Clap(model, words, weights.clap_extractor()).to(device).eval())


_TOKENIZER = "'tokenizer', the folder with vocab.json and merges.txt of roberta-base on the Hugging Face Hub"


def _of_folder(path: Path, through: str, device) -> ThroughTransformers:
    if through != "transformers":
        raise ValueError(f"{path}: laion_clap reads a .pt file, no folder; give LAION's file, or leave 'through' out")
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = load_part(ClapModel, path)
    if getattr(model.config.audio_config, "enable_fusion", False):
        raise ValueError(f"{path}: a CLAP with fusion, which scores do not use; fetch one without (unfused)")
    try:
        tokenizer, extractor = AutoTokenizer.from_pretrained(path), ClapFeatureExtractor.from_pretrained(path)
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(
            f"{path}: no tokenizer or no front end there ({error}); fetch all files of laion/clap-htsat-unfused"
        ) from error
    _knows(tokenizer, model.config.text_config.vocab_size, str(path))
    # Mel bands from 50 Hz on and RoBERTa's epsilon, where a folder has transformers' defaults (0 Hz, 1e-12): these move
    # embeddings by 5e-3 and 1e-4.
    if extractor.sampling_rate == RATE and extractor.frequency_min == 0:
        extractor = weights.clap_extractor()
    return ThroughTransformers(clap.Clap(with_text_eps(model), tokenizer, extractor).to(device).eval())


def state_of(content: dict) -> weights.State:
    """The weights in a file of LAION's: under "state_dict" or bare, with or without the prefix of parallel training."""
    return {key.removeprefix("module."): value for key, value in content.get("state_dict", content).items()}


def size_of(state: weights.State) -> str:
    """Which of `weights.CLAP_SIZES` a state dict is, by its audio encoder: "tiny" or "base"."""
    if any(key.startswith(FUSION) for key in state):
        raise ValueError("a CLAP with fusion, which scores do not use; fetch one without (non-fusion)")
    patches = state.get("audio_branch.patch_embed.proj.weight")
    if patches is None or "text_branch.embeddings.word_embeddings.weight" not in state:
        raise ValueError("no CLAP of LAION's with HTSAT and RoBERTa; give one of its .pt files")
    blocks = re.compile(r"audio_branch\.layers\.(\d+)\.blocks\.\d+\.norm1\.weight")
    levels = [int(match[1]) for match in map(blocks.fullmatch, state) if match]
    found = {"width": patches.shape[0], "depths": [levels.count(level) for level in sorted(set(levels))]}
    for size, sizes in weights.CLAP_SIZES.items():
        if sizes == found:
            return size
    raise ValueError(f"an HTSAT of {found}, which is none of {weights.CLAP_SIZES}; give a file of one of these")


def config_of(state: weights.State, size: str):
    """`ClapConfig` of a state dict: an HTSAT of `size`, and RoBERTa with the sizes of its weights and heads of 64 channels."""
    config, words = weights.clap_config(size), "text_branch.encoder.layer."
    vocabulary, hidden = state["text_branch.embeddings.word_embeddings.weight"].shape
    text = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "num_hidden_layers": len({key.split(".")[3] for key in state if key.startswith(words)}),
        "intermediate_size": len(state.get(f"{words}0.intermediate.dense.bias", ())),
        "max_position_embeddings": len(state.get("text_branch.embeddings.position_embeddings.weight", ())),
    }
    for name, value in text.items():
        setattr(config.text_config, name, value)
    return config


def read_tokenizer(folder: str | Path, vocabulary: int):
    """RoBERTa's tokenizer from a folder, which must know as many tokens as the weights."""
    from transformers import RobertaTokenizerFast

    files = [Path(folder) / name for name in ("vocab.json", "merges.txt")]
    if absent := [str(file) for file in files if not file.is_file()]:
        raise ValueError(f"{' and '.join(absent)}: no such file; give {_TOKENIZER}")
    tokenizer = RobertaTokenizerFast.from_pretrained(folder)
    _knows(tokenizer, vocabulary, str(folder))
    return tokenizer


def _knows(tokenizer, vocabulary: int, where: str) -> None:
    if len(tokenizer) != vocabulary:
        raise ValueError(
            f"{where}: the tokenizer knows {len(tokenizer)} tokens, the weights {vocabulary}; fetch roberta-base's files"
        )


def _through_reference(state: weights.State, size: str, device) -> ThroughReference:
    from huggingface_hub import constants, try_to_load_from_cache

    absent = [name for name in ROBERTA if not isinstance(try_to_load_from_cache("roberta-base", name), str)]
    if absent:  # asked first: without them and without a network, the import waits for many minutes
        raise ValueError(
            f"laion_clap reads roberta-base from the Hub's cache, {constants.HF_HUB_CACHE}, which lacks {', '.join(absent)}; "
            f"fetch them once with a network: hf download roberta-base {' '.join(ROBERTA)}"
        )
    with _offline(), torch.random.fork_rng(devices=[]):
        from laion_clap import CLAP_Module

        module = CLAP_Module(enable_fusion=False, device=str(device), amodel=f"HTSAT-{size}")
    vocabulary = len(state["text_branch.embeddings.word_embeddings.weight"])
    _knows(module.tokenize, vocabulary, f"roberta-base in {constants.HF_HUB_CACHE}")
    try:  # not by load_ckpt, which runs code that a file may hold, and fails without POSITIONS
        module.model.load_state_dict({key: value for key, value in state.items() if key != POSITIONS})
    except RuntimeError as error:
        raise ValueError(f"not the weights of laion_clap's HTSAT-{size} and roberta-base ({error})") from error
    return ThroughReference(module).eval()


@contextmanager
def _offline():
    """The Hub's client as under HF_HUB_OFFLINE: `import laion_clap` asks for BERT's and BART's tokenizers, which it does not
    use. The folder that the import adds to the search path is taken off again."""
    from huggingface_hub import constants

    before, search = constants.HF_HUB_OFFLINE, list(sys.path)
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, sys.path[:] = before, search
