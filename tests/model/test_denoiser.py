"""The denoiser: a proper mu, source isolation, the cached path, time conditioning, padding and the copy head, on tiny
random BERTs in float64.
"""

import math
from dataclasses import replace

import pytest
import torch

from diffusion_bert.model.heads import CopyHead, TimeEmbedding
from tests.helpers.chain import (
    BERT_MASK,
    BERT_VOCAB,
    FORBIDDEN,
    MAX_TARGET,
    PAD,
    SEP,
    UNK,
    make_batch,
    make_denoiser,
    mixed_rows,
)

TIMESTEPS = ("none", "prefix", "layerwise")
each_timestep = pytest.mark.parametrize("timestep", TIMESTEPS)
each_attention = pytest.mark.parametrize("attention", ("isolated", "full"))
TAU = torch.tensor([0.2, 0.5, 0.9, 1.0], dtype=torch.float64)


def noised(batch, seed: int = 0) -> torch.Tensor:
    """x_t with about 60 % of the target masked, at least one place per row."""
    hidden = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    hidden[torch.arange(len(batch)), batch.source_length] = True
    return torch.where(batch.target_mask & hidden, BERT_MASK, batch.input_ids)


def source_states(states: torch.Tensor, batch) -> torch.Tensor:
    return states[~batch.is_target_segment]


