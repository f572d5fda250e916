"""Audio players for notebooks: self-contained HTML without script, the same bytes on every run.

Levels are left as they are: a louder system sounds louder. Scaling is a choice (`peak`), and in a grid it is one gain
for all cells. Sound is Ogg Vorbis (4 s at 16 kHz: about 20 to 40 kB of base64), or FLAC where every sample counts.
libsndfile gives each Ogg stream a random serial number, so two encodings of one wave differ; here it is set to
`SERIAL` and the checksum of each page made anew, as RFC 3533 defines it.
"""

import base64
import html
import io

import numpy as np

CODECS = {"ogg": ("OGG", "VORBIS", "audio/ogg"), "flac": ("FLAC", "PCM_16", "audio/flac")}
SERIAL = 1
MAX_CELLS = 24
WRITE_FRAMES = 1 << 14  # one large write overflows the stack of libsndfile's Vorbis encoder


def _crc_table():
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc & 0xFFFFFFFF)
    return table


CRC = _crc_table()


def _page_crc(page):
    """Checksum of an Ogg page whose checksum field is zero (polynomial 0x04c11db7, not reflected, from 0)."""
    crc = 0
    for byte in page:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ CRC[(crc >> 24) ^ byte]
    return crc


def fix_serial(ogg, serial=SERIAL):
    """The same Ogg stream with another serial number; bytes -> bytes."""
    data, start = bytearray(ogg), 0
    while start < len(data):
        if data[start : start + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {start}: the stream is damaged, encode it again")
        table = data[start + 27 : start + 27 + data[start + 26]]
        end = start + 27 + len(table) + sum(table)
        data[start + 14 : start + 18] = serial.to_bytes(4, "little")
        data[start + 22 : start + 26] = bytes(4)
        data[start + 22 : start + 26] = _page_crc(data[start:end]).to_bytes(4, "little")
        start = end
    return bytes(data)


def encode(wave, rate, *, codec="ogg"):
    """Sound file bytes of a mono wave, equal for equal waves.

    Parameters
    ----------
    wave : np.ndarray or torch.Tensor [shape=(T,)] in [-1, 1]
    rate : int > 0, in Hz
    codec : "ogg" (Vorbis) or "flac" (16 bit)

    Raises
    ------
    ValueError
        if the wave is not mono, is empty, not finite or exceeds 1, or the codec is unknown
    """
    import soundfile

    if codec not in CODECS:
        raise ValueError(f"codec={codec!r}: give one of {sorted(CODECS)}")
    wave, out = _checked(wave), io.BytesIO()
    container, subtype, _ = CODECS[codec]
    with soundfile.SoundFile(out, "w", int(rate), 1, format=container, subtype=subtype) as file:
        for start in range(0, len(wave), WRITE_FRAMES):
            file.write(wave[start : start + WRITE_FRAMES])
    return fix_serial(out.getvalue()) if codec == "ogg" else out.getvalue()


def _checked(wave, full_scale=True):
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"wave of shape {wave.shape}: give finite samples of one channel, (T,)")
    if full_scale and np.abs(wave).max() > 1:
        top = np.abs(wave).max()
        raise ValueError(f"the wave reaches {top:.3f} and would clip at 1: scale it, or give peak (0.9, say)")
    return wave


def _scaled(waves, peak):
    """Waves under one common gain that takes the loudest to `peak`; None leaves them."""
    waves = [_checked(wave, full_scale=peak is None) for wave in waves]
    top = max((np.abs(wave).max() for wave in waves), default=0)
    if peak is not None and not 0 < peak <= 1:
        raise ValueError(f"peak={peak}: give a level in (0, 1]")
    return waves if peak is None or top == 0 else [wave * np.float32(peak / top) for wave in waves]


def _audio(wave, rate, label, codec, width):
    sound = base64.b64encode(encode(wave, rate, codec=codec)).decode("ascii")
    return (
        f'<audio controls preload="metadata" aria-label="{html.escape(label)}" style="width:{width}px" '
        f'src="data:{CODECS[codec][2]};base64,{sound}">{html.escape(label)}</audio>'
    )


def _figure(inside, title):
    caption = f"<figcaption>{html.escape(title)}</figcaption>" if title else ""
    return f'<figure style="margin:0.5em 0">{caption}{inside}</figure>'


def player(wave, rate, *, title="", codec="ogg", peak=None):
    """An HTML audio element that carries its sound.

    Parameters
    ----------
    wave : [shape=(T,)] in [-1, 1]
    rate : int > 0, in Hz
    title : str
        above the player, and its accessible label
    codec : "ogg" or "flac"
    peak : float in (0, 1], optional
        scale the wave to this peak; by default it is played as it is

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        as `encode`
    """
    from IPython.display import HTML

    (wave,) = _scaled([wave], peak)
    return HTML(_figure(_audio(wave, rate, title or "Sound clip", codec, 300), title))


def clip(wave, mel, rate, *, hop, title="", codec="ogg", peak=None, limits=None):
    """A log-mel image over the player of its sound.

    Parameters
    ----------
    wave : [shape=(T,)] in [-1, 1]
    mel : np.ndarray [shape=(frames, n_mels)]
    rate, hop : int > 0
        of the wave (in Hz) and of the mel frames (in samples)
    limits : (float, float), optional
        of the colour scale, to compare clips

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    from foleylib import plots

    (wave,) = _scaled([wave], peak)
    figure, png = plots.mel_grid([mel], [""], rate=rate, hop=hop, limits=limits), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    label = title or "Sound clip"
    image = f'<img alt="{html.escape(label)}: log-mel spectrogram" style="display:block;width:480px" '
    image += f'src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode("ascii")}">'
    return HTML(_figure(image + _audio(wave, rate, label, codec, 480), title))


def grid(clips, rate, *, rows, cols, title="", codec="ogg", peak=None):
    """A table of players, systems down and classes across (say).

    Parameters
    ----------
    clips : dict of (row, col) -> wave [shape=(T,)] in [-1, 1]
        a cell without clip shows a dash
    rate : int > 0, in Hz
    rows, cols : sequences of str, or dicts of key -> heading
    title : str
        caption of the table
    codec : "ogg" or "flac"
    peak : float in (0, 1], optional
        one gain for all cells takes the loudest clip to this peak; by default levels stay as they are

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        if there are more than 24 cells (a page of megabytes), a clip belongs to no cell, or as `encode`
    """
    from IPython.display import HTML

    rows, cols = ({key: key for key in keys} if not isinstance(keys, dict) else keys for keys in (rows, cols))
    if len(rows) * len(cols) > MAX_CELLS:
        size = f"{len(rows)} rows x {len(cols)} columns"
        raise ValueError(f"{size}: at most {MAX_CELLS} cells, for each carries its sound; choose fewer rows or columns")
    strays = [key for key in clips if key[0] not in rows or key[1] not in cols]
    if strays or not clips:
        raise ValueError(f"clips without a cell: {strays}; keys are (row, col) of rows={list(rows)}, cols={list(cols)}")
    waves = dict(zip(clips, _scaled(clips.values(), peak)))
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in cols.values())
    body = "".join(_row(row, rows[row], cols, waves, rate, codec) for row in rows)
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    return HTML(f"<table>{caption}<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>")


def _row(row, name, cols, waves, rate, codec):
    cells = (
        _audio(waves[row, col], rate, f"{name}, {head}", codec, 170) if (row, col) in waves else "–"
        for col, head in cols.items()
    )
    return f'<tr><th scope="row">{html.escape(str(name))}</th>' + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
