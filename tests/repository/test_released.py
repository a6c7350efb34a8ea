"""The checkpoint that comes with the program: small, without paths, with its licence, and talking without any
training.
"""

import re

import pytest
import torch

from diffusion_bert.config import paths as finding
from diffusion_bert.data.skills import Skills, commands_of
from diffusion_bert.model.payload import read_payload
from tests.helpers.scripts import ROOT, run

FOLDER = ROOT / "checkpoints"
FIRST_MINUTE = (
    "para How do I learn to cook at home?",
    "mask The capital of France is [MASK].",
    "fill The weather is really nice today",
    "complete The best way to learn programming is",
)


@pytest.fixture(scope="module")
def payload():
    return read_payload(finding.checkpoint_file(max(FOLDER.glob("*.pt"))))


def test_size_and_contents(payload):
    """All of the folder's weights have at most 64 MiB, in half precision; nothing names a path; pairs, replies and
    plain texts went in.
    """
    assert sum(path.stat().st_size for path in FOLDER.glob("*.pt")) <= 64 * 2**20
    assert {tensor.dtype for tensor in payload["weights"].values() if tensor.is_floating_point()} == {torch.float16}
    settings = [payload["architecture"], payload["config"], payload["parent"]]
    assert not re.search(r"['\"]/|[A-Z]:\\\\|tmp|venv", str(settings))
    config = payload["config"]
    skills = Skills.from_plain(config["task_name"], payload["skills"])
    assert {"para", "reply"} <= set(commands_of(skills)) and "text" in skills.tasks


def test_card(payload):
    """The model card says which weights it describes, under which terms, and shows twenty samples of each skill."""
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert (
        payload["weights_sha256"] in card
        and "research" in payload["config"]["license_note"]
        and "research use" in card.lower()
    )
    for skill in ("para", "reply", "fill", "mask", "complete"):
        sources = (FOLDER / "inputs" / f"{skill}.txt").read_text(encoding="utf-8").splitlines()
        section = card.split(f"### {skill}\n")[1].split("\n### ")[0].split("\n## ")[0]
        assert len(sources) == 20 and all(f"| {source} | " in section for source in sources), skill


def test_the_first_minute(monkeypatch, tmp_path):
    """Without a run and without training each command has three answers, different from what was typed."""
    monkeypatch.setattr(finding, "BUNDLED", FOLDER)
    monkeypatch.chdir(tmp_path)
    done = run("interactive_generation", "--device", "cpu", stdin="\n".join([*FIRST_MINUTE, "quit"]) + "\n")
    assert (
        done.code in (None, 0)
        and done.out.startswith("The bundled checkpoint ")
        and "research use only" in done.out.splitlines()[0]
    ), done.err
    answers = re.findall(r"^  \d\. (.+)$", done.out, flags=re.M)
    assert len(answers) == 3 * len(FIRST_MINUTE)
    for number, line in enumerate(FIRST_MINUTE):
        typed = line.partition(" ")[2]
        assert all(
            answer and answer != typed and "[MASK]" not in answer for answer in answers[3 * number : 3 * number + 3]
        )
    assert all(answer.startswith("The capital of France is ") for answer in answers[3:6])
