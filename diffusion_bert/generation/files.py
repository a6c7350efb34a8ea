"""Where a generator comes from and how it is passed on: checkpoint files, folders, and the hub."""

from __future__ import annotations

from pathlib import Path

from ..config.paths import checkpoint_file
from ..errors import UserError
from ..machine.device import pick_device
from ..machine.hub import local_copy
from ..model.checkpoint import load_checkpoint
from ..model.publishing import push, save_folder
from .options import checked_options


class GeneratorFiles:
    """Loading and saving, for a generator that is made of (model, options, task)."""

    run_directory: Path | None = None  # where it was trained, if ``diffusion_bert.train`` made it

    @classmethod
    def from_checkpoint(
        cls, path: str | Path | None = None, device: str = "auto", task: str | None = None, **options
    ) -> GeneratorFiles:
        """Load a checkpoint file, the best of a run directory, a folder of ``save_pretrained``, or a repository of the
        hub (default: the newest best_model.pt below runs/).
        """
        checked = checked_options({**options, "device": device})
        model = load_checkpoint(checkpoint_file(local_copy(path)))
        return cls(model.to(pick_device(checked.device)), checked, task)

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | Path, device: str = "auto", task: str | None = None, **options
    ) -> GeneratorFiles:
        """The generator in a folder of ``save_pretrained``, or in a repository ``owner/name`` of the hub, which is
        downloaded once; files and run directories are taken as well. Nothing in it is run.

        Raises:
            UserError: not there, not whole, of another kind, or the hub cannot be reached.
        """
        if not isinstance(folder_or_repo, (str, Path)):
            raise UserError(f"the model is {folder_or_repo!r}: expected a folder or a repository, owner/name")
        return cls.from_checkpoint(folder_or_repo, device, task, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors, the tokenizer and a model card (README.md) to a new folder, which
        ``from_pretrained`` reads. Every number is kept to the last bit; paths of this machine are left out.

        Raises:
            UserError: the folder holds anything already, or cannot be written.
        """
        save_folder(self.model, folder)

    def push_to_hub(self, repo: str, private: bool | None = None, message: str = "DiffusionBERT model") -> str:
        """Send what ``save_pretrained`` writes to the repository ``owner/name`` of the hub, which is made if need be,
        in one commit; returns its address. The token is the one that ``hf auth login`` or HF_TOKEN gave.

        Raises:
            UserError: no such name, no network, or the hub refuses.
        """
        return push(self.model, repo, private, message)
