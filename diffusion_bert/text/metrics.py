"""Scores of generated text: pure functions on strings, no torch.

Text convention: every function takes strings as `text.metric_text` returns them (the text DiffuSeq's evaluation script
sees) and splits words on white space. Units: every score is a percentage, 0..100, except `length_ratio` (1.0 = equally
long). Arguments come in the order (reference, hypothesis): BLEU is not symmetric, and swapping them changes the
numbers.

"DiffuSeq's script" is scripts/eval_seq2seq.py of Shark-NLP/DiffuSeq as of February 2023 (arXiv 2210.08933). Its first
version (November 2022) passed BLEU's arguments the other way round.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise


# ---- against a reference
@lru_cache(maxsize=1)
def _word_bleu() -> Callable[[list[str], list[str]], float]:
    # imported on first use: `--help` must be instant
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method4
    return lambda reference, hypothesis: (
        100.0 * sentence_bleu([reference], hypothesis, smoothing_function=smoothing) if hypothesis else 0.0
    )


def sentence_bleu(reference: str, hypothesis: str) -> float:
    """BLEU-4 of one sentence, in percent: 100 BP (p_1 p_2 p_3 p_4)^(1/4), BP = min(1, exp(1 - |reference| /
    |hypothesis|)).

    p_n is the clipped n-gram precision of the hypothesis (Papineni et al. 2002), smoothed by method 4 of Chen and
    Cherry (2014) in NLTK's form: the k-th zero count becomes ln|hypothesis| / (5 * 2^k). No common word: 0; empty
    hypothesis: 0. Because of the smoothing an exact copy of fewer than four words scores below 100 (two words: 22.1);
    of a one-word hypothesis NLTK counts p_1 alone. As in DiffuSeq's script.
    """
    return _word_bleu()(reference.split(), hypothesis.split())


@lru_cache(maxsize=1)
def _rouge_scorer():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


def rouge_l(reference: str, hypothesis: str) -> float:
    """ROUGE-L F-measure of one sentence, in percent: 100 * 2PR/(P+R), P = LCS/|hypothesis|, R = LCS/|reference| (Lin
    2004), no stemming.

    LCS = length of the longest common subsequence of tokens. rouge-score lower-cases and takes runs of [a-z0-9] as
    tokens, as torchmetrics does, so punctuation and the clean-up of spaces make no difference.
    """
    return 100.0 * _rouge_scorer().score(reference, hypothesis)["rougeL"].fmeasure


def overlap(source: str, output: str) -> float:
    """How much of the output is copied from the source: BLEU in percent with the source as reference and the output as
    hypothesis.
    """
    return sentence_bleu(source, output)


IBLEU_ALPHA = 0.8  # weight of the reference in iBLEU; the rest is that of the source


def ibleu(reference: str, source: str, hypothesis: str, alpha: float = IBLEU_ALPHA) -> float:
    """alpha * BLEU(reference, hypothesis) - (1 - alpha) * BLEU(source, hypothesis), in percent (Sun and Zhou 2012):
    copying the source is punished. It is in -100 (1 - alpha) .. 100 alpha.
    """
    return alpha * sentence_bleu(reference, hypothesis) - (1.0 - alpha) * overlap(source, hypothesis)


def length_ratio(reference: str, hypothesis: str) -> float:
    """Words of the hypothesis per word of the reference; a plain ratio, 1.0 = equally long. An empty reference counts
    as one word.
    """
    return len(hypothesis.split()) / max(1, len(reference.split()))


# ---- of the output alone
def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _distinct(ngrams: list[tuple[str, ...]]) -> float:
    return 100.0 * len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n(text: str, n: int = 1) -> float:
    """Different n-grams / all n-grams of one sentence, in percent; 0 when it is shorter than n words. n = 1: dist-1 of
    DiffuSeq's script.
    """
    return _distinct(_ngrams(text.split(), n))


def self_bleu(samples: Sequence[str]) -> float:
    """How alike the samples of one source are, in percent (lower = more diverse): the mean over pairs i < j of BLEU
    with sample j as reference and sample i as hypothesis; 0 for fewer than two samples. DiffuSeq's script, over 3
    samples chosen without MBR.
    """
    table = bleu_table(samples)
    pairs = [table[j][i] for i in range(len(samples)) for j in range(i + 1, len(samples))]
    return mean(pairs) if pairs else 0.0


def diverse_4(samples: Sequence[str]) -> float:
    """div-4, in percent: different 4-grams / all 4-grams, counted over all samples of one source together (n-grams do
    not cross from one sample into the next); 0 when no sample has four words. DiffuSeq's script, over 3 samples chosen
    without MBR.
    """
    return _distinct([ngram for sample in samples for ngram in _ngrams(sample.split(), 4)])


def repetition_rate(text: str) -> float:
    """Adjacent repeats: the share of words equal to the word immediately before ("someone someone"), in percent of all
    words, case ignored.

    Punctuation stuck to the end of the second word does not hide a repeat ("india india?"), but stuck to the first it
    separates ("no, no").
    """
    words = text.lower().split()
    repeats = sum(before in (word, word.rstrip(".,?!;:")) for before, word in pairwise(words))
    return 100.0 * repeats / max(1, len(words))


# ---- choosing among candidates
def bleu_table(texts: Sequence[str]) -> list[list[float]]:
    """[j][i] = ``sentence_bleu(reference = texts[j], hypothesis = texts[i])``, for all pairs at once and about a
    hundred times faster.

    Each text's n-grams are counted once, as columns of one table of all n-grams; a clipped count is then a sum of
    minima. Equal texts get equal numbers to the last bit.
    """
    import numpy as np

    words = [tuple(text.split()) for text in texts]
    distinct = list(dict.fromkeys(words))
    lengths = np.array([len(text) for text in distinct], dtype=np.int64)
    precisions = []  # per n: hits [reference, hypothesis] and the number of n-grams of each hypothesis
    for n in range(1, 5):
        columns: dict[tuple[str, ...], int] = {}
        places = [[columns.setdefault(ngram, len(columns)) for ngram in _ngrams(text, n)] for text in distinct]
        counts = np.zeros((len(distinct), len(columns)), dtype=np.int64)
        for row, columns_of_row in enumerate(places):
            np.add.at(counts[row], columns_of_row, 1)
        precisions.append((np.minimum(counts[:, None], counts[None]).sum(-1), np.maximum(lengths - n + 1, 1)))
    scores = [
        [
            _bleu(lengths[j], lengths[i], [(hits[j, i], total[i]) for hits, total in precisions])
            for i in range(len(distinct))
        ]
        for j in range(len(distinct))
    ]
    number = {text: index for index, text in enumerate(distinct)}
    return [[scores[number[reference]][number[hypothesis]] for hypothesis in words] for reference in words]


def _bleu(reference: int, hypothesis: int, precisions: Sequence[tuple[int, int]]) -> float:
    """BLEU in percent from the lengths and (clipped count, number of n-grams) for n = 1..4: what NLTK computes with
    method 4.
    """
    if hypothesis == 0 or precisions[0][0] == 0:
        return 0.0
    logs, zeros = [], 0
    for hits, total in precisions:
        if hits:
            logs.append(math.log(hits / total))
        elif hypothesis > 1:
            zeros += 1
            logs.append(math.log(math.log(hypothesis) / (5 * 2**zeros) / total))
    penalty = 1.0 if hypothesis > reference else math.exp(1 - reference / hypothesis)
    return 100.0 * penalty * math.exp(math.fsum(logs) / 4)


def mbr_select(candidates: Sequence[str]) -> int:
    """Minimum Bayes risk under BLEU: the index i with the largest sum over j != i of BLEU(reference = candidate j,
    hypothesis = candidate i).

    Ties go to the first; a blank candidate never wins while there is another. DiffuSeq's script, where 10 candidates
    are usual (90 scores). Sums are exact (`math.fsum`), so equal candidates tie exactly.
    """
    if not candidates:
        raise ValueError("mbr_select got no candidates; it needs at least one")
    table = bleu_table(candidates)
    eligible = [i for i in range(len(candidates)) if candidates[i].split()] or [0]
    sums = {i: math.fsum(table[j][i] for j in range(len(candidates)) if j != i) for i in eligible}
    return max(eligible, key=lambda i: (sums[i], -i))


# ---- averages
def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, summed exactly; refuses an empty list, whose mean would be a NaN in a report."""
    if len(values) == 0:
        raise ValueError("mean got no values; it needs at least one")
    return math.fsum(values) / len(values)


