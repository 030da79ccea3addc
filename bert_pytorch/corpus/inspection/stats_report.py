"""Statistics as text for a terminal."""

from collections.abc import Iterator
from typing import Any

from bert_pytorch.corpus.inspection.histograms import Chart

_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def text_report(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that describe formatted text."""
    yield "Text"
    for name in ("documents", "sentences", "words", "tokens", "characters", "bytes"):
        if name in found:
            yield f"  {name:<22}{found[name]:>16,}"
    for name in ("tokens_a_sentence", "tokens_a_document", "words_a_sentence", "words_a_document"):
        if name in found:
            yield f"  {name.replace('_', ' '):<22}{_spread(found[name])}"
    twice = found["duplicates"]
    compared = twice["sentences_compared"]
    sample = "" if compared == 1 else f" (of a sample of {compared:.2%})"
    yield f"  duplicate documents   {twice['document_rate']:>16.3%}   {twice['documents']:,} exact copies"
    yield f"  duplicate sentences   {twice['sentence_rate']:>16.3%}{sample}"
    kinds = {kind: share for kind, share in found["scripts"].items() if share >= 0.0001}
    yield f"  characters by kind    {_shares(kinds)}"
    yield f"  most frequent         {' '.join(_shown(char) for char, _ in found['characters_most_frequent'])}"
    if "vocabulary" in found:
        yield from _vocabulary_report(found["vocabulary"])
        words = found["vocabulary"]["unknown_words"]
        if words:
            listing = ", ".join(f"{_shown(word)} ({count:,})" for word, count in words)
            yield f"  unknown words         {listing}"


def set_report(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that describe a set of shards."""
    for part in ("train", "eval"):
        if part not in found:
            continue
        counts = found[part]
        yield ""
        yield f"{_shown(name)}, {'training' if part == 'train' else 'held out'}"
        for key in ("documents", "shards", "sequences", "tokens"):
            if key in counts:
                yield f"  {key:<22}{counts[key]:>16,}"
        yield f"  tokens a sequence     {_spread(counts['tokens_a_sequence'])}"
        yield f"  fill                  {counts['fill']:>16.2%}   the rest of {counts['sequence_length']} is padding"
        packed = counts["packed"]
        yield f"  fill if packed        {packed['fill']:>16.2%}   {packed['rows']:,} rows, best fit by length"
        if "random_next" in counts:
            yield f"  random next sentence  {counts['random_next']:>16.2%}"
        if "masked" in counts:
            masked = counts["masked"]
            fates = f"   {_shares({key: masked[key] for key in masked if key not in ('tokens', 'share')})}"
            yield f"  masked                {masked['share']:>16.2%}{fates.rstrip()}"
        if "vocabulary" in counts:
            yield from _vocabulary_report(counts["vocabulary"])


def chart_lines(chart: Chart) -> Iterator[str]:
    """Yield a histogram as bars, the longest over the whole width."""
    yield f"{_shown(chart.title)} (mean {chart.mean:,.1f}, median {chart.median:,.0f}); {chart.axis}"
    names = [
        f"{first:,}" if after == first + 1 else f"{first:,} to {after - 1:,}"
        for first, after in zip(chart.edges[:-1].tolist(), chart.edges[1:].tolist(), strict=True)
    ]
    if chart.beyond:
        names[-1] = f"{chart.edges[-2]:,} and more"
    width, total, tallest = max(map(len, names)), max(1, int(chart.counts.sum())), max(1, int(chart.counts.max()))
    for name, count in zip(names, chart.counts.tolist(), strict=True):
        yield f"  {name:>{width}} {_bar(count / tallest):<{_BAR}} {count:>12,} {count / total:>7.2%}".rstrip()


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _vocabulary_report(use: dict[str, Any]) -> Iterator[str]:
    yield f"  unknown tokens        {use['unknown_rate']:>16.4%}   {use['unknown_tokens']:,} tokens"
    yield f"  vocabulary never used {use['never_used_share']:>16.2%}   {use['never_used']:,} of {use['size']:,} tokens"


def _spread(found: dict[str, Any]) -> str:
    if not found:
        return f"{'none':>16}"
    low, high = found["min"], found["max"]
    middle = ", ".join(f"{name[1:]} % ≤ {found[name]:,}" for name in ("p5", "p50", "p95", "p99"))
    return f"{found['mean']:>16,.2f}   {low:,} to {high:,}; {middle}"


def _shares(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.2%}" for name, share in list(found.items())[:10])


def _shown(text: str) -> str:
    """Return text as it can be printed: control characters would reach the terminal."""
    if text == " ":
        return "space"
    return text if text.isprintable() else text.encode("unicode_escape").decode()