def close(actual, expected, atol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def differ(actual, expected):
    assert float((actual - expected).abs().max()) > 1e-6


# ---- mu ------------------------------------------------------------------------------------------------------------


@each_attention
@each_timestep
@pytest.mark.parametrize("copy_head", (False, True))
@torch.no_grad()
def test_mu_is_a_distribution(attention, timestep, copy_head):
    """log mu has one row per masked target word in row-major order, sums to 1, and gives [PAD], [CLS], [SEP] and [MASK]
    no mass, all others some.
    """
    batch = make_batch(mixed_rows())
    x_t = noised(batch)
    log_mu, lengths = make_denoiser(attention=attention, timestep=timestep, copy_head=copy_head)(batch, x_t, TAU)
    assert log_mu.shape == (int((x_t == BERT_MASK).sum()), BERT_VOCAB) and lengths.shape == (4, MAX_TARGET)
    close(log_mu.exp().sum(-1).double(), torch.ones(len(log_mu), dtype=torch.float64), atol=1e-5)
    assert bool((log_mu[:, FORBIDDEN] == float("-inf")).all())
    allowed = [v for v in range(BERT_VOCAB) if v not in FORBIDDEN]
    assert bool(log_mu[:, allowed].isfinite().all())


@torch.no_grad()
def test_masks_in_the_source_are_no_masked_places():
    """Only masked *target* words are predicted: a [MASK] in the source is just a word that is read."""
    batch = make_batch([([5, BERT_MASK, 11], [20, 21])])
    x_t = torch.where(batch.target_mask, BERT_MASK, batch.input_ids)
    log_mu, _ = make_denoiser(copy_head=False)(batch, x_t, TAU[:1])
    assert len(log_mu) == 2


@torch.no_grad()
def test_nothing_masked():
    """A clean batch gives an empty log mu and the length logits."""
    batch = make_batch(mixed_rows())
    log_mu, lengths = make_denoiser()(batch, batch.input_ids, TAU)
    assert log_mu.shape == (0, BERT_VOCAB) and bool(lengths.isfinite().all())


# ---- attention -----------------------------------------------------------------------------------------------------


@each_timestep
@torch.no_grad()
def test_source_is_isolated(timestep):
    """isolated: changing target words, target length or tau changes no source state and no length logit."""
    denoiser, rows = make_denoiser(timestep=timestep), mixed_rows()
    batch = make_batch(rows)
    states, (_, lengths) = denoiser.hidden_states(batch, noised(batch), TAU), denoiser(batch, noised(batch), TAU)
    other_words = make_batch([(source, [30 + i for i in range(len(target))]) for source, target in rows])
    other_lengths = make_batch([(source, target[:1] if len(target) > 1 else target * 6) for source, target in rows])
    for changed, tau in ((other_words, TAU), (other_lengths, TAU), (batch, TAU.flip(0))):
        close(
            source_states(denoiser.hidden_states(changed, changed.input_ids, tau), changed),
            source_states(states, batch),
        )
        close(denoiser(changed, noised(changed, 1), tau)[1], lengths)


@each_timestep
@torch.no_grad()
def test_full_attention_still_has_target_free_lengths(timestep):
    """full: the target does change the source states, but the length logits come from a pass of their own and do not
    depend on it or on tau.
    """
    denoiser, rows = make_denoiser(attention="full", timestep=timestep), mixed_rows()
    batch = make_batch(rows)
    states, (_, lengths) = denoiser.hidden_states(batch, noised(batch), TAU), denoiser(batch, noised(batch), TAU)
    changed = make_batch([(source, [30 + i for i in range(len(target))]) for source, target in rows])
    differ(
        source_states(denoiser.hidden_states(changed, changed.input_ids, TAU), changed), source_states(states, batch)
    )
    shorter = make_batch([(source, target[:1]) for source, target in rows])
    for other, tau in ((changed, TAU), (shorter, TAU), (batch, TAU.flip(0))):
        close(denoiser(other, noised(other, 2), tau)[1], lengths)


@each_attention
@each_timestep
@torch.no_grad()
def test_attention_is_bidirectional(attention, timestep):
    """The decoder flag makes nothing causal: a later target word changes earlier target states, a later source word
    earlier source states.
    """
    denoiser = make_denoiser(attention=attention, timestep=timestep)
    batch = make_batch([([5, 10, 11, 12], [20, 21, 22, 23])])
    states = denoiser.hidden_states(batch, batch.input_ids, TAU[:1])[0]
    first, last = int(batch.source_length), int(batch.source_length + batch.target_length) - 1
    later = batch.input_ids.clone()
    later[0, last] = 33
    differ(denoiser.hidden_states(batch, later, TAU[:1])[0, first], states[first])
    later = batch.input_ids.clone()
    later[0, 4] = 33
    differ(denoiser.hidden_states(batch, later, TAU[:1])[0, 1], states[1])
    encoded = denoiser.encode_source(batch).states[0, 1]
    differ(denoiser.encode_source(replace(batch, input_ids=later)).states[0, 1], encoded)


@each_timestep
@torch.no_grad()
def test_cached_path_is_bidirectional(timestep):
    """On the cached path, too, a later target word changes earlier target states."""
    denoiser, batch = make_denoiser(timestep=timestep), make_batch([([5, 10, 11], [20, 21, 22])])
    source, target = denoiser.encode_source(batch), torch.tensor([[BERT_MASK, 21, 22, SEP]])
    states = denoiser.target_states(source, target, batch.target_length, TAU[:1])
    changed = torch.tensor([[BERT_MASK, 21, 33, SEP]])
    differ(denoiser.target_states(source, changed, batch.target_length, TAU[:1])[0, 0], states[0, 0])


@each_attention
@torch.no_grad()
def test_target_reads_the_source(attention):
    """Target states do depend on the words of the source."""
    denoiser = make_denoiser(attention=attention)
    batch, other = make_batch([([5, 10, 11], [20, 21])]), make_batch([([5, 10, 30], [20, 21])])
    states = [denoiser.hidden_states(b, b.input_ids, TAU[:1])[0, int(b.source_length) :] for b in (batch, other)]
    differ(*states)


@each_attention
@each_timestep
@torch.no_grad()
def test_padding_never_influences_other_rows(attention, timestep):
    """A row in a batch of mixed lengths has the states, mu and length logits it has alone."""
    denoiser, rows = make_denoiser(attention=attention, timestep=timestep), mixed_rows()
    batch = make_batch(rows)
    x_t = noised(batch)
    states, (log_mu, lengths) = denoiser.hidden_states(batch, x_t, TAU), denoiser(batch, x_t, TAU)
    places = (x_t == BERT_MASK).nonzero()[:, 0]
    for row, pair in enumerate(rows):
        alone = make_batch([pair])
        width = alone.input_ids.shape[1]
        close(denoiser.hidden_states(alone, x_t[row : row + 1, :width], TAU[row : row + 1])[0], states[row, :width])
        log_mu_alone, lengths_alone = denoiser(alone, x_t[row : row + 1, :width], TAU[row : row + 1])
        close(log_mu_alone.exp(), log_mu[places == row].exp(), atol=1e-6)
        close(lengths_alone[0], lengths[row])


@torch.no_grad()
def test_what_stands_in_the_padding_is_never_read():
    """Any ids in the padded places leave states and mu as they are."""
    denoiser, batch = make_denoiser(), make_batch(mixed_rows())
    x_t = noised(batch)
    dirty = torch.where(batch.valid, x_t, 35)
    close(denoiser.hidden_states(batch, dirty, TAU)[batch.valid], denoiser.hidden_states(batch, x_t, TAU)[batch.valid])


# ---- the cached path -----------------------------------------------------------------------------------------------


def target_canvas(batch, x_t: torch.Tensor) -> torch.Tensor:
    """The target segments of x_t moved to the left edge: words, [SEP], padding; [B, longest + 1]."""
    canvas = torch.full((len(batch), int(batch.target_length.max()) + 1), PAD)
    for row, (start, length) in enumerate(zip(batch.source_length.tolist(), batch.target_length.tolist())):
        canvas[row, : length + 1] = x_t[row, start : start + length + 1]
    return canvas


@each_timestep
@pytest.mark.parametrize("copy_head", (False, True))
@torch.no_grad()
def test_cached_path_equals_the_full_pass(timestep, copy_head):
    """encode_source + target_states + word_log_probs give the full pass' states, mu and length logits, with padding of
    mixed lengths.
    """
    denoiser, batch = make_denoiser(timestep=timestep, copy_head=copy_head), make_batch(mixed_rows())
    x_t = noised(batch)
    full, (log_mu, lengths) = denoiser.hidden_states(batch, x_t, TAU), denoiser(batch, x_t, TAU)
    source = denoiser.encode_source(batch)
    seen = torch.arange(source.states.shape[1]) < batch.source_length[:, None]
    close(source.states[seen], source_states(full, batch))
    canvas = target_canvas(batch, x_t)
    states = denoiser.target_states(source, canvas, batch.target_length, TAU)
    close(
        states[torch.arange(canvas.shape[1]) <= batch.target_length[:, None]],
        full[batch.is_target_segment & batch.valid],
    )
    rows, columns = (canvas == BERT_MASK).nonzero(as_tuple=True)
    copyable = batch.copyable[:, : source.input_ids.shape[1]]
    cached_log_mu = denoiser.word_log_probs(states, (rows, columns), source.states, source.input_ids, copyable)
    close(cached_log_mu.exp(), log_mu.exp(), atol=1e-6)
    close(denoiser.length_logits(source.states), lengths)


@each_timestep
@torch.no_grad()
def test_encoded_source_is_reused_unchanged(timestep):
    """target_states leaves the cached keys and values as they were, so a second call, also with another length, gives
    what a fresh one does.
    """
    denoiser, batch = make_denoiser(timestep=timestep), make_batch(mixed_rows())
    source, canvas = denoiser.encode_source(batch), target_canvas(batch, noised(batch))
    before = [(key.clone(), value.clone()) for key, value in source.keys_values]
    first = denoiser.target_states(source, canvas, batch.target_length, TAU)
    longer = torch.full((4, 7), BERT_MASK)
    longer[:, -1] = SEP
    denoiser.target_states(source, longer, torch.full((4,), 6), TAU)
    assert torch.equal(denoiser.target_states(source, canvas, batch.target_length, TAU), first)
    for (key, value), (key_before, value_before) in zip(source.keys_values, before):
        assert torch.equal(key, key_before) and torch.equal(value, value_before)


@each_timestep
@torch.no_grad()
def test_select_repeats_and_drops_rows(timestep):
    """select gives the sources of the rows named, in that order and as often: states, words, lengths, keys and
    values.
    """
    denoiser, batch = make_denoiser(timestep=timestep), make_batch(mixed_rows())
    source, canvas = denoiser.encode_source(batch), target_canvas(batch, noised(batch))
    rows = torch.tensor([3, 0, 0, 2])
    chosen = source.select(rows)
    assert torch.equal(chosen.states, source.states[rows]) and torch.equal(chosen.input_ids, source.input_ids[rows])
    assert torch.equal(chosen.source_length, batch.source_length[rows]) and torch.equal(
        chosen.prompt_length, batch.prompt_length[rows]
    )
    all_states = denoiser.target_states(source, canvas, batch.target_length, TAU)
    some = denoiser.target_states(chosen, canvas[rows], batch.target_length[rows], TAU[rows])
    valid = torch.arange(canvas.shape[1]) <= batch.target_length[rows][:, None]
    close(some[valid], all_states[rows][valid])


# ---- time ----------------------------------------------------------------------------------------------------------


@each_attention
@each_timestep
@torch.no_grad()
def test_time_enters_target_positions_only(attention, timestep):
    """tau changes target states (unless timestep is none) row by row; with isolated attention it changes nothing
    else.
    """
    denoiser, batch = make_denoiser(attention=attention, timestep=timestep), make_batch(mixed_rows())
    x_t = noised(batch)
    states = denoiser.hidden_states(batch, x_t, TAU)
    other_tau = torch.where(torch.arange(4) == 1, 0.05, TAU)
    changed = denoiser.hidden_states(batch, x_t, other_tau)
    others = torch.tensor([0, 2, 3])
    close(changed[others], states[others])
    target = (batch.is_target_segment & batch.valid)[1]
    if timestep == "none":
        close(changed, states)
    else:
        assert bool(((changed - states)[1][target].abs().max(-1).values > 1e-6).all())
    if attention == "isolated":
        close(changed[1][~batch.is_target_segment[1]], states[1][~batch.is_target_segment[1]])


@torch.no_grad()
def test_time_embedding_is_continuous():
    """A function of tau = t / T alone that moves little for a small step, so the number of steps may change after
    training.
    """
    torch.manual_seed(0)
    embedding = TimeEmbedding(16, 3).double()
    out = embedding(torch.tensor([0.5, 0.5 + 1e-6, 0.9], dtype=torch.float64))
    assert out.shape == (3, 3, 16)
    assert float((out[0] - out[1]).abs().max()) < 1e-3 < float((out[0] - out[2]).abs().max())


# ---- the copy head -------------------------------------------------------------------------------------------------


def slow_copy_head(
    head: CopyHead, log_vocabulary, states, places, all_source_states, source_ids, copyable
) -> torch.Tensor:
    """mu = (1 - g) softmax(vocabulary) + g sum_j a_j [source_j = v], place by place and word by word, as the formula
    stands.
    """
    result = []
    states = states[places]
    for n, row in enumerate(places[0].tolist()):
        columns = copyable[row].nonzero().flatten().tolist()
        mu = log_vocabulary[n].exp()
        if columns:
            query = head.query(states[n])
            scores = torch.stack([query @ head.key(all_source_states[row, j]) / math.sqrt(len(query)) for j in columns])
            gate = torch.sigmoid(head.gate(states[n]).squeeze())
            mu = (1 - gate) * mu
            for j, weight in zip(columns, torch.softmax(scores, -1)):
                mu = mu + gate * weight * torch.nn.functional.one_hot(source_ids[row, j], len(mu))
        result.append(mu)
    return torch.stack(result)


def copy_case(seed: int = 0):
    """A copy head and its inputs: a row with duplicated words (one also stands where nothing is copied, as in a
    prompt), one with a single word, one without a source; [N = 6, T = 4, S = 7, V = 12, D = 8].
    """
    torch.manual_seed(seed)
    head = CopyHead(8).double()
    source_ids = torch.tensor([[6, 5, 6, 5, 7, 5, 2], [1, 6, 2, 5, 5, 5, 0], [1, 2, 9, 9, 0, 0, 0]])
    copyable = torch.zeros(3, 7, dtype=torch.bool)
    copyable[0, 1:6] = True
    copyable[1, 1] = True
    places = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 3, 1, 2, 0, 3])
    states, all_source_states, logits = (
        torch.randn(*shape, dtype=torch.float64) for shape in ((3, 4, 8), (3, 7, 8), (6, 12))
    )
    return head, [logits, states, all_source_states], places, source_ids, copyable


