"""Self-conditioning: nothing while the projection is zero, exact in the cached path, blind for the source, free of
calls in sampling.
"""

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import PAIR
from diffusion_bert.generation.canvas import blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.denoise import guided_denoiser
from diffusion_bert.model.checkpoint import load_checkpoint, restore, save_checkpoint
from diffusion_bert.model.heads import Guess, expected_embedding
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.trainer import Trainer
from tests.helpers.chain import BERT_MASK, BERT_VOCAB, make_batch, make_denoiser, mixed_rows
from tests.helpers.models import grammar_pairs, new_model
from tests.helpers.scripts import new_trainer, write_data

TAU = torch.tensor([0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
each_attention = pytest.mark.parametrize("attention", ["isolated", "full"])


def half_masked(batch):
    x_t = batch.input_ids.clone()
    x_t[batch.target_mask & (batch.columns % 2 == 1)] = BERT_MASK
    return x_t


def awake(**options):
    """A self-conditioned denoiser whose projection is no longer zero."""
    denoiser = make_denoiser(self_conditioning=True, **options)
    torch.nn.init.normal_(
        denoiser.self_conditioning.projection.weight, std=0.5, generator=torch.Generator().manual_seed(1)
    )
    return denoiser


def random_guess(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(count, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- the network ---------------------------------------------------------------------------------------------------


@each_attention
@pytest.mark.parametrize("timestep", ["none", "prefix", "layerwise"])
def test_a_zero_projection_is_the_plain_model(attention, timestep):
    """A fresh self-conditioned network gives the outputs of the plain one to the bit, whatever the guess, in one pass
    or two.
    """
    plain, other = (make_denoiser(attention=attention, timestep=timestep, self_conditioning=on) for on in (False, True))
    batch = make_batch(mixed_rows())
    x_t = half_masked(batch)
    count = int((x_t == BERT_MASK).sum())
    with torch.no_grad():
        expected = plain(batch, x_t, TAU)
        for actual in (
            other(batch, x_t, TAU),
            other(batch, x_t, TAU, random_guess(count)),
            other(batch, x_t, TAU, two_pass=True),
        ):
            assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])


def test_the_expected_embedding():
    """A certain word gives its own embedding, an even chance of two words their mean; forbidden words (-inf) count for
    nothing.
    """
    table = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_mu = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]], dtype=torch.float64).log()
    torch.testing.assert_close(expected_embedding(log_mu, table), torch.stack([table[1], (table[0] + table[2]) / 2]))


def test_the_source_never_sees_the_guess():
    """With isolated attention no guess changes a source state or a length; the target's states change, and a guess of
    zeros changes nothing.
    """
    denoiser, batch = awake(), make_batch(mixed_rows())
    x_t = half_masked(batch)
    rows, columns = (x_t == BERT_MASK).nonzero(as_tuple=True)
    with torch.no_grad():
        states = denoiser.hidden_states(batch, x_t, TAU)
        guessed = denoiser.hidden_states(batch, x_t, TAU, Guess(rows, columns, random_guess(len(rows))))
        zeros = denoiser.hidden_states(
            batch, x_t, TAU, Guess(rows, columns, torch.zeros(len(rows), 32, dtype=torch.float64))
        )
        lengths = [denoiser(batch, x_t, TAU, guess)[1] for guess in (None, random_guess(len(rows)))]
    source = batch.valid & ~batch.is_target_segment
    assert torch.equal(states[source], guessed[source]) and torch.equal(lengths[0], lengths[1])
    target = batch.valid & batch.is_target_segment
    has_mask = (x_t == BERT_MASK).any(-1)[:, None]
    assert ((states - guessed).abs().amax(-1) > 1e-6)[target & has_mask].all()
    assert torch.equal(states, zeros)


@pytest.mark.parametrize("timestep", ["none", "prefix", "layerwise"])
def test_cached_and_whole_pass_agree(timestep):
    """Target states over the encoded source are those of the whole sequence, guess included."""
    denoiser, rows = awake(timestep=timestep), mixed_rows()
    batch = make_batch(rows)
    x_t = half_masked(batch)
    places = (x_t == BERT_MASK).nonzero(as_tuple=True)
    vectors = random_guess(len(places[0]))
    width = int(batch.target_length.max()) + 1
    with torch.no_grad():
        whole = denoiser.hidden_states(batch, x_t, TAU, Guess(*places, vectors))
        targets = torch.stack(
            [
                torch.nn.functional.pad(x_t[i, start:], (0, width))[:width]
                for i, start in enumerate(batch.source_length.tolist())
            ]
        )
        columns = places[1] - batch.source_length[places[0]]
        cached = denoiser.target_states(
            denoiser.encode_source(batch), targets, batch.target_length, TAU, Guess(places[0], columns, vectors)
        )
    for row, (start, length) in enumerate(zip(batch.source_length.tolist(), batch.target_length.tolist())):
        torch.testing.assert_close(
            cached[row, : length + 1], whole[row, start : start + length + 1], rtol=1e-9, atol=1e-9
        )


