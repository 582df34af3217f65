"""How text is spoilt for a network to mend: pure functions of token ids and a random generator."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

Ids = np.ndarray


def chosen_tokens(groups: np.ndarray, rate: float, ngrams: int, rng: Generator) -> np.ndarray:
    """Which tokens are masked: a share of `rate` of them in expectation, at least one, whole groups at a time.

    Args:
        groups: (tokens,) the number of the word that each token belongs to, rising; -1 for one that is never masked.
        ngrams: so many words in a row at most; n of them with a probability that falls as 1/n (ALBERT, Lan et al. 2020,
            section 4.2).

    Returns:
        (tokens,) bool.
    """
    free = groups >= 0
    number = free.sum()
    wanted = max(1, int(number * rate + rng.random())) if number else 0  # rounded up or down by chance: unbiased
    masked = np.zeros(len(groups), bool)
    if ngrams == 1 and number and len(np.unique(groups[free])) == number:  # every token a word of its own
        masked[rng.permutation(np.flatnonzero(free))[:wanted]] = True
        return masked
    words, first, sizes = np.unique(groups[free], return_index=True, return_counts=True)
    place = np.flatnonzero(free)
    weights = 1 / np.arange(1, ngrams + 1)
    taken, done = np.zeros(len(words), bool), 0
    lengths = rng.choice(np.arange(1, ngrams + 1), size=len(words), p=weights / weights.sum())
    for start, length in zip(rng.permutation(len(words)), lengths, strict=True):
        span = slice(start, start + length)
        tokens = int(sizes[span].sum())
        if done + tokens <= wanted and not taken[span].any():  # else a shorter one may fit
            taken[span], done = True, done + tokens
        if done == wanted:
            break
    if number and not done:
        taken[sizes.argmin()] = True
    for word in np.flatnonzero(taken):
        masked[place[first[word] : first[word] + sizes[word]]] = True
    return masked


def noise_spans(length: int, density: float, mean_span: float, rng: Generator) -> np.ndarray:
    """(length,) bool: which tokens are noise, in spans parted by others; T5's `random_spans_noise_mask`.

    Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 3.3.4. The first token is none (but for a
    text of one token, which would else teach nothing), the last one is noise.
    """
    noise, spans = span_counts(length, density, mean_span)
    if length == 1:
        return np.ones(1, bool)
    parts = np.stack([_parted(length - noise, spans, rng), _parted(noise, spans, rng)], axis=1).reshape(-1)
    return np.repeat(np.arange(len(parts)) % 2 == 1, parts)


def span_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """How many tokens are noise, in how many spans: the same for all texts of a length."""
    if length == 1:
        return 1, 1
    noise = min(max(round(length * density), 1), length - 1)
    return noise, min(max(round(noise / mean_span), 1), noise, length - noise)


def _parted(total: int, parts: int, rng: Generator) -> np.ndarray:
    """(parts,) positive lengths with this sum, all such lists equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def to_sentinels(ids: Ids, noise: np.ndarray, sentinels: Sequence[int]) -> tuple[Ids, Ids]:
    """Inputs in which each noise span is one sentinel, and targets: each sentinel with its span, then one more sentinel.

    Raises:
        ValueError: there are not enough sentinels.
    """
    starts = noise & ~np.concatenate([[False], noise[:-1]])
    spans = int(starts.sum())
    if spans + 1 > len(sentinels):
        raise ValueError(too_few(len(ids), spans, len(sentinels)))
    marks = np.asarray(sentinels, dtype=ids.dtype)
    inputs = np.where(starts, marks[np.cumsum(starts) - 1], ids)[~noise | starts]
    before = np.flatnonzero(starts[noise])
    targets = np.insert(ids[noise], before, marks[:spans])
    return inputs, np.append(targets, marks[spans])


def too_few(length: int, spans: int, sentinels: int) -> str:
    """What to say when a text has more spans than there are sentinels for."""
    return (
        f"a text of {length} tokens has {spans} noise spans and needs {spans + 1} sentinels, the tokenizer has "
        f"{sentinels}: lower data.block_size or raise model.mean_span."
    )


def infilled(ids: Ids, rate: float, mean_span: float, mask: int, rng: Generator) -> Ids:
    """Inputs in which spans are one mask each, whatever their length: BART's text infilling.

    Lewis et al. 2020, "BART", section 2.2: lengths are drawn from a Poisson distribution; one of length 0 puts a mask in.
    """
    wanted = round(len(ids) * rate)
    spans: list[int] = []
    while sum(spans) < wanted:
        spans.append(min(int(rng.poisson(mean_span)), wanted - sum(spans)))
    # Spans and the tokens that stay, in a random order: at least one token between two spans keeps masks apart.
    kept = len(ids) - sum(spans)
    spans = spans[: kept + 1]
    slots = np.sort(rng.permutation(kept + 1)[: len(spans)])
    out, at = [], 0
    for before, span in zip(np.diff(np.concatenate([[0], slots])), spans, strict=True):
        out += [ids[at : at + before], np.array([mask], dtype=ids.dtype)]
        at += before + span
    return np.concatenate([*out, ids[at:]])


def sentences_moved(ids: Ids, ends: np.ndarray, rng: Generator) -> Ids:
    """Ids with their sentences in a random order. `ends`: (tokens,) bool, where a sentence ends."""
    cuts = np.flatnonzero(ends[:-1]) + 1
    parts = np.split(ids, cuts)
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))])


def middle_last(ids: Ids, marks: tuple[int, int, int], rng: Generator) -> Ids:
    """Prefix, suffix, then the middle, each behind its mark: fill-in-the-middle in PSM order.

    Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle", section 3; at the level of tokens.
    """
    one, two = sorted(rng.integers(0, len(ids) + 1, 2))
    prefix, suffix, middle = (np.array([mark], dtype=ids.dtype) for mark in marks)
    return np.concatenate([prefix, ids[:one], suffix, ids[two:], middle, ids[one:two]])