FIRST_PLACE = torch.tensor([0]), torch.tensor([0])
FORBIDDEN_HERE = torch.tensor([float("-inf"), float("-inf"), float("-inf")] + [0.0] * 9, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_copy_head_equals_the_slow_reference(seed):
    """Value, and gradient with respect to every input and parameter, of the fast mixture in log space are those of the
    formula; no NaN anywhere.
    """
    head, inputs, places, source_ids, copyable = copy_case(seed)
    weights = torch.randn(6, 12, dtype=torch.float64).softmax(-1)
    gradients, values = [], []
    for fast in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        log_vocabulary = torch.log_softmax(leaves[0] + FORBIDDEN_HERE, dim=-1)
        if fast:
            log_mu = head(log_vocabulary, leaves[1], places, leaves[2], source_ids, copyable)
            mu, log_mu = log_mu.exp(), log_mu[:, 3:]
        else:
            mu = slow_copy_head(head, log_vocabulary, leaves[1], places, leaves[2], source_ids, copyable)
            log_mu = mu[:, 3:].log()
        values.append(mu)
        loss = -(weights[:, 3:] * log_mu).sum() + (mu**2).sum()
        gradients.append(torch.autograd.grad(loss, [*leaves, *head.parameters()]))
    close(values[0], values[1], atol=1e-6)
    close(values[0].sum(-1), torch.ones(6, dtype=torch.float64), atol=1e-6)
    assert not bool(values[0][:, :3].any())
    for fast, slow in zip(*gradients):
        assert bool(fast.isfinite().all())
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)


