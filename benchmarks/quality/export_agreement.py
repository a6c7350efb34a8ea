"""How far the masked language model that diffusion_bert/export.py writes agrees with the checkpoint's own ``fill``.

    python -m benchmarks.quality.export_agreement runs/NAME/best_model.pt

Held-out targets with one, 20 % or 50 % of their word pieces masked; at every masked place the likeliest word, without
specials and [UNK]: of the checkpoint (no source, no time correction, as in ``fill``), of the exported directory through
AutoTokenizer and AutoModelForMaskedLM, and of the same weights read the plain way, ``[CLS] text [SEP]`` with token type
0 and the table's own positions. Half a minute on a CPU.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.quality.masked_words import masked_texts, own_choice
from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.model.checkpoint import load_checkpoint
from diffusion_bert.model.export import export
from diffusion_bert.model.pretrained import OFFSET

MASKED = {"one": 0.0, "20 %": 0.2, "50 %": 0.5}


@torch.no_grad()
def exported_choice(mlm, inputs: dict, unwritable: list[int], mask_id: int) -> torch.Tensor:
    """log-probabilities [N, V] of a transformers model at the masks."""
    logits = mlm(**inputs).logits[inputs["input_ids"] == mask_id]
    logits[:, unwritable] = float("-inf")
    return torch.log_softmax(logits, dim=-1)


def compare(model, texts: list[str], folder: Path, seed: int = 0) -> list[dict]:
    """A row per share: places, top-1 agreement in per cent of the export and of the plain reading, and how often each
    hits the true word.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    export(model, folder)
    mlm, tokenizer, text = (
        AutoModelForMaskedLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        model.tokenizer,
    )
    mlm.eval()
    rows = []
    for name, share in MASKED.items():
        count, same, plain_same, right = 0, 0, 0, [0, 0, 0]
        for line, masked, truth in masked_texts(model, texts, share, seed):
            own = own_choice(model, masked).argmax(-1)
            wrapped = tokenizer(line, return_tensors="pt")
            assert wrapped["input_ids"][0].tolist() == [text.cls_id, text.sep_id, *text.encode(line), text.sep_id]
            wrapped["input_ids"] = torch.tensor([[text.cls_id, text.sep_id, *masked, text.sep_id]])
            there = exported_choice(mlm, dict(wrapped), text.unwritable_ids, text.mask_id).argmax(-1)
            plain_ids = torch.tensor([[text.cls_id, *masked, text.sep_id]])
            plain_inputs = {"input_ids": plain_ids, "position_ids": OFFSET + torch.arange(plain_ids.shape[1])[None]}
            plain = exported_choice(mlm, plain_inputs, text.unwritable_ids, text.mask_id).argmax(-1)
            count, same, plain_same = (
                count + len(own),
                same + int((own == there).sum()),
                plain_same + int((own == plain).sum()),
            )
            right = [done + int((choice == truth).sum()) for done, choice in zip(right, (own, there, plain))]
        rates = [100 * value / count for value in (same, plain_same, *right)]
        rows.append(
            dict(
                zip(
                    ("masked", "places", "export", "plain", "own_right", "export_right", "plain_right"),
                    (name, count, *rates),
                )
            )
        )
    return rows


def main(argv=None) -> int:
    """Print the table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="FILE")
    parser.add_argument("--texts", type=int, default=300, metavar="N", help="how many held-out targets (default: 300)")
    parser.add_argument("--data_dir", metavar="DIR", help="where the checkpoint's data lies now")
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    model = load_checkpoint(given["checkpoint"])
    if "data_dir" in given:
        model.config.data.data_dir = given["data_dir"]
    texts = [pair.target for pair in load_pairs(model.config.data, model.config.training.seed).test[: given["texts"]]]
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(model, texts, Path(folder) / "export")
    print(
        "| masked | places | same word as fill | same, read plainly | right: fill | right: export | right: plain"
        " |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row.pop('masked')} | {row.pop('places')} | "
            + " | ".join(f"{value:.1f} %" for value in row.values())
            + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
