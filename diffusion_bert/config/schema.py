"""All settings: one dataclass per section, whose fields are the command-line flags and the keys of the presets alike.

Every field carries its help line and, where they exist, its choices and bounds (fields.py checks them); what settings
refuse together is in run_config.py. Longer than 250 lines because all settings stand in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UserError
from .fields import option
from .tasks import TASKS

# layers, width, heads of the sizes learned from scratch; the feed-forward layer is four times the width
BUILT_IN_SIZES = {"tiny": (2, 128, 4), "mini": (4, 256, 4), "small": (4, 512, 8)}
SAMPLER_NAMES = ("ancestral", "first_hitting", "confidence", "entropy", "remask")
SCHEDULES = ("mutual", "cosine")
EVALUATION_PARTS = ("reconstruction", "generation", "nelbo")
MAP_STEPS = 8  # steps of a picture of a text being written: few enough to read every row
LENGTHS = ("short", "same", "long")
MAX_LAMBDA = 1 / math.pi


@dataclass
class ModelConfig:
    """model"""

    model_name_or_path: str = option(
        "tiny",
        "hub id or local directory of a BERT (also RoBERTa, DistilBERT, ModernBERT), or a built-in size learned from"
        " scratch: tiny, mini, small",
    )
    from_scratch: bool = option(
        False, "take only the architecture and vocabulary of model_name_or_path, with fresh weights"
    )
    vocab_size: int = option(8000, "word pieces to learn for a built-in size", low=100, high=1_000_000)
    strip_accents: bool = option(False, "learn and write letters without their accents (built-in sizes)")
    attention: str = option(
        "isolated", "isolated: the source never sees the target; full: it does", ("isolated", "full")
    )
    copy_head: bool = option(True, "let the model point at words of the source")
    dropout: float | None = option(
        None, "dropout in the encoder; none: 0 from scratch, 0.1 for a pretrained BERT", low=0.0, high=0.9
    )
    self_conditioning: bool = option(False, "let masked places see what the model expected there a call before")
    timestep: str = option(
        "none", "tell the network the time: none, prefix (a token) or layerwise", ("none", "prefix", "layerwise")
    )


@dataclass
class DataConfig:
    """data"""

    task_name: str = option(
        "sample", "which task to train; several with commas: qqp,wiki_alignment,text", tuple(TASKS), several=True
    )
    task_balance: str = option(
        "proportional",
        "of several tasks: proportional uses every row each epoch; equal and sqrt (shares as the square roots of the"
        " sizes) take other rows of the larger tasks each epoch, and all of the smallest; none is repeated within an"
        " epoch",
        ("proportional", "equal", "sqrt"),
    )
    data_dir: str | None = option(
        None,
        "folder with train.jsonl, valid.jsonl and perhaps test.jsonl (src, trg; task text: .txt); several tasks: a"
        " folder of such folders",
    )
    train_file: str | None = option(
        None, "your own data: .jsonl/.csv/.tsv with src and trg, or .txt with one text per line"
    )
    valid_file: str | None = option(None, "validation data; without it a share of train_file is held out")
    test_file: str | None = option(None, "test data")
    dataset_name: str | None = option(
        None, "a dataset of the Hugging Face hub, or a local folder with one, instead of files"
    )
    dataset_config: str | None = option(None, "configuration of dataset_name, where it has several")
    source_column: str | None = option(None, "column of dataset_name with the sources; none: src or source")
    target_column: str | None = option(None, "column of dataset_name with the targets; none: trg or target")
    max_samples: int | None = option(None, "train on a random sample of this many rows (of each task)", low=1)
    symmetric: bool = option(False, "train every pair in both directions (paraphrase tasks only)")
    max_bad_rows: int = option(20, "stop when a file has more malformed rows than this", low=0)
    max_length: int = option(128, "longest sequence in word pieces, source and target together", low=8, high=65_536)
    max_target_length: int = option(64, "longest target in word pieces", low=1)
    source_dropout: float = option(
        0.1, "share of examples trained without source (fill, mask, guidance)", low=0.0, high=1.0
    )
    continue_share: float = option(0.1, "share of examples trained as prefix -> rest (complete)", low=0.0, high=1.0)
    style_dropout: float = option(
        0.1, "share of the examples with a style (column style or tone) that is trained without it", low=0.0, high=1.0
    )
    text_continue_share: float = option(
        0.5, "of plain texts, the share trained as prefix -> rest; the others without source", low=0.0, high=1.0
    )
    continue_words_left: int = option(1, "of a text that is continued at least so many words are left to write", low=1)
    low_noise_share: float = option(
        0.0, "share of the examples without source that hide only 5 to 50 % of their words", low=0.0, high=0.9
    )
    tokens_per_batch: int | None = option(
        None, "fill batches up to this many places (rows x width), with batch_size as the most rows", low=8
    )
    noise_draws: int = option(
        1, "noised copies of every target per step, beside one source that is encoded once", low=1, high=64
    )
    num_workers: int = option(0, "processes that prepare batches", low=0, high=64)
    preprocessing_num_workers: int = option(
        0, "processes that tokenise large data; 0: this one, with the tokenizer's own threads", low=0, high=64
    )
    cache_above_mb: int = option(
        64, "data above this size (MB) is read and tokenised once, and mapped from cache_dir", low=0
    )
    cache_dir: str | None = option(
        None, "folder for that; none: $XDG_CACHE_HOME/diffusion_bert or ~/.cache/diffusion_bert; may be deleted"
    )
    license_note: str | None = option(
        None, "remark on the licence of the data: kept in checkpoints, shown when one is used (research use only)"
    )


@dataclass
class DiffusionConfig:
    """diffusion"""

    num_steps: int = option(64, "diffusion steps T", low=1, high=1_000_000)
    schedule: str = option("mutual", "base noise schedule", SCHEDULES)
    word_freq_lambda: float = option(0.1, "strength of the word-frequency noise, 0 to 0.318", low=0.0)
    time_correction: bool = option(True, "correct the word distribution for what being masked at t says about the word")


@dataclass
class TrainingConfig:
    """training"""

    loss: str = option(
        "ce", "nelbo: the exact bound; ce: plain cross-entropy on masked places (lower variance)", ("nelbo", "ce")
    )
    hybrid_lambda: float = option(0.0, "with loss nelbo: add this times the cross-entropy", low=0.0)
    label_smoothing: float = option(
        0.0, "with loss ce: share of the target spread over all words; 0 = off", low=0.0, high=0.9
    )
    loss_weighting: str = option(
        "none", "with loss ce: none, or linear: weight 1 - (t - 1)/T, little noise counts most", ("none", "linear")
    )
    teacher: str | None = option(
        None, "with loss ce: a checkpoint whose expectations are learned too; a built-in size takes its vocabulary"
    )
    distillation_weight: float = option(0.5, "the teacher's share of the loss at masked places", low=0.0, high=1.0)
    ema_decay: float = option(
        0.0, "validate and keep in best_model.pt a running average of the weights with this decay; 0 = off", low=0.0
    )
    epochs: int = option(3, "passes over the data", low=1)
    max_steps: int | None = option(None, "stop after this many optimizer steps", low=1)
    max_minutes: float | None = option(None, "stop after this many minutes of training", low=0.0)
    patience: int | None = option(None, "stop after this many validations without a better NELBO", low=1)
    batch_size: int = option(64, "examples per forward pass, in each process", low=1)
    accumulation_steps: int = option(1, "forward passes per optimizer step, in each process", low=1)
    lr: float | None = option(None, "peak learning rate; none: 1e-3 from scratch, 1e-4 for a pretrained BERT", low=0.0)
    lr_factor: float = option(
        1.0, "multiplies lr; the presets for continuing set it, since lr is then the parent's", low=0.0
    )
    warmup_ratio: float = option(0.05, "share of training in which the learning rate rises", low=0.0, high=1.0)
    weight_decay: float = option(0.01, "AdamW weight decay", low=0.0)
    max_grad_norm: float = option(1.0, "clip the gradient to this norm", low=0.0)
    precision: str = option(
        "auto",
        "auto: bf16 where the GPU or processor multiplies it clearly faster, else fp32",
        ("auto", "fp32", "bf16"),
    )
    seed: int = option(42, "seed of everything random", low=0, high=2**32 - 1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    output_dir: str = option("runs", "where run directories are made")
    eval_steps: int | None = option(None, "also validate every so many steps, not only after each epoch", low=1)
    save_steps: int = option(500, "save last.pt every so many steps, and after each epoch", low=1)
    compile: bool = option(False, "torch.compile the encoder: minutes at the start, for long runs on a GPU")
    num_threads: int | None = option(
        None, "CPU threads of torch in each process; none: its own choice", low=1, high=1024
    )
    tensorboard: bool = option(
        False, "also write TensorBoard event files into the run directory (needs the package tensorboard)"
    )
    keep_checkpoints: int = option(0, "also keep epoch_<n>.pt of the last so many epochs", low=0)
    logging_steps: int = option(20, "a line in metrics.jsonl every so many steps", low=1)
    demonstration_steps: int | None = option(
        None, "show a sentence noised and denoised every so many steps; without it, after each epoch", low=1
    )
    dry_run: bool = option(False, "go through all stages for a few steps and leave nothing behind")


@dataclass
class SamplingConfig:
    """sampling"""

    sampler: str = option("confidence", "how places are revealed", SAMPLER_NAMES)
    num_steps: int = option(
        32, "most denoiser calls per candidate (first_hitting: one per word piece)", low=1, high=100_000
    )
    style: str | None = option(None, "style of a rewritten text: one that the checkpoint knows; none: no style")
    num_samples: int = option(3, "candidates per text", low=1, high=1000)
    temperature: float = option(0.7, "0 takes the likeliest word, 1 the model's own distribution", low=0.0, high=100.0)
    top_k: int = option(0, "draw from the k likeliest words only; 0 = all", low=0)
    top_p: float = option(0.95, "draw from the likeliest words that make up this share", low=0.0, high=1.0)
    guidance_scale: float = option(
        0.0, "push away from what would be written without a source; 0 = off, 2 is strong", low=0.0, high=100.0
    )
    no_repeat: str = option(
        "adjacent",
        "no word beside itself (adjacent); also no content word more often than in the source (content)",
        ("off", "adjacent", "content"),
    )
    margin: bool = option(
        False, "confidence is the lead of the likeliest word over the next (samplers confidence and remask)"
    )
    gamma: float = option(
        0.1, "entropy bound of sampler entropy, in nats: 0 reveals one by one, larger more at once", low=0.0
    )
    remask_cap: float = option(
        0.04, "sampler remask: largest probability per step that a word is masked again", low=0.0, high=1.0
    )
    remask_order: str = option(
        "confidence", "sampler remask: which sampler it is built on", ("confidence", "ancestral")
    )
    length: str | None = option(
        None,
        "word pieces of a generated sentence: a number, or beside its source short, same or long; none: the model"
        " chooses",
        LENGTHS,
        or_count=True,
    )
    length_beam: int = option(5, "how many of the likeliest lengths the candidates share", low=1)
    best_of: int = option(
        3, "write this many times as many candidates and keep those the model finds likeliest", low=1, high=100
    )
    known_words: bool = option(
        True,
        "write a word of several pieces only where source or training data have it (may take a few calls more); off:"
        " the bare sampler",
    )
    min_added_words: int = option(
        2, "complete: add at least so many words where no length is asked for; 0 = any number", low=0, high=20
    )
    max_gap: int = option(8, "fill and mask: a gap [MASK*] stands for one to so many word pieces", low=1, high=100)
    max_sentences: int = option(
        1, "complete: go on sentence by sentence until so many are written; 1: one continuation", low=1, high=100
    )
    rank_by: str = option(
        "noisy_channel",
        "score of a candidate: its words as they were revealed; leave_one_out: each word beside all the others;"
        " noisy_channel: that, the text by itself, and its source beside it",
        ("revealed", "leave_one_out", "noisy_channel"),
    )
    revise: int = option(
        0, "rewrite up to this many of the worst words of a finished candidate where that is likelier", low=0, high=100
    )
    shorten: bool = option(False, "leave out a word of a finished candidate where the rest is clearly likelier without")
    allow_punctuation: bool = option(
        False, "fill and mask: let a punctuation mark stand at a [MASK], and read no final mark into the text"
    )
    max_changes: int = option(2, "fix: correct at most so many words of a text", low=1, high=100)
    score_draws: int = option(
        32, "score: noise draws of the estimate; four times as many halve its error", low=2, high=100_000
    )
    batch_size: int = option(128, "candidates denoised together", low=1)
    seed: int = option(0, "seed of the draws", low=0, high=2**32 - 1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


@dataclass
class DisplayConfig:
    """display"""

    trace: bool = option(
        False,
        "show how the first candidate was written, word by word in colours (one line per step where there are none)",
    )
    trace_delay: int = option(60, "milliseconds for which each step is shown", low=0, high=10_000)


def check_lambda(word_freq_lambda: float) -> None:
    """Refuse a lambda for which alpha(v, u) (diffusion/schedule.py) would leave [0, 1] or rise with time."""
    if not 0 <= word_freq_lambda <= MAX_LAMBDA:
        raise UserError(
            f"word_freq_lambda is {word_freq_lambda:g}: expected 0 (no word-frequency noise) to"
            f" {math.floor(MAX_LAMBDA * 1000) / 1000} (= 1/pi, the largest for which no word is ever unmasked by noise)"
        )
