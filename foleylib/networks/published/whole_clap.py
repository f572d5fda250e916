"""The whole CLAP, audio half too, from a folder in transformers' format or from LAION's file, checked against the settings."""

from pathlib import Path

from torch import nn

from foleylib.networks import clap
from foleylib.networks.published import audioldm, reader, weights
from foleylib.networks.published.part import compare, load_part, with_text_eps
from foleylib.runtime import finite

# Settings by the names that transformers gives them.
EXTRACTOR = {
    "feature_size": "n_mels",
    "sampling_rate": "rate",
    "hop_length": "hop",
    "fft_window_size": "n_fft",
    "frequency_min": "fmin",
    "frequency_max": "fmax",
}
AUDIO = {
    "num_mel_bins": "n_mels",
    "spec_size": "spec_size",
    "patch_embeds_hidden_size": "width",
    "depths": "depths",
    "num_attention_heads": "heads",
    "window_size": "window",
}
TEXT = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads"}


def load_folder(folder: Path, settings) -> tuple[clap.Clap, list[str]]:
    """CLAP from a folder in transformers' format, of the sizes in a section `params.foundation.Clap`, and notes."""
    from transformers import ClapFeatureExtractor, ClapModel

    model = load_part(ClapModel, folder)
    if getattr(model.config.audio_config, "enable_fusion", False):
        raise ValueError(f"{folder}: a CLAP with fusion, which AudioLDM does not use; give one without (unfused)")
    _compare_sizes(folder, model, settings)
    notes, found = [], model.config.text_config.layer_norm_eps
    if found != clap.TEXT_EPS:
        notes.append(f"its config had a text layer_norm_eps of {found}: put right to RoBERTa's {clap.TEXT_EPS}")
    if not (folder / "preprocessor_config.json").is_file():
        raise ValueError(f"{folder}: preprocessor_config.json is missing, which has CLAP's front end; fetch it too")
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = audioldm.read_tokenizer(folder, model)
    wanted = front_end(settings)
    if (
        extractor.frequency_min == 0 != wanted.frequency_min
    ):  # transformers' default; LAION's code filters from 50 Hz on
        notes.append(f"its front end began at 0 Hz, transformers' default: put right to {wanted.frequency_min:g} Hz")
        extractor = ClapFeatureExtractor.from_pretrained(folder, frequency_min=wanted.frequency_min)
    expected = {key: (f"foundation.clap.audio.{own}", getattr(wanted, key)) for key, own in EXTRACTOR.items()}
    expected["nb_max_samples"] = ("foundation.clap.audio.seconds", wanted.nb_max_samples)
    compare(folder, {key: getattr(extractor, key) for key in expected}, expected)
    return clap.Clap(with_text_eps(model), tokenizer, extractor).eval(), notes


def load_laion(file: Path, settings, tokenizer: Path) -> tuple[clap.Clap, list[str]]:
    """CLAP from a .pt file of LAION's code, of the sizes in a section `params.foundation.Clap`, and notes."""
    state = reader.read(file)
    try:
        model = finite(weights.clap_from_laion(state, clap.config(settings, settings.text.vocabulary)), file)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: no CLAP of the sizes in foundation.clap ({error})") from error
    return clap.Clap(model, audioldm.read_tokenizer(tokenizer, model), front_end(settings)).eval(), front_notes(
        settings
    )


def front_end(settings):
    """`ClapFeatureExtractor` with the numbers in a section `params.foundation.Clap`."""
    from transformers import ClapFeatureExtractor

    numbers = {key: getattr(settings.audio, own) for key, own in EXTRACTOR.items()}
    numbers["max_length_s"] = settings.audio.seconds
    return ClapFeatureExtractor(**numbers, truncation="rand_trunc", padding="repeatpad")


def front_notes(settings) -> list[str]:
    """A note where the front end in the settings, which no file of weights has, is not that of LAION's code."""
    ours, laion = front_end(settings), weights.clap_extractor()
    differs = [own for key, own in EXTRACTOR.items() if getattr(ours, key) != getattr(laion, key)]
    if ours.nb_max_samples / ours.sampling_rate != laion.nb_max_samples / laion.sampling_rate:
        differs.append("seconds")
    return [f"its front end is not LAION's: foundation.clap.audio.{', '.join(differs)}"] if differs else []


def _compare_sizes(folder: Path, model: nn.Module, settings) -> None:
    config = model.config
    compare(
        folder, {"projection_dim": config.projection_dim}, {"projection_dim": ("foundation.clap.dim", settings.dim)}
    )
    for half, names in (("audio", AUDIO), ("text", TEXT)):
        section = getattr(settings, half)
        wanted = {key: (f"foundation.clap.{half}.{own}", getattr(section, own)) for key, own in names.items()}
        compare(folder, getattr(config, f"{half}_config").to_dict(), wanted)
