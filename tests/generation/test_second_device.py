"""On a machine with a GPU nothing is mixed up, and a sampler reads it at most twice a call: proven on a simulated
second device, for everything that writes, measures or trains forward.
"""

import copy

import pytest
import torch

from diffusion_bert.diffusion.times import sample_times
from diffusion_bert.generation import denoise
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.samplers import SAMPLERS
from diffusion_bert.training.distillation import Teacher
from diffusion_bert.training.noising import on_host
from diffusion_bert.training.objective import LossOptions, nelbo_terms
from diffusion_bert.training.yardstick import estimate_nelbo
from tests.helpers.models import grammar_pairs, new_model
from tests.helpers.second_device import ELSEWHERE, Elsewhere, second_device

TEXT = "How can I learn to cook?"
PER_CALL = 2  # reads of the device
AROUND = 14  # reads of a whole answer besides: lengths, tables, scores of finished texts


def write(generator, skill: str, **options):
    """The texts of a skill."""
    texts = {"paraphrase": TEXT, "fill": "How can I [MASK] to cook [MASK] today?", "complete": "How can I"}
    work = {"paraphrase": generator.paraphrase_text, "fill": generator.fill_masks, "complete": generator.complete_text}
    return work[skill](texts[skill], num_samples=1, best_of=2, num_steps=4, **options)


WAYS = {
    **{sampler: {"sampler": sampler} for sampler in SAMPLERS},
    "margin": {"sampler": "confidence", "margin": True},
    "remask by confidence": {"sampler": "remask", "remask_order": "confidence"},
    "guidance": {"guidance_scale": 0.5},
    "nucleus of few words": {"top_k": 5, "top_p": 0.8},
    "the likeliest word": {"temperature": 0.0},
    "content repetition": {"no_repeat": "content"},
}
MODELS = {"isolated": {}, "full": {"attention": "full"}, "self-conditioned": {"self_conditioning": True}}


def compared(monkeypatch, settings, skill, options) -> tuple[int, int]:
    """(reads, calls by a sampler) of an answer on the second device, which has the words of the answer here."""
    generator = DiffusionTextGenerator(new_model(**settings))
    here, calls, ask = write(generator, skill, **options), [], denoise.GuidedDenoiser.__call__

    def counted(self, *args):
        calls.append(1)
        return ask(self, *args)

    with second_device(monkeypatch, generator.model) as reads:
        monkeypatch.setattr(denoise.GuidedDenoiser, "__call__", counted)
        there = write(generator, skill, **options)
    assert there == here
    return len(reads), len(calls)


@pytest.mark.parametrize("way", WAYS)
def test_a_paraphrase(monkeypatch, way):
    """Every sampler and option: the same words, and few reads."""
    reads, calls = compared(monkeypatch, {"source_dropout": 0.1}, "paraphrase", WAYS[way])
    assert reads <= PER_CALL * calls + AROUND, (reads, calls, Elsewhere.reads)


@pytest.mark.parametrize("skill", ("fill", "complete"))
@pytest.mark.parametrize("kind", MODELS)
def test_every_skill_and_kind_of_model(monkeypatch, kind, skill):
    """Whole sequences and kept sources, with and without what was expected before."""
    reads, calls = compared(monkeypatch, MODELS[kind], skill, {})
    assert reads <= PER_CALL * calls + AROUND, (reads, calls, Elsewhere.reads)


@pytest.mark.parametrize("kind", MODELS)
def test_measuring_and_training_forward(monkeypatch, kind):
    """The NELBO, the terms of a training batch, smoothed and taught: as here, but for rounding."""
    model = new_model(**MODELS[kind])
    generator = DiffusionTextGenerator(model)
    examples = [
        (0, generator.tokenizer.encode(p.source), generator.tokenizer.encode(p.target)) for p in grammar_pairs()
    ]
    batch = generator.collator.batch([example for example in examples if len(example[2]) <= 24][:4])
    t = sample_times(len(batch), 16, torch.Generator().manual_seed(0))
    x_t = on_host(model.diffusion).q_sample(
        batch.input_ids, t.double() / 16, batch.target_mask, torch.Generator().manual_seed(1)
    )
    teacher = Teacher(copy.deepcopy(model.denoiser), 0.5)
    ways = (LossOptions(), LossOptions(label_smoothing=0.1), LossOptions(teacher=teacher))

    def measured(device):
        sent, places = batch.to(device), tuple(index.to(device) for index in batch.masked_places(x_t))
        two_pass = kind == "self-conditioned"
        rows = [
            nelbo_terms(
                model.denoiser, model.diffusion, sent, x_t.to(device), t.to(device), 16, True, way, two_pass, places
            )
            for way in ways
        ]
        rows.append(estimate_nelbo(model.denoiser, model.diffusion, [batch], device=device))
        return [[float(value) for value in vars(terms).values()] for terms in rows]

    with torch.no_grad():
        here = measured("cpu")
    with second_device(monkeypatch, model):
        for table in (part._parameters for part in teacher.denoiser.modules()):
            table.update({key: Elsewhere(value.data) for key, value in table.items() if value is not None})
        for part in teacher.denoiser.modules():
            part._buffers.update({key: Elsewhere(value) for key, value in part._buffers.items() if value is not None})
        monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)  # it is there already
        there = measured(ELSEWHERE)
    for one, other in zip(here, there):
        assert one == pytest.approx(other, rel=1e-6)
