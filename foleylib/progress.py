"""Progress bars: in the terminal under DVC, where a bar has no place in the executed notebook."""

import os
import sys


def progress(iterable=None, **options):
    """A tqdm bar over `iterable` (or by hand, with `total`); `options` are tqdm's `total`, `desc`, `initial`, `disable`."""
    from tqdm import tqdm

    stream = getattr(sys.stderr, "_original_stdstream_copy", None) if "DVC_ROOT" in os.environ else None
    file = os.fdopen(os.dup(stream), "w") if stream is not None else sys.stderr
    return tqdm(iterable, file=file, mininterval=2 if file.isatty() else 30, **options)