@each_attention
def test_two_passes_by_hand(attention):
    """two_pass is: one pass, its expected embeddings, and a pass with them; no gradient flows through the first one."""
    denoiser, batch = awake(attention=attention), make_batch(mixed_rows())
    x_t = half_masked(batch)
    with torch.no_grad():
        first = denoiser(batch, x_t, TAU)[0]
    guess = first.exp().to(torch.float64) @ denoiser.mlm.bert.embeddings.word_embeddings.weight.detach()
    gradients, outputs = [], []
    for keywords in ({"guess": guess}, {"two_pass": True}):
        denoiser.zero_grad(set_to_none=True)
        outputs.append(denoiser(batch, x_t, TAU, **keywords)[0])
        outputs[-1][:, 10].sum().backward()
        gradients.append([parameter.grad for parameter in denoiser.parameters() if parameter.grad is not None])
    torch.testing.assert_close(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], first)
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-6) for one, two in zip(*gradients))
    assert first.shape[1] == BERT_VOCAB


# ---- sampling ------------------------------------------------------------------------------------------------------


def awake_model(attention: str = "isolated"):
    model = new_model(attention=attention, self_conditioning=True, word_freq_lambda=0.0)
    torch.nn.init.normal_(
        model.denoiser.self_conditioning.projection.weight, std=1.0, generator=torch.Generator().manual_seed(1)
    )
    return model


@each_attention
def test_a_call_gets_what_the_last_one_expected(attention):
    """Over three calls with revealed words, a finished row and a place masked again, log mu is that of a whole pass
    with the guess made by hand.
    """
    model = awake_model(attention)
    collator, mask = Collator(model.tokenizer, model.task.prompt), model.tokenizer.mask_id
    group = [
        blank_canvas(PAIR, model.tokenizer.encode(pair.source), length, mask)
        for pair, length in zip(grammar_pairs()[:3], (3, 5, 4))
    ]
    x_t, denoise = guided_denoiser(model, group, collator)
    tau, table = torch.full((3,), 0.5, dtype=torch.float64), model.denoiser.mlm.bert.embeddings.word_embeddings.weight
    writable = torch.ones(table.shape[0], dtype=torch.bool)
    writable[model.tokenizer.unwritable_ids] = False

    def by_hand(canvas, active, guess):
        whole = collator.batch(
            [(PAIR, group[i].source, canvas[row, : len(group[i].words)].tolist()) for row, i in enumerate(active)]
        )
        with torch.no_grad():
            return model.denoiser(whole, whole.input_ids, tau[: len(active)], guess)[0]

    def agree(actual, expected):
        shown = actual.isfinite()
        assert shown.any(-1).all()
        torch.testing.assert_close(actual[shown], expected[shown], rtol=1e-4, atol=1e-4)

    first = by_hand(x_t, [0, 1, 2], None)
    agree(denoise(x_t.clone(), tau, torch.arange(3)), first)
    kept = {place: first[i].exp() @ table for i, place in enumerate(map(tuple, (x_t == mask).nonzero().tolist()))}

    later = x_t.clone()
    later[0, :3], later[1, 0], later[2, 3] = 200, 201, 202  # row 0 is finished
    guess = torch.stack([kept[place] for place in map(tuple, (later == mask).nonzero().tolist())])
    second = by_hand(later[1:], [1, 2], guess)
    assert not torch.allclose(second, by_hand(later[1:], [1, 2], None), atol=1e-3)
    agree(denoise(later[1:].clone(), tau[:2], torch.tensor([1, 2])), second)

    again = later.clone()
    again[1, 0], again[1, 1], again[2, :4] = mask, 203, 204  # masked again: nothing was expected there in the last call
    last = {place: second[i].exp() @ table for i, place in enumerate(map(tuple, (later == mask).nonzero().tolist()))}
    guess = torch.stack([last.get((1, column), torch.zeros(table.shape[1])) for column in (0, 2, 3, 4)])
    agree(denoise(again[1:2].clone(), tau[:1], torch.tensor([1])), by_hand(again[1:2], [1], guess))