def bootstrap_interval(
    values: Sequence[float], seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """(low, high): percentile bootstrap interval of the mean, in the unit of the values (Efron 1979; for evaluation
    scores Koehn 2004).

    `resamples` times draw len(values) of them with replacement and take the mean; low and high cut off (1 - level)/2 of
    those means on either side.
    """
    import numpy as np

    if len(values) == 0 or resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            f"bootstrap_interval needs values, resamples >= 1 and 0 < level < 1; got {len(values)} values,"
            f" {resamples=}, {level=}"
        )
    array, rng = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    # one at a time: little memory for long lists
    means = [array[rng.integers(0, len(array), len(array))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


@lru_cache(maxsize=1)
def _bert_basic():
    from tokenizers import normalizers, pre_tokenizers  # imported on first use: `--help` must be instant

    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


# In this order; each loses its outer spaces. Basic splitting isolates every apostrophe, so the last five only matter
# for text split otherwise.
_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def metric_text(text: str) -> str:
    """The text every metric sees: basic BERT normalisation and splitting (lower case, no accents), then the classical
    decode clean-up.

    The clean-up is that of a BERT decode with `clean_up_tokenization_spaces=True`: no space before . ? ! , nor around a
    free-standing '. Other punctuation stays split off ("e - mail", "what : why"). Idempotent. Needs no checkpoint.
    """
    normalizer, splitter = _bert_basic()
    text = " ".join(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    for spaced in _CLEAN_UP:
        text = text.replace(spaced, spaced.strip())
    return text
