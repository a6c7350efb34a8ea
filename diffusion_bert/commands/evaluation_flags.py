"""The flags of an evaluation."""

from __future__ import annotations

import argparse

from ..config.schema import EVALUATION_PARTS, SamplingConfig
from ..errors import nearest
from .cli import Parser, whole_number

SAMPLER_ALONE = {"rank_by": "revealed"}  # what is measured unless more is asked for
# models that judge the texts: a directory or a hub id each
JUDGES = {
    "bertscore": "BERTScore by this model, a directory or hub id (microsoft/deberta-xlarge-mnli)",
    "fluency_model": "perplexity by this causal language model, a directory or hub id (gpt2)",
    "meaning_model": "the cosine of source and output by this model (sentence-transformers/all-MiniLM-L6-v2)",
}


def evaluation_parser() -> Parser:
    """The flags of an evaluation."""
    parser = Parser(
        "Evaluate a checkpoint: reconstruction, conditional generation beside its floors, NELBO terms, score."
    )
    what = parser.add_argument_group("what to evaluate")
    what.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint file, run directory, folder of a model, or hub id (default: the newest best_model.pt below"
        " runs/, else one that came with the program)",
    )
    what.add_argument("--task_name", metavar="NAME", help="which task of a checkpoint of several (default: its first)")
    what.add_argument("--split", metavar="valid|test", help="which split of the checkpoint's data (default: test)")
    what.add_argument(
        "--data_dir",
        metavar="DIR",
        help=(
            "where the checkpoint's data is now: a folder as training took it (of several tasks: with one for each,"
            " or that of the task alone)"
        ),
    )
    what.add_argument("--test_file", metavar="FILE", help="evaluate on this file instead (.jsonl, .csv, .tsv or .txt)")
    what.add_argument(
        "--examples",
        metavar="FILE",
        help="sentences for the reconstruction part, one per line, instead of held-out targets",
    )
    what.add_argument(
        "--max_samples",
        type=whole_number,
        metavar="N",
        help="evaluate a random sample of this many rows (default: all)",
    )
    what.add_argument(
        "--mbr",
        type=whole_number,
        metavar="N",
        help="also choose the best of N samples by minimum Bayes risk (default: off)",
    )
    what.add_argument(
        "--parts",
        type=_parts,
        metavar="NAMES",
        help=f"some of {','.join(EVALUATION_PARTS)}, with commas (default: all; the score needs the first two)",
    )
    for flag, help in JUDGES.items():
        what.add_argument(f"--{flag}", metavar="MODEL", help=f"add {help}")
    what.add_argument(
        "--output_dir",
        metavar="DIR",
        help=(
            "where the report goes (default: beside the checkpoint; of one that came with the program:"
            " runs/evaluation_NAME)"
        ),
    )
    left_out = ("num_samples", "best_of", "max_changes", "score_draws")
    parser.add_settings(SamplingConfig, leave_out=left_out, defaults=SAMPLER_ALONE)
    return parser


def _parts(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in EVALUATION_PARTS:
            raise argparse.ArgumentTypeError(
                f"'{name}' is none of {', '.join(EVALUATION_PARTS)}{nearest(name, EVALUATION_PARTS)}"
            )
    return tuple(name for name in EVALUATION_PARTS if name in names)