@each_attention
@pytest.mark.parametrize("sampler", ["confidence", "ancestral"])
def test_no_extra_calls(attention, sampler, monkeypatch):
    """Self-conditioned or not, decoding takes the same number of passes (ancestral: without it, answers about unchanged
    rows are remembered); with a zero projection it writes the same words.
    """
    words, passes = [], []
    for on in (False, True):
        model = new_model(attention=attention, self_conditioning=on)
        collator = Collator(model.tokenizer, model.task.prompt)
        group = [
            blank_canvas(PAIR, model.tokenizer.encode(pair.source), 6, model.tokenizer.mask_id)
            for pair in grammar_pairs()[:4]
        ]
        run, count = model.denoiser._run, []
        monkeypatch.setattr(
            model.denoiser, "_run", lambda *a, run=run, count=count, **k: count.append(1) or run(*a, **k)
        )
        outputs = decode(
            model, group, SamplingConfig(sampler=sampler, num_steps=4, known_words=False, rank_by="revealed"), collator
        )
        words.append([output.ids for output in outputs])
        passes.append((len(count), [output.nfe for output in outputs]))
    assert words[0] == words[1]
    if sampler == "confidence":
        assert passes[0] == passes[1]
    else:
        assert all(plain <= conditioned <= 4 for plain, conditioned in zip(passes[0][1], passes[1][1]))


# ---- training and checkpoints --------------------------------------------------------------------------------------

SETTINGS = {
    "self_conditioning": True,
    "batch_size": 8,
    "max_steps": 8,
    "epochs": 9,
    "weight_decay": 0.0,
    "warmup_ratio": 0.0,
    "save_steps": 100,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """32 training pairs: four steps an epoch."""
    return write_data(tmp_path_factory.mktemp("data"), train=32, valid=8, test=4)


@each_attention
def test_training_moves_the_projection(data, tmp_path, attention):
    """Eight steps lower the validation NELBO and move every parameter; some steps have a first pass and some have
    none.
    """
    trainer = new_trainer(data, tmp_path, attention=attention, **SETTINGS)
    denoiser, passes = trainer.model.denoiser, []
    states = denoiser._conditioned_states
    denoiser._conditioned_states = lambda *a, **k: (
        (passes.append(k["two_pass"]) if denoiser.training else None) or states(*a, **k)
    )
    before = {name: value.detach().clone() for name, value in denoiser.named_parameters()}
    assert not before["self_conditioning.projection.weight"].any()
    start = trainer.validate()["valid_nelbo"]
    trainer.fit()
    assert set(passes) == {True, False} and len(passes) == 8
    assert not [name for name, value in denoiser.named_parameters() if torch.equal(value, before[name])]
    assert trainer.state.best_nelbo < 0.98 * start


def test_resumed_to_the_bit(data, tmp_path):
    """The first passes are keyed by the step: interrupted after three steps and resumed, the weights are those of the
    uninterrupted run.
    """
    whole, first = (new_trainer(data, tmp_path / name, **SETTINGS) for name in ("whole", "part"))
    whole.fit()
    step = first.step

    def stop_after_three(*share):
        step(*share)
        first.stop_signal = 2 if first.state.step == 3 else None

    first.step = stop_after_three
    assert first.fit().reason == "interrupted"
    payload = read_payload(first.run.last)
    second = Trainer(restore(payload), first.data, RunDirectory(first.run.path), resume=payload["training"])
    second.fit()
    one, two = (read_payload(trainer.run.last)["weights"] for trainer in (whole, second))
    assert one["self_conditioning.projection.weight"].any() and all(torch.equal(one[name], two[name]) for name in one)


def test_checkpoints(tmp_path):
    """The option and the projection come back; a checkpoint from before the option is read as one without it."""
    model = awake_model()
    save_checkpoint(tmp_path / "new.pt", model)
    loaded = load_checkpoint(tmp_path / "new.pt")
    assert loaded.config.model.self_conditioning
    assert torch.equal(
        loaded.denoiser.self_conditioning.projection.weight, model.denoiser.self_conditioning.projection.weight
    )
    save_checkpoint(tmp_path / "plain.pt", new_model())
    payload = read_payload(tmp_path / "plain.pt")
    del payload["config"]["self_conditioning"]
    assert restore(payload).denoiser.self_conditioning is None
