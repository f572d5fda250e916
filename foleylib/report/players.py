"""Audio players for notebooks: spectrograms with the sound below, HTML without script, the same bytes on every run.

The sounds of a grid are brought to one loudness (ITU-R BS.1770, by pyloudnorm), unless levels are what is shown. Sound
is MP3; `encode` also has FLAC, for where every sample counts.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from IPython.display import HTML

from foleylib.audio.mel import front_end
from foleylib.report.style import Displays, words

OPTIONS = {  # of soundfile; 1.28 s at 16 kHz are 6 kB of MP3, and 10 kB of Vorbis with a lower signal-to-noise ratio
    "mp3": {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.6},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}
MIME = {"mp3": "audio/mpeg", "flac": "audio/flac", "webp": "image/webp"}
MAX_CELLS = 40
LOUDNESS, PEAK = -23.0, 0.95  # LUFS, as EBU R 128 has it; full scale
TILES = "display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:6px"  # seven on 1,200 pixels
DEPTH = 9.0  # nepers of a spectrogram that are shown, from the loudest cell of the grid


def encode(wave: np.ndarray, rate: int, *, codec: Literal["mp3", "flac"] = "mp3") -> bytes:
    """Sound file of a mono wave [shape=(T,)] in [-1, 1], equal for equal waves; `rate` in Hz."""
    import soundfile

    if codec not in OPTIONS:
        raise ValueError(f"codec={codec!r}: give one of {sorted(OPTIONS)}")
    wave, out = mono(wave), io.BytesIO()
    if (top := np.abs(wave).max()) > 1:
        raise ValueError(f"the wave reaches {top:.3f} and would clip at 1: scale it")
    soundfile.write(out, wave, int(rate), **OPTIONS[codec])
    return out.getvalue()


def data_url(content: bytes, kind: str) -> str:
    """Content of a MIME type as the source of an element."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def mono(wave: np.ndarray) -> np.ndarray:
    """The wave as finite float32 samples [shape=(T,)]."""
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"wave of shape {wave.shape}: give finite samples of one channel, (T,)")
    return wave


def at_loudness(wave: np.ndarray, rate: int, loudness: float = LOUDNESS) -> np.ndarray:
    """The wave under a gain that brings it to `loudness` in LUFS, or as near as its peak allows without clipping.

    Silence (nothing above -70 LUFS, the absolute gate of ITU-R BS.1770) and clips shorter than its blocks of 0.4 s are
    brought to no loudness: the first stay as they are, of the others the peak counts alone.
    """
    import pyloudnorm

    wave = mono(wave)
    peak = float(np.abs(wave).max())
    if not peak > 0:
        return wave
    gain = PEAK / peak
    if len(wave) >= 0.4 * rate:
        with np.errstate(divide="ignore"):  # the logarithm of an empty block
            own = pyloudnorm.Meter(rate).integrated_loudness(wave.astype(np.float64))
        gain = min(gain, 10 ** ((loudness - own) / 20)) if np.isfinite(own) else 1.0
    return wave * np.float32(gain)


def _spectrograms(waves: list[np.ndarray], rate: int) -> list[str]:
    """Log-mels of waves as WebP images on one scale of colours, as sources of an element; a fourth of the size of PNG."""
    from matplotlib import colormaps
    from PIL import Image

    log_mel = front_end(rate, "dataset")
    mels = [log_mel(torch.from_numpy(wave)[None])[0, 0].numpy() for wave in waves]  # (frames, n_mels)
    top, images = max(mel.max() for mel in mels), []
    for mel in mels:
        shade = ((mel - top) / DEPTH + 1).clip(0, 1)
        out = io.BytesIO()
        Image.fromarray(colormaps["magma"](shade.T[::-1], bytes=True)[..., :3]).save(out, "webp", quality=75)
        images.append(data_url(out.getvalue(), MIME["webp"]))
    return images


def _tile(wave: np.ndarray, rate: int, image: str, head: str, label: str) -> str:
    """A spectrogram between its name and its player."""
    sound = data_url(encode(wave, rate), MIME["mp3"])
    return (
        f'<div><div style="font-size:85%">{head}</div>'
        f'<img alt="{label}: spectrogram" style="width:100%;height:64px;display:block" src="{image}">'
        f'<audio controls preload="metadata" style="width:100%;height:32px" aria-label="{label}" src="{sound}">'
        f"{label}</audio></div>"
    )


def grid(
    clips: Mapping[tuple[str, str], np.ndarray],
    rate: int,
    *,
    rows: Sequence[str],
    cols: Sequence[str],
    display: Displays = None,
    title: str = "",
    loudness: float | None = LOUDNESS,
) -> HTML:
    """Spectrograms that play: below the name of each row (a run, say) its clips, in as many columns as the page is wide.

    `clips` are waves [shape=(T,)] in [-1, 1] by (row, col); a cell without clip shows a dash. `display` names the rows
    or columns that are runs. All are brought to one `loudness` (LUFS), and the caption says so; with None levels stay as
    they are. Spectrograms show the clips as they were.
    """
    if len(rows) * len(cols) > MAX_CELLS:
        size = f"{len(rows)} rows x {len(cols)} columns"
        raise ValueError(f"{size}: at most {MAX_CELLS} cells, for each carries its sound; choose fewer rows or columns")
    strays = [key for key in clips if key[0] not in rows or key[1] not in cols]
    if strays or not clips:
        raise ValueError(f"clips without a cell: {strays}; keys are (row, col) of rows={list(rows)}, cols={list(cols)}")
    heads = {key: html.escape(words(key, display)) for key in (*rows, *cols)}
    waves = [mono(wave) for wave in clips.values()]
    images = _spectrograms(waves, rate)
    heard = waves if loudness is None else [at_loudness(wave, rate, loudness) for wave in waves]
    cells = {
        (row, col): _tile(wave, rate, image, heads[col], f"{heads[row]}, {heads[col]}")
        for (row, col), wave, image in zip(clips, heard, images)
    }
    levels = "levels as they are"
    if loudness is not None:
        levels = f"loudness matched to {f'{loudness:g}'.replace('-', '−')} LUFS (ITU-R BS.1770)"
    parts = [f"<p>{', '.join(filter(None, (html.escape(title), levels)))}</p>"]
    for row in rows:
        tiles = "".join(cells.get((row, col), f"<div>{heads[col]}<br>–</div>") for col in cols)
        parts.append(f'<p style="margin:8px 0 2px"><b>{heads[row]}</b></p><div style="{TILES}">{tiles}</div>')
    return HTML(f'<div style="max-width:1180px">{"".join(parts)}</div>')
