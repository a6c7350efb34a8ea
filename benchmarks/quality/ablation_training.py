"""One row of an ablation: trained, measured on the validation pairs, and its texts scored one by one."""

from __future__ import annotations

import numpy as np

from benchmarks.common import machine
from benchmarks.quality.ablation_rows import Row
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.text import metrics

COPIES = 8  # noised copies of each example for its own NELBO


def run_row(row: Row, config: RunConfig, examples: int) -> dict | None:
    """Train and evaluate; None when the user interrupted it."""
    from benchmarks.original_diffusion_bert.canvas import canvas_nelbo, write_on_canvas
    from benchmarks.original_diffusion_bert.objective import train_original
    from diffusion_bert.commands.training_run import set_threads
    from diffusion_bert.data.batching import spread_choice
    from diffusion_bert.data.skills import PAIR
    from diffusion_bert.data.splits import load_pairs
    from diffusion_bert.generation.generator import DiffusionTextGenerator
    from diffusion_bert.machine.device import pick_device
    from diffusion_bert.model.checkpoint import load_checkpoint
    from diffusion_bert.model.diffusion_model import build_model
    from diffusion_bert.training.distillation import load_teacher, teacher_of
    from diffusion_bert.training.preparation import encode_training_data
    from diffusion_bert.training.run_directory import RunDirectory
    from diffusion_bert.training.trainer import Trainer
    from diffusion_bert.training.yardstick import estimate_nelbo

    set_threads(config.training.num_threads)
    splits = load_pairs(config.data, config.training.seed)
    teacher = load_teacher(config)
    texts = (text for pair in splits.train for text in pair if text)
    model = build_model(config, texts, config.training.seed, None if teacher is None else teacher.tokenizer)
    train, data = encode_training_data(model, splits, fit=True)
    pairs = [pair for pair in splits.valid if pair.source is not None]
    tokenizer, room = model.tokenizer, config.data.max_length - 4 - len(data.collator.prompts[PAIR])
    sizes = [(len(tokenizer.encode(pair.source)), len(tokenizer.encode(pair.target))) for pair in pairs]
    fits = [
        i
        for i, (source, target) in enumerate(sizes)
        if target <= config.data.max_target_length and source + target <= room
    ]
    chosen = [fits[i] for i in spread_choice(len(fits), examples)]
    pairs = [pairs[index] for index in chosen]
    batches = [
        data.collator.batch([(PAIR, tokenizer.encode(p.source), tokenizer.encode(p.target))] * COPIES) for p in pairs
    ]
    if row.objective == "original":
        result = train_original(model.to(pick_device(config.training.device)), train, data.collator)
        nats, tokens = canvas_nelbo(model, data.valid, result["width"])
        nelbo = nats / tokens
        own = [canvas_nelbo(model, [batch], result["width"], seed)[0] / COPIES for seed, batch in enumerate(batches)]
        width = max([result["width"], *(batch.input_ids.shape[1] for batch in batches)])  # room for every text
        generator = DiffusionTextGenerator(model)
        sources = [tokenizer.encode(pair.source) for pair in pairs]
        written = write_on_canvas(model, sources, data.collator, width)
        history = []
    else:
        trainer = Trainer(model, data, RunDirectory.create(config), teacher=teacher_of(model, teacher))
        outcome = trainer.fit()
        if outcome.reason == "interrupted":
            return None
        result, nelbo = {"steps": outcome.state.step, "seconds": outcome.state.seconds}, outcome.state.best_nelbo
        history = [record for record in trainer.run.read_metrics() if record["kind"] == "validation"]
        model = load_checkpoint(trainer.run.best).to(trainer.device)
        correct = config.diffusion.time_correction
        terms = [
            estimate_nelbo(model.denoiser, model.diffusion, [batch], correct, seed, model.device)
            for seed, batch in enumerate(batches)
        ]
        own = [float(term.total) / COPIES for term in terms]
        generator = DiffusionTextGenerator(model, SamplingConfig(temperature=0.0, length_beam=1, rank_by="revealed"))
        outputs = generator.generate_ids(
            [(PAIR, tokenizer.encode(pair.source)) for pair in pairs], generator.options, [1] * len(pairs), 0
        )
        written = [(output[0].ids, output[0].nfe) for output in outputs]
    texts = [generator.sentence(list(ids), pair.source) for (ids, _), pair in zip(written, pairs)]
    return {
        **result,
        "parameters": model.parameter_count,
        "nelbo": nelbo,
        "nfe": float(np.mean([calls for _, calls in written])),
        "examples": {
            "nats": own,
            "words": [len(pair.target.split()) for pair in pairs],
            **text_scores(pairs, texts, config.data.task_name),
        },
        "pairs": chosen,
        "texts": texts,
        "validations": history,
        "machine": machine(),
    }


def text_scores(pairs, texts: list[str], task: str) -> dict[str, list[float]]:
    """Scores of each text, in percent, by name."""
    from diffusion_bert.text.metrics import metric_text

    triples = [
        (metric_text(pair.source), metric_text(pair.target), metric_text(text)) for pair, text in zip(pairs, texts)
    ]
    scores = {
        "rouge_l": [metrics.rouge_l(reference, text) for _, reference, text in triples],
        "bleu": [metrics.sentence_bleu(reference, text) for _, reference, text in triples],
        "overlap": [metrics.overlap(source, text) for source, _, text in triples],
        "dist1": [metrics.distinct_n(text) for *_, text in triples],
        "repetition": [metrics.repetition_rate(text) for *_, text in triples],
    }
    if task == "sample":
        from diffusion_bert.data.grammar import Grammar

        grammar = Grammar.load()
        scores["valid"] = [100.0 * grammar.is_paraphrase(pair.source, text) for pair, text in zip(pairs, texts)]
    return scores
