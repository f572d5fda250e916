"""Texts that are longer than what reads them."""

from collections.abc import Sequence


def cut(tokenizer, texts: Sequence[str]) -> dict[str, int]:
    """The texts of which a tokenizer of transformers leaves off the end, in order, and the tokens that each has.

    A text may have `tokenizer.model_max_length` tokens, those of its beginning and end among them.
    """
    unique = list(dict.fromkeys(texts))
    ids = tokenizer(unique, truncation=False, padding=False, verbose=False)["input_ids"] if unique else []
    lengths = {text: len(own) for text, own in zip(unique, ids)}
    return {text: length for text, length in lengths.items() if length > tokenizer.model_max_length}
