"""What other programs call our flags."""

OTHER_NAMES = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "num_return_sequences": "num_samples",
    "gradient_accumulation_steps": "accumulation_steps",
    "per_device_train_batch_size": "batch_size",
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "task": "task_name",
    "data": "data_dir",
    "output": "output_dir",
    "gpu": "device",
}
