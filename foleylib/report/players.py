"""Audio players for notebooks: self-contained HTML without script, the same bytes on every run.

Levels are left as they are: a louder system sounds louder. Scaling is a choice (`peak`), and in a grid it is one gain
for all cells. Sound is MP3; `encode` also has FLAC, for where every sample counts.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from IPython.display import HTML

from foleylib.report.style import Displays, words

OPTIONS = {  # of soundfile; 1.28 s at 16 kHz are 7 kB of MP3, and 10 kB of Vorbis with a lower signal-to-noise ratio
    "mp3": {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}
MIME = {"mp3": "audio/mpeg", "flac": "audio/flac"}
MAX_CELLS = 40
MAX_COLUMNS = 4  # more would run off a page of 1,000 pixels
PAGE = 740  # pixels for the players of a row, beside its name


def encode(wave: np.ndarray, rate: int, *, codec: Literal["mp3", "flac"] = "mp3") -> bytes:
    """Sound file of a mono wave [shape=(T,)] in [-1, 1], equal for equal waves; `rate` in Hz."""
    import soundfile

    if codec not in OPTIONS:
        raise ValueError(f"codec={codec!r}: give one of {sorted(OPTIONS)}")
    (wave,), out = scaled([wave]), io.BytesIO()
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


def scaled(waves: Iterable[np.ndarray], peak: float | None = None) -> list[np.ndarray]:
    """Waves under one common gain that takes the loudest to `peak`; None leaves them."""
    waves = [mono(wave) for wave in waves]
    top = max(np.abs(wave).max() for wave in waves)
    if peak is None and top > 1:
        raise ValueError(f"the wave reaches {top:.3f} and would clip at 1: scale it, or give peak (0.9, say)")
    if peak is not None and not 0 < peak <= 1:
        raise ValueError(f"peak={peak}: give a level in (0, 1]")
    return waves if peak is None or top == 0 else [wave * np.float32(peak / top) for wave in waves]


def _audio(wave: np.ndarray, rate: int, label: str, width: int = 300) -> str:
    source = data_url(encode(wave, rate), MIME["mp3"])
    look = f'style="width:{width}px;height:36px" aria-label="{label}"'
    return f'<audio controls preload="metadata" {look} src="{source}">{label}</audio>'


def grid(
    clips: Mapping[tuple[str, str], np.ndarray],
    rate: int,
    *,
    rows: Sequence[str],
    cols: Sequence[str],
    display: Displays = None,
    title: str = "",
    peak: float | None = None,
) -> HTML:
    """A table of players, runs down and classes across (say), turned round where it would be wider than the page.

    `clips` are waves [shape=(T,)] in [-1, 1] by (row, col); a cell without clip shows a dash. `display` names the rows
    or columns that are runs. `peak` in (0, 1] takes the loudest clip to it, with one gain for all; by default levels
    stay as they are.
    """
    if len(rows) * len(cols) > MAX_CELLS:
        size = f"{len(rows)} rows x {len(cols)} columns"
        raise ValueError(f"{size}: at most {MAX_CELLS} cells, for each carries its sound; choose fewer rows or columns")
    strays = [key for key in clips if key[0] not in rows or key[1] not in cols]
    if strays or not clips:
        raise ValueError(f"clips without a cell: {strays}; keys are (row, col) of rows={list(rows)}, cols={list(cols)}")
    heads = {key: html.escape(words(key, display)) for key in (*rows, *cols)}
    turned = len(cols) > MAX_COLUMNS
    down, across = (cols, rows) if turned else (rows, cols)
    width = min(170, PAGE // len(across))
    cells = {
        (row, col)[:: -1 if turned else 1]: _audio(wave, rate, f"{heads[row]}, {heads[col]}", width=width)
        for (row, col), wave in zip(clips, scaled(clips.values(), peak))
    }
    lines = ["<td></td>" + "".join(f'<th scope="col">{heads[key]}</th>' for key in across)]
    for key in down:
        inside = "".join(f"<td>{cells.get((key, other), '–')}</td>" for other in across)
        lines.append(f'<th scope="row">{heads[key]}</th>{inside}')
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    return HTML(f"<table>{caption}<tr>{'</tr><tr>'.join(lines)}</tr></table>")
