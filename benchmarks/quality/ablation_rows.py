"""The rows of benchmarks/quality/ablation.py: which options are compared, in which groups."""

from __future__ import annotations

from dataclasses import dataclass, field

PAIRS_ONLY = {"source_dropout": 0.0, "continue_share": 0.0}
FULL = {"attention": "full", "noise_draws": 1}  # several noised targets share a source only where it sees none of them
PLAIN_NETWORK = {**PAIRS_ONLY, **FULL, "copy_head": False, "word_freq_lambda": 0.0}


@dataclass
class Row:
    """One run: settings on top of the base, trained by our objective or by the original one."""

    name: str
    settings: dict = field(default_factory=dict)
    objective: str = "ours"


def groups(model: str | None, teacher: str | None = None) -> dict[str, list[Row]]:
    """All groups in their order; the first row of each is what the others are compared with."""
    taught = {"teacher": teacher}
    fresh = {
        "model_name_or_path": model,
        "lr": 1e-3,
        "dropout": 0.0,
    }  # the same for both, so that only the weights differ
    return {
        "lambda": [
            Row("lambda 0", {"word_freq_lambda": 0.0}),
            *(
                Row(
                    f"lambda {value}, {'with' if on else 'without'} time correction",
                    {"word_freq_lambda": value, "time_correction": on},
                )
                for value in (0.1, 0.15, 0.3)
                for on in (True, False)
            ),
        ],
        "loss": [
            Row("ce"),
            Row("nelbo", {"loss": "nelbo"}),
            Row("nelbo + 0.1 ce", {"loss": "nelbo", "hybrid_lambda": 0.1}),
        ],
        "copy": [Row("copy head"), Row("no copy head", {"copy_head": False})],
        "attention": [Row("isolated"), Row("full", FULL)],
        "source_dropout": [Row(f"source dropout {value}", {"source_dropout": value}) for value in (0.1, 0.0, 0.3)],
        "draws": [
            Row("64 x 1", {"batch_size": 64, "noise_draws": 1}),
            Row("32 x 1", {"batch_size": 32, "noise_draws": 1}),
            Row("32 x 2", {"batch_size": 32, "noise_draws": 2}),
            Row("64 x 2", {"batch_size": 64, "noise_draws": 2}),
        ],
        "self_conditioning": [Row("off"), Row("on", {"self_conditioning": True})],
        "timestep": [Row(name, {"timestep": name, "noise_draws": 1}) for name in ("none", "prefix", "layerwise")],
        "pretrained": [Row("from scratch", {**fresh, "from_scratch": True}), Row("pretrained", fresh)] if model else [],
        "teacher": (
            [
                Row("no teacher"),
                Row("no teacher, its vocabulary", {**taught, "distillation_weight": 0.0}),
                Row("teacher, weight 0.5", {**taught, "distillation_weight": 0.5}),
            ]
            if teacher
            else []
        ),
        "options": [
            Row("defaults"),
            Row("label smoothing 0.1", {"label_smoothing": 0.1}),
            Row("EMA 0.999", {"ema_decay": 0.999}),
            Row("linear weight", {"loss_weighting": "linear"}),
            Row("both directions", {"symmetric": True}),
        ],
        "original": [
            Row("ours"),
            Row("ours, pairs only", PAIRS_ONLY),
            Row("ours on the plain network", PLAIN_NETWORK),
            Row("original objective", PLAIN_NETWORK, "original"),
            Row("original objective, lambda 0.3 per sentence", {**PLAIN_NETWORK, "word_freq_lambda": 0.3}, "original"),
        ],
    }
