"""README.md of a folder to pass on: what the model is, how to load it, what it was trained on, under which licence."""

from __future__ import annotations

from pathlib import Path

from ..config.schema import BUILT_IN_SIZES
from ..config.tasks import TASKS
from ..text.english import MASK
from .sharing import is_path

TAGS = ["diffusion-bert", "masked-diffusion"]
MEASURED = ("step", "valid_nelbo", "valid_cross_entropy")
LICENCE = (
    "licence of the training data and, where training began with a pretrained BERT, that of that model also bind\n"
    "these weights. Fill it in before you publish them."
)


def model_card(model, data_name: str, repo: str | None = None) -> str:
    """The card of a folder that ``from_pretrained`` reads. ``data_name`` is what its data is called, ``repo`` its id on
    the hub, if it goes there.
    """
    note = model.config.data.license_note
    name = repo or "path/to/this/folder"
    title = repo.split("/")[-1] if repo else f"DiffusionBERT, task {', '.join(model.skills.tasks)}"
    styles = "".join(f"; styles of {task}: {', '.join(known)}" for task, known in model.skills.all_styles().items())
    writes = [TASKS[task].product for task in model.skills.tasks if TASKS[task].prompt] if model.knows_pairs else []
    what = f"Of a text it writes {' or '.join(dict.fromkeys(writes))}; it also " if writes else "It "
    calls = 'g.paraphrase_text("How can I learn to swim?"), ' if writes else ""
    copying = ", copy head" if model.denoiser.copy_head is not None else ""
    licence = f"Of the training data: {' '.join(note.split())}." if note else f"Not stated here.\nThe {LICENCE}"
    millions = f"{model.parameter_count / 1e6:.1f}"
    return f"""---
{_front(model.config)}
---
# {title}

A masked-diffusion language model ({model.denoiser.bert_config.model_type} encoder, {millions}M parameters). It starts
from a row of masks and reveals the surest words first.
{what}fills `{MASK}`s and continues texts.

Tasks: {", ".join(model.skills.tasks)}{styles}.

## How to load it

```python
from diffusion_bert import DiffusionTextGenerator

g = DiffusionTextGenerator.from_pretrained("{name}")
print({calls}g.fill_masks("I need the {MASK} on my desk."))
```

    python interactive_generation.py --checkpoint {name}
    python continue_training.py --checkpoint {name} --train_file mine.jsonl --preset fine_tuning

The folder holds plain data, of which nothing is run: `config.json` (architecture, settings, skills), the tokenizer, and
`model.safetensors` (the network{copying} and length head, the word-frequency table of the noise schedule, the words
of the training data). For `AutoModelForMaskedLM`, export the model with `python -m diffusion_bert.export`.

## What it was trained on

{training_table(model, data_name)}

It writes up to {model.denoiser.max_target_length} word pieces at a time. It knows no facts: read what it writes.

## Licence

{licence}
"""


def _front(config) -> str:
    """What the hub reads of a card, in YAML."""
    from huggingface_hub import ModelCardData

    data = config.data
    return ModelCardData(
        library_name="diffusion-bert",
        pipeline_tag="text-generation",
        tags=TAGS,
        license="other" if data.license_note else None,
        base_model=base_of(config) if config.model.model_name_or_path not in BUILT_IN_SIZES else None,
        datasets=[data.dataset_name] if data.dataset_name and not is_path(data.dataset_name) else None,
    ).to_yaml()


def export_card(model) -> str:
    """The card of a folder that transformers opens: also what was left out of it."""
    from huggingface_hub import ModelCardData

    denoiser = model.denoiser
    extra = {"length head": True, "copy head": denoiser.copy_head, "self-conditioning": denoiser.self_conditioning}
    left_out = [name for name, part in extra.items() if part is not None]
    front = ModelCardData(library_name="transformers", pipeline_tag="fill-mask", tags=TAGS)
    return f"""---
{front.to_yaml()}
---
# DiffusionBERT, task {model.task.name}

The encoder and word head of a masked-diffusion language model, as a masked language model: it fills `{MASK}`s.
Left out: {", ".join(left_out)}; so it does not write paraphrases. Use the checkpoint it was exported from for that.

Texts are read as `[CLS] [SEP] text [SEP]` with token types 0 0 1 ... 1; the tokenizer of this folder does so by
itself. Trained on texts of up to {denoiser.max_target_length} word pieces. `[CLS]` and `[SEP]` see the text here and
did not in training, so words may differ a little from those of DiffusionBERT's `fill`. For a pair, which the tokenizer
joins as source and target, give position ids that count both from 0, plus 2.

{training_table(model, data_name(model))}

The {LICENCE}
"""


def data_name(model) -> str:
    """What the training data is called: the last part of a path, a data set of the hub, or the tasks."""
    data = model.config.data
    path = data.data_dir or data.train_file
    if path or is_path(data.dataset_name or ""):
        return Path(path or data.dataset_name).name
    return data.dataset_name or ", ".join(model.skills.tasks)


def base_of(config) -> str:
    """What training began with: a built-in size, a hub id, or the name of a folder."""
    name = config.model.model_name_or_path
    return Path(name).name if is_path(name) else name


def training_table(model, data: str) -> str:
    """How the model was trained, on what is called ``data``: a Markdown table that names no folder of this machine."""
    config = model.config
    scratch = config.model.from_scratch or config.model.model_name_or_path in BUILT_IN_SIZES
    settings = {
        "start": base_of(config) + (" (from scratch)" if scratch else ""),
        "task": ", ".join(model.skills.tasks),
        "data": data,
        "steps T": config.diffusion.num_steps,
        "schedule": config.diffusion.schedule,
        "word_freq_lambda": config.diffusion.word_freq_lambda,
        "loss": config.training.loss,
        "lr": config.training.lr * config.training.lr_factor,
        "batch_size": config.training.batch_size,
        "attention": model.denoiser.attention,
        "seed": config.training.seed,
    }
    settings |= {name: round(value, 4) for name, value in model.metrics.items() if name in MEASURED}
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    return f"| trained with | |\n|---|---|\n{rows}"