def test_copy_head_without_a_source():
    """A row without copyable words has g = 0 and its mu is the vocabulary's; whatever stands in its padding plays no
    part.
    """
    head, (logits, states, all_source_states), places, source_ids, copyable = copy_case()
    log_vocabulary = torch.log_softmax(logits + FORBIDDEN_HERE, dim=-1)
    weights, log_g, log_not_g = head.attend(states, places, all_source_states, copyable)
    assert (
        torch.equal(log_g[4:], torch.full((2,), float("-inf")))
        and not bool(log_not_g[4:].any())
        and not bool(weights[4:].any())
    )
    log_mu = head(log_vocabulary, states, places, all_source_states, source_ids, copyable)
    close(log_mu[4:], log_vocabulary[4:])
    close(weights[:4].sum(-1).double(), torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert not bool(weights[~copyable[places[0]]].any())


def test_copy_head_is_never_given_the_target():
    """Columns after a short source hold target words: they are not copied, even if they repeat a word of the source."""
    head, (logits, states, all_source_states), places, source_ids, copyable = copy_case()
    log_vocabulary = torch.log_softmax(logits + FORBIDDEN_HERE, dim=-1)
    first = head(log_vocabulary, states, places, all_source_states, source_ids, copyable)
    source_ids, all_source_states = source_ids.clone(), all_source_states.clone()
    source_ids[1, 3:], all_source_states[1, 3:] = torch.tensor([6, 8, 10, 11]), 3.0
    close(head(log_vocabulary, states, places, all_source_states, source_ids, copyable), first)


@pytest.mark.parametrize("gap", (20.0, 80.0, 95.0, 103.0, 500.0))
def test_copy_head_with_a_certain_pointer(gap):
    """Pointer scores hundreds of nats apart, where weights are denormal or 0, leave mu proper and the gradient
    finite.
    """
    head = CopyHead(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(1.0)
        head.query.bias.zero_()
        head.key.bias.zero_()
    states, all_source_states = (
        torch.ones(1, 1, 1, requires_grad=True),
        torch.tensor([[[0.0], [0.0], [-gap], [0.0]]], requires_grad=True),
    )
    logits = torch.zeros(1, 8, requires_grad=True)
    copyable = torch.tensor([[False, True, True, False]])
    log_mu = head(
        torch.log_softmax(logits, -1), states, FIRST_PLACE, all_source_states, torch.tensor([[1, 5, 6, 2]]), copyable
    )
    close(log_mu.exp().sum(-1), torch.ones(1), atol=1e-5)
    log_mu.sum().backward()
    for leaf in (states, all_source_states, logits, *head.parameters()):
        assert bool(leaf.grad.isfinite().all())


def test_copy_head_under_bf16_autocast():
    """Under bf16 autocast the shares are still added up in float32: mu sums to 1 to five digits, not to two."""
    head, (logits, states, all_source_states), places, source_ids, copyable = copy_case()
    log_vocabulary = torch.log_softmax(logits + FORBIDDEN_HERE, dim=-1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_mu = head.float()(log_vocabulary, states.float(), places, all_source_states.float(), source_ids, copyable)
    assert log_mu.dtype == torch.float32
    close(log_mu.exp().sum(-1), torch.ones(6), atol=1e-5)


@torch.no_grad()
def test_a_forbidden_word_in_the_source_is_not_copied():
    """A [SEP] or [MASK] among the words of the source gets no mass and no NaN; [UNK] may be copied like a word."""
    denoiser = make_denoiser()
    batch = make_batch([([5, 10, SEP, BERT_MASK, UNK], [20, 21, 22])])
    x_t = torch.where(batch.target_mask, BERT_MASK, batch.input_ids)
    log_mu, _ = denoiser(batch, x_t, TAU[:1])
    assert bool((log_mu[:, FORBIDDEN] == float("-inf")).all()) and not bool(log_mu.isnan().any())
    close(log_mu.exp().sum(-1).double(), torch.ones(3, dtype=torch.float64), atol=1e-5)
    (unknown,) = (batch.input_ids[0] == UNK).nonzero().flatten().tolist()
    weights, _, _ = denoiser.copy_head.attend(
        torch.ones(1, 1, 32).double(), FIRST_PLACE, torch.ones(1, 7, 32).double(), batch.copyable[:, :7]
    )
    assert float(weights[0, unknown]) > 0


@each_attention
@each_timestep
def test_gradients_reach_every_parameter(attention, timestep):
    """A loss over mu and lengths gives a finite gradient to every parameter: nothing is left out of training."""
    denoiser, batch = make_denoiser(attention=attention, timestep=timestep), make_batch(mixed_rows())
    log_mu, lengths = denoiser(batch, noised(batch), TAU)
    (-log_mu[:, 5:].sum() + (lengths**2).sum()).backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("masked", (True, False))
def test_shared_embeddings_get_the_whole_gradient(monkeypatch, masked):
    """The table shared by embeddings and vocabulary head has one gradient, the sum of both uses as autograd makes it,
    over two passes, also without a masked place; every other parameter has that of the plain way too.
    """
    denoiser, batch = make_denoiser(), make_batch(mixed_rows())
    x_t = noised(batch) if masked else batch.input_ids
    gradients = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(
                "diffusion_bert.model.denoiser.tied_embedding", lambda words, ids: (words(ids), words.weight)
            )
        denoiser.zero_grad(set_to_none=True)
        for _ in range(2):
            said = denoiser.true_words(batch, x_t, TAU)
            (said.log_mu.sum() + said.length_logits.square().sum()).backward()
        gradients.append(
            {name: parameter.grad for name, parameter in denoiser.named_parameters() if parameter.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys() and bool(
        gradients[0]["mlm.bert.embeddings.word_embeddings.weight"].any()
    )
    for name, gradient in gradients[0].items():
        close(gradient, gradients[1][name])


@each_attention
@each_timestep
@pytest.mark.parametrize("copy_head", (True, False))
def test_places_that_no_head_reads_may_be_left_out(attention, timestep, copy_head):
    """A training step says and learns the same whether the last layer works on all places or on those that are read;
    and it does leave some out.
    """
    denoiser, batch = (
        make_denoiser(attention=attention, timestep=timestep, copy_head=copy_head),
        make_batch(mixed_rows()),
    )
    table = torch.linspace(-1, 1, denoiser.bert_config.vocab_size, dtype=torch.float64)
    x_t = torch.where((batch.columns % 2 == 0) & batch.target_mask, batch.mask_id, batch.input_ids)
    results, rows = [], []
    dense = denoiser.mlm.bert.encoder.layer[-1].intermediate
    dense.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].flatten(0, -2).shape[0]))
    for denoiser.skips_unread in (True, False):
        denoiser.zero_grad(set_to_none=True)
        said = denoiser.true_words(batch, x_t, TAU, table)
        (said.log_mu.sum() + said.mean.sum() + said.length_logits.square().sum()).backward()
        gradients = {
            name: parameter.grad for name, parameter in denoiser.named_parameters() if parameter.grad is not None
        }
        results.append({"log_mu": said.log_mu, "mean": said.mean, "lengths": said.length_logits, **gradients})
    assert results[0].keys() == results[1].keys() and rows[0] < 0.8 * batch.input_ids.numel()
    for name, value in results[0].items():
        close(value, results[1][name])
