"""What other programs, and people in a hurry, call our flags."""

# name -> ours; of several the first one that the script has
OTHER_NAMES = {
    "lr": ("learning_rate",),
    "epochs": ("num_epochs", "num_train_epochs", "n_epochs", "max_epochs", "epoch"),
    "max_steps": ("num_train_steps", "max_train_steps", "steps"),
    "num_steps": ("timesteps", "diffusion_steps", "t", "steps"),
    "batch_size": ("per_device_train_batch_size", "train_batch_size", "bs", "batch"),
    "accumulation_steps": ("gradient_accumulation_steps", "grad_accum"),
    "max_grad_norm": ("gradient_clip", "grad_clip", "clip", "gradient_clip_val"),
    "weight_decay": ("wd",),
    "warmup_ratio": ("warmup", "warmup_steps", "num_warmup_steps"),
    "precision": ("fp16", "bf16", "amp", "mixed_precision", "half"),
    "word_freq_lambda": ("lambda",),
    "num_threads": ("threads", "n_threads", "cpus"),
    "device": ("gpu", "gpus", "cuda", "cpu"),
    "seed": ("random_seed", "rng"),
    "task_name": ("task",),
    "data_dir": ("data", "dataset", "data_path"),
    "train_file": ("train_data", "train_path", "training_file", "train"),
    "valid_file": ("validation_file", "dev_file", "eval_file", "valid"),
    "test_file": ("test_data", "eval_data", "test"),
    "output_dir": ("output", "out", "save_dir", "out_dir", "outdir"),
    "output_file": ("output", "out", "outfile"),
    "input_file": ("input", "infile", "file"),
    "model_name_or_path": ("model", "model_name"),
    "checkpoint": ("model", "model_path", "model_dir", "ckpt", "checkpoint_path", "run", "from", "weights"),
    "resume": ("resume_from_checkpoint", "restart", "resume_training"),
    "num_samples": ("num_return_sequences", "n", "n_samples", "candidates"),
    "max_samples": ("n_samples", "num_examples", "limit"),
    "temperature": ("temp", "t"),
    "length": ("max_new_tokens", "max_tokens"),
    "command": ("cmd",),
}
# flags of one script that are tried with another
ELSEWHERE = {
    "resume": "continue_training.py",
    "auto": "continue_training.py",
    "model_dir": "continue_training.py",
    "input_file": "interactive_generation.py",
    "parts": "evaluate_trained_model.py",
}


def meant(name: str, flags: list[str]) -> str:
    """Which of the ``flags`` (with their dashes) an unknown one stands for, or where it belongs; else nothing."""
    name = name.lstrip("-\u2013\u2014").replace("-", "_").lower()
    for ours, others in OTHER_NAMES.items():
        if name in others and f"--{ours}" in flags:
            return f"; did you mean '--{ours}'?"
    ours = next((ours for ours, others in OTHER_NAMES.items() if name in others), name)
    return f"; {ELSEWHERE[ours]} has '--{ours}'" if ours in ELSEWHERE and f"--{ours}" not in flags else ""
