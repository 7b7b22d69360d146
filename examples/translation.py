"""Label smoothing in a translator: dates in words to ISO form, in PyTorch or JAX, with greedy and beam search.

Müller, Kornblith and Hinton (2019) found that label smoothing makes the likelihood of a translator worse and its BLEU
better. This script repeats the comparison on a task that it makes up: "third of march nineteen eighty-four" becomes
"1984-03-03". Some words are illegible, some of the training targets are wrong, and "3/4/12" has several right answers.

    python examples/translation.py --framework torch --smoothing 0 0.1 --seeds 3
"""

import argparse
import datetime
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sacrebleu

from lsmooth.calibration import TemperatureScaling
from lsmooth.losses import SoftmaxStatistics, linear_softmax_cross_entropy_with_statistics
from lsmooth.metrics import expected_calibration_error, negative_log_likelihood

SOURCE_LENGTH, TARGET_LENGTH = 14, 12
LEARNING_RATE = 4e-3
WIDTH, HEADS, LAYERS = 64, 4, 1

MONTHS = [datetime.date(2000, month, 1).strftime("%B").lower() for month in range(1, 13)]
ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS |= {"twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}


@dataclass
class Corpus:
    """Sentences as rows of word ids, padded with PAD, and every right answer of each as text."""

    source: np.ndarray
    target: np.ndarray
    answers: list[list[str]]


def cardinal(n: int) -> str:
    """A number below 100 in words."""
    if n < 20:
        return ONES[n - 1]
    return TENS[n // 10 - 2] + (f"-{ONES[n % 10 - 1]}" if n % 10 else "")


def ordinal(n: int) -> str:
    """The day of a month in words."""
    *front, last = cardinal(n).split("-")
    return "-".join([*front, ORDINALS.get(last, f"{last}th")])


def year_in_words(year: int) -> str:
    """As it is spoken: nineteen eighty-four, two thousand and four."""
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return "two thousand" + (f" and {cardinal(rest)}" if rest else "")
    return f"{cardinal(century)} " + ("hundred" if not rest else cardinal(rest) if rest > 9 else f"oh {cardinal(rest)}")


WORDS = ["<pad>", "<s>", "</s>", "?", *"0123456789-/,'", "of", "two", "thousand", "and", "hundred", "oh"]
WORDS += [*MONTHS, *(month[:3] for month in MONTHS), *ONES, *TENS, *(ordinal(n).split("-")[-1] for n in range(1, 32))]
WORDS = list(dict.fromkeys(WORDS))
PAD, BOS, EOS, ILLEGIBLE = range(4)
VOCABULARY = len(WORDS)


def write(date: datetime.date, rng: np.random.Generator) -> tuple[str, list[str]]:
    """The date as somebody would write it, and every ISO date that it can be read as."""
    day, month, year = date.day, MONTHS[date.month - 1], date.year
    kind = rng.integers(6)
    if kind == 0:
        return f"{ordinal(day)} of {month} {year_in_words(year)}", [date.isoformat()]
    if kind == 1:
        return f"{month} {ordinal(day)}, {year_in_words(year)}", [date.isoformat()]
    if kind == 2:
        return f"{day} {month[:3]} {year}", [date.isoformat()]
    years = [date.year]
    text_year = str(year)
    if kind in (3, 4):  # '12 is 1912 or 2012
        text_year = f"{year % 100:02d}"
        years += [y for y in (year - 100, year + 100) if 1900 <= y < 2030]
    readings = [(y, date.month, day) for y in years if exists(y, date)]
    if kind == 3:
        return f"{month} {day} '{text_year}", [iso(*reading) for reading in readings]
    numbers = (day, date.month) if rng.random() < 0.7 else (date.month, day)
    if day <= 12 and day != date.month:  # the day first, or the month
        readings += [(y, day, date.month) for y in years]
    return f"{numbers[0]}/{numbers[1]}/{text_year}", [iso(*reading) for reading in readings]


def iso(year: int, month: int, day: int) -> str:
    """As 1984-03-03."""
    return f"{year}-{month:02d}-{day:02d}"


def exists(year: int, date: datetime.date) -> bool:
    """Whether the year has that day: the 29th of February."""
    return (date.month, date.day) != (2, 29) or (year % 4 == 0 and year != 1900)


def corpus(size: int, seed: int, wrong_targets: float = 0.0) -> Corpus:
    """Random dates from 1900 to 2029; in a quarter of them one word or digit is illegible."""
    rng = np.random.default_rng(seed)
    first = datetime.date(1900, 1, 1)
    days = (datetime.date(2030, 1, 1) - first).days
    sources, targets, answers = [], [], []
    for _ in range(size):
        date = first + datetime.timedelta(days=int(rng.integers(days)))
        text, right = write(date, rng)
        words, target = re.findall(r"[a-z]+|[^a-z ]", text), list(date.isoformat())
        if rng.random() < 0.25:
            words[rng.integers(len(words))] = WORDS[ILLEGIBLE]
        if rng.random() < wrong_targets:
            target[rng.choice([0, 1, 2, 3, 5, 6, 8, 9])] = str(rng.integers(10))
        sources.append(words)
        targets.append(target)
        answers.append(right)
    return Corpus(rows(sources, SOURCE_LENGTH), rows(targets, TARGET_LENGTH), answers)


def rows(sentences: list[list[str]], length: int) -> np.ndarray:
    """Ids between BOS and EOS, padded."""
    ids = np.full((len(sentences), length), PAD)
    for row, words in zip(ids, sentences, strict=True):
        row[: len(words) + 2] = [BOS, *map(WORDS.index, words), EOS]
    return ids


def texts(ids: np.ndarray) -> list[str]:
    """What stands in rows of ids between BOS and EOS."""
    return ["".join(WORDS[i] for i in row if i > EOS) for row in ids]


class Translator(NamedTuple):
    """A trained network, for NumPy arrays of ids."""

    encode: Callable[[np.ndarray], np.ndarray]
    """From sources to what the decoder reads."""
    decode: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """From that, the sources and the first words of translations to logits."""
    said: np.ndarray
    """Of each epoch of training: `sums_of` its tokens."""


# The network in each framework: a Transformer whose output layer is left to the loss.


def torch_translator(train: Corpus, smoothing: float, seed: int, epochs: int) -> Translator:
    """Train in PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(seed)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            options = {"dim_feedforward": 2 * WIDTH, "dropout": 0.1, "batch_first": True, "norm_first": True}
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            self.places = nn.Parameter(0.1 * torch.randn(max(SOURCE_LENGTH, TARGET_LENGTH), WIDTH))
            encoder, decoder = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
            norms = [nn.LayerNorm(WIDTH) for _ in range(2)]
            self.encoder = nn.TransformerEncoder(encoder(WIDTH, HEADS, **options), LAYERS, norms[0], False)
            self.decoder = nn.TransformerDecoder(decoder(WIDTH, HEADS, **options), LAYERS, norms[1])
            self.head = nn.Linear(WIDTH, VOCABULARY)

        def embed(self, ids):
            return self.words(ids) + self.places[: ids.shape[1]]

        def encode(self, source):
            return self.encoder(self.embed(source), src_key_padding_mask=source == PAD)

        def decode(self, memory, source, prefix):
            later = torch.ones(prefix.shape[1], prefix.shape[1], dtype=torch.bool).triu(1)
            return self.decoder(self.embed(prefix), memory, tgt_mask=later, memory_key_padding_mask=source == PAD)

    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    steps = epochs * len(batches(train, 0))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    said = np.zeros((epochs, 3))
    for epoch in range(epochs):
        for batch in batches(train, seed + epoch):
            source, target = torch.tensor(train.source[batch]), torch.tensor(train.target[batch])
            hidden = model.decode(model.encode(source), source, target[:, :-1])
            loss, statistics = linear_softmax_cross_entropy_with_statistics(
                target[:, 1:],
                hidden,
                model.head.weight,
                model.head.bias,
                label_smoothing=smoothing,
                ignore_index=PAD,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            said[epoch] += [float(x) for x in sums_of(statistics)]
    model.eval()

    @torch.no_grad()
    def encode(source):
        return model.encode(torch.tensor(source)).numpy()

    @torch.no_grad()
    def decode(memory, source, prefix):
        hidden = model.decode(torch.tensor(memory), torch.tensor(source), torch.tensor(prefix))
        return model.head(hidden).numpy()

    return Translator(encode, decode, said)


def jax_translator(train: Corpus, smoothing: float, seed: int, epochs: int) -> Translator:
    """Train in JAX, with Flax NNX and Optax."""
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class Attention(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.attend = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x, memory, mask):
            own = self.norm(x)
            return x + self.dropout(self.attend(own, own if memory is None else memory, mask=mask))

    class Dense(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x):
            return x + self.dropout(self.down(nnx.relu(self.up(self.norm(x)))))

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(VOCABULARY, WIDTH, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
            self.places = nnx.Embed(max(SOURCE_LENGTH, TARGET_LENGTH), WIDTH, rngs=rngs)
            self.encoder = nnx.List([nnx.List([Attention(rngs), Dense(rngs)]) for _ in range(LAYERS)])
            self.decoder = nnx.List([nnx.List([Attention(rngs), Attention(rngs), Dense(rngs)]) for _ in range(LAYERS)])
            self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
            self.head = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)

        def embed(self, ids):
            return self.words(ids) + self.places(jnp.arange(ids.shape[1]))

        def encode(self, source):
            x = self.embed(source)
            for attend, dense in self.encoder:
                x = dense(attend(x, None, (source != PAD)[:, None, None, :]))
            return self.norms[0](x)

        def decode(self, memory, source, prefix):
            x = self.embed(prefix)
            earlier = jnp.tril(jnp.ones((prefix.shape[1], prefix.shape[1]), bool))
            for attend, attend_source, dense in self.decoder:
                x = attend(x, None, earlier[None, None])
                x = dense(attend_source(x, memory, (source != PAD)[:, None, None, :]))
            return self.norms[1](x)

    model = Network(nnx.Rngs(seed))
    steps = epochs * len(batches(train, 0))
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_onecycle_schedule(steps, LEARNING_RATE)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, source, target):
        def loss(model):
            hidden = model.decode(model.encode(source), source, target[:, :-1])
            value, statistics = linear_softmax_cross_entropy_with_statistics(
                target[:, 1:],
                hidden,
                model.head.kernel[...].T,
                model.head.bias[...],
                label_smoothing=smoothing,
                ignore_index=PAD,
            )
            return value, jnp.stack(sums_of(statistics))

        (_, sums), gradients = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, gradients)
        return sums

    said = np.zeros((epochs, 3))
    for epoch in range(epochs):
        for batch in batches(train, seed + epoch):
            said[epoch] += step(model, optimizer, jnp.asarray(train.source[batch]), jnp.asarray(train.target[batch]))
    model.eval()
    encode = nnx.jit(lambda model, source: model.encode(source))
    decode = nnx.jit(lambda model, memory, source, prefix: model.head(model.decode(memory, source, prefix)))
    return Translator(
        lambda source: np.asarray(encode(model, source)),
        lambda memory, source, prefix: np.asarray(decode(model, memory, source, prefix)),
        said,
    )


def sums_of(statistics: SoftmaxStatistics) -> tuple:
    """The tokens' entropy, how many were predicted, and how many there are; padding has none of them."""
    return statistics.entropy.sum(), statistics.correct.sum(), (statistics.predicted >= 0).sum()


def batches(train: Corpus, seed: int, size: int = 64) -> np.ndarray:
    """Shuffled indices, a batch a row."""
    order = np.random.default_rng(seed).permutation(len(train.source))
    return order[: len(order) // size * size].reshape(-1, size)


# What a trained translator is measured by.


def search(translator: Translator, source: np.ndarray, *, beams: int = 1, temperature: float = 1.0) -> list[str]:
    """The most probable translations that a beam search finds; one beam is greedy search."""
    encode, decode, _ = translator
    count, places = len(source), np.arange(len(source))[:, None]
    rows_of_beams = np.repeat(np.arange(count), beams)
    memory, repeated = encode(source)[rows_of_beams], source[rows_of_beams]
    prefix = np.full((count, beams, TARGET_LENGTH - 1), PAD)
    prefix[..., 0] = BOS
    score = np.where(np.arange(beams) == 0, 0.0, -np.inf) * np.ones((count, 1))
    for step in range(1, TARGET_LENGTH):
        logits = decode(memory, repeated, prefix.reshape(count * beams, -1))[:, step - 1]
        log_p = log_softmax(logits / temperature).reshape(count, beams, VOCABULARY)
        ended = (prefix == EOS).any(-1)
        log_p[ended] = np.where(np.arange(VOCABULARY) == PAD, 0.0, -np.inf)
        total = (score[..., None] + log_p).reshape(count, -1)
        best = np.argsort(-total, axis=-1, kind="stable")[:, :beams]
        score, prefix = total[places, best], prefix[places, best // VOCABULARY]
        if step == TARGET_LENGTH - 1:
            break  # the last token can only be EOS, which is no part of the text
        prefix[..., step] = best % VOCABULARY
    return texts(prefix[:, 0])


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    z = z.astype(np.float64) - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def tokens(translator: Translator, part: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of every token that is not padding, given the right tokens before it."""
    encode, decode, _ = translator
    logits = decode(encode(part.source), part.source, part.target[:, :-1])
    labels = part.target[:, 1:]
    return labels[labels != PAD], logits[labels != PAD]


def quality(found: list[str], answers: list[list[str]]) -> dict[str, float]:
    """Exact matches in percent, and BLEU of characters; any right answer counts."""
    most = max(map(len, answers))
    references = [[right[i] if i < len(right) else None for right in answers] for i in range(most)]
    matches = np.mean([text in right for text, right in zip(found, answers, strict=True)])
    return {"exact": 100 * float(matches), "BLEU": sacrebleu.corpus_bleu(found, references, tokenize="char").score}


def measure(translator: Translator, validation: Corpus, test: Corpus) -> dict[str, float]:
    """Likelihood and calibration of the next token, and the translations, before and after temperature scaling."""
    labels, logits = tokens(translator, validation)
    scaler = TemperatureScaling().fit(logits, labels)
    labels, logits = tokens(translator, test)
    entropy, correct, count = translator.said[-1]
    measured = {"entropy in training": entropy / count, "accuracy in training": 100 * correct / count}
    measured["temperature"] = float(scaler.temperature_)
    for name, z in (("", logits), (" scaled", scaler.transform(logits))):
        measured[f"NLL{name}"] = float(negative_log_likelihood(labels, z, from_logits=True))
        measured[f"ECE{name}"] = 100 * float(expected_calibration_error(labels, z, from_logits=True))
    searches = {"greedy": {}, "beam": {"beams": 4}, "beam scaled": {"beams": 4, "temperature": measured["temperature"]}}
    for name, options in searches.items():
        for what, value in quality(search(translator, test.source, **options), test.answers).items():
            measured[f"{what} {name}"] = value
    return measured


def findings(results: dict[float, list[dict[str, float]]]) -> list[str]:
    """How often a smoothed translator is the better one, seed by seed, beside what the paper found."""
    lines = []
    hard = results.get(0.0, [])
    for smoothing in sorted(results):
        if not smoothing or not hard:
            continue
        for name, better, paper in (("NLL", "lower", "higher"), ("BLEU beam", "higher", "higher")):
            gaps = np.array([s[name] - h[name] for s, h in zip(results[smoothing], hard, strict=True)])
            higher, lower = (gaps > 0).sum(), (gaps < 0).sum()
            lines.append(
                f"smoothing {smoothing:g}: {name} ({better} is better) changes by {gaps.mean():+.3f}, up in {higher} "
                f"and down in {lower} of {len(gaps)} seeds; Müller et al.: {paper}"
            )
    return lines


def main(arguments: list[str] | None = None) -> dict[float, list[dict[str, float]]]:
    """Train a translator for each amount of smoothing and each seed, and print what each is worth."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--framework", choices=["torch", "jax"], default="torch")
    parser.add_argument("--smoothing", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--wrong-targets", type=float, default=0.1, help="the share of training targets with an error")
    parser.add_argument("--quick", action="store_true", help="one seed and a short training, to try the script")
    parser.add_argument("--json", type=Path, help="a file for the numbers, which lsmooth study --translation reads")
    given = parser.parse_args(arguments)

    size, epochs = (2560, 3) if given.quick else (6400, 14)
    seeds = 1 if given.quick else given.seeds
    held_out = 100 if given.quick else 500
    train, validation, test = corpus(size, 0, given.wrong_targets), corpus(held_out, 1), corpus(held_out, 2)
    make = {"torch": torch_translator, "jax": jax_translator}[given.framework]
    results = {}
    for smoothing in given.smoothing:
        results[smoothing] = []
        for seed in range(seeds):
            start = time.perf_counter()
            measured = measure(make(train, smoothing, 1000 * seed, epochs), validation, test)
            results[smoothing].append(measured)
            print(f"smoothing {smoothing:g}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{'mean of ' + str(seeds) + ' seeds':<22}" + "".join(f"{f'smoothing {s:g}':>20}" for s in results))
    for name in results[given.smoothing[0]][0]:
        cells = [np.array([measured[name] for measured in runs]) for runs in results.values()]
        errors = [x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0 for x in cells]
        print(f"{name:<22}" + "".join(f"{f'{x.mean():.3f} ± {e:.3f}':>20}" for x, e in zip(cells, errors, strict=True)))
    print("\n" + "\n".join(findings(results)))
    if given.json:
        content = {"framework": given.framework, "smoothing": {f"{s:g}": runs for s, runs in results.items()}}
        given.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
