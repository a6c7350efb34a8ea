"""Plain texts that know their origin: a style of continuing, which never mixes with the prompts of pairs; and how much
of a text is left to write.
"""

import json

import numpy as np
import pytest

from diffusion_bert.data.batching import Collator, EpochBatches
from diffusion_bert.data.encoding import encode_tasks, styles_of
from diffusion_bert.data.reading import read_file
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, Skills, is_continuing, is_pair
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.models import new_model, refusal, tiny_config, tiny_tokenizer
from tests.helpers.scripts import only_run, run, small_flags, write_data

TEXTS = [
    *({"text": f"The old cat is number {n}."} for n in range(30)),
    *({"text": f"The city of {n} is large.", "style": "wikipedia"} for n in range(20)),
    *({"text": f"A talk about {n} was given.", "tone": "News letter"} for n in range(10)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of the grammar, and plain texts of three origins, one of them without a name."""
    base = tmp_path_factory.mktemp("origins")
    write_data(base / "qqp", 40, 6, 6)
    (base / "text").mkdir()
    (base / "text" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    (base / "text" / "valid.jsonl").write_text(json.dumps({"text": "A small dog."}) + "\n")
    return base


def mixed(folder, **settings):
    """(encoded data, skills, collator, settings) of both tasks."""
    config = tiny_config(
        task_name="qqp,text", data_dir=str(folder), max_length=96, max_target_length=44, **settings
    ).data
    pairs = load_pairs(config).train
    skills = Skills.of("qqp,text", styles_of(pairs, "qqp,text"))
    collator = Collator(tiny_tokenizer(), skills.prompts, skills.continuing_prompts, config.continue_words_left)
    return encode_tasks(pairs, tiny_tokenizer(), config, skills), skills, collator, config


def test_pairs_and_texts_do_not_mix(tmp_path):
    """The first row of a .jsonl file decides; a row of the other kind costs itself only."""
    text, pair = {"text": "A cat."}, {"src": "a", "trg": "b"}
    for rows, kept in (([text, pair, text], [None, None]), ([pair, text, pair], ["a", "a"])):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        report = read_file(tmp_path / "a.jsonl")
        assert [row.source for row in report.pairs] == kept and "line 2: " in report.bad_rows[0]


def test_origins_are_styles_of_continuing(folder):
    """Each origin has a prompt and a negative number of its own; the prompts of pairs keep theirs; a table read back is
    the same; continuing in a style that nobody knows is continuing.
    """
    _, skills, _, _ = mixed(folder)
    assert skills.prompts == ["paraphrase:"]
    assert skills.continuing_prompts == ["continue news letter:", "continue wikipedia:"]
    assert [skills.continuing(style) for style in (None, "wikipedia", " News  LETTER", "formal")] == [2, -2, -1, 2]
    assert Skills.from_plain("qqp,text", skills.plain()) == skills
    assert "knows qqp" in refusal(skills.number, "text", "wikipedia")
    numbers = np.array([-2, -1, 0, 1, 2, 3])
    assert is_continuing(numbers).tolist() == [True, True, False, False, True, False]
    assert is_pair(numbers).tolist() == [False, False, True, False, False, True]


def test_every_text_is_continued_by_its_own_prompt(folder):
    """In an epoch each plain text that is continued has the prompt of its origin, and no pair has one."""
    data, _, collator, config = mixed(folder, text_continue_share=1.0, source_dropout=0.0, continue_share=0.0)
    dataset = EpochBatches(data, collator, config, 16, 0, 0)
    expected = {2: 30, -1: 10, -2: 20, 0: 40}
    assert {skill: int((dataset.skills == skill).sum()) for skill in expected} == expected
    seen = 0
    for number in range(len(dataset)):
        batch, indices = dataset[number], dataset.indices(number)
        for row, index in enumerate(indices):
            prompt = collator.prompts[int(dataset.skills[index])]
            length = int(batch.prompt_length[row])
            assert batch.input_ids[row, 1 : 1 + length].tolist() == prompt
            source = batch.input_ids[row, 1 + length : int(batch.source_length[row]) - 1].tolist()
            whole = [*source, *batch.input_ids[row, int(batch.source_length[row]) :].tolist()]
            if index >= 40:  # a text: what comes first and what is left to write are the whole of it
                assert whole[: len(data.parts[1].target(index - 40))] == data.parts[1].target(index - 40).tolist()
                seen += 1
    assert seen == 60


@pytest.mark.parametrize("words_left", [1, 2, 3, 5, 9])
def test_words_left_to_write(folder, words_left):
    """At least so many words are left, every such boundary is reached, and what is too short is written whole."""
    data, _, _, _ = mixed(folder)
    tokenizer = tiny_tokenizer()
    collator = Collator(tokenizer, "paraphrase:", words_left=words_left)
    target = data.parts[1].target(0)
    starts = [place for place, piece in enumerate(target) if not tokenizer.continuation[piece]]
    allowed = {len(target) - start for number, start in enumerate(starts) if 0 < number <= len(starts) - words_left}
    lengths, skills = set(), set()
    for cut in np.linspace(0, 0.9999, 50):
        batch = collator.gather(data, np.array([40]), np.array([CONTINUE]), np.array([cut]))
        lengths.add(int(batch.target_length[0]))
        skills.add(NO_SOURCE if batch.without_source[0] else CONTINUE)
    assert lengths == (allowed or {len(target)}) and skills == ({CONTINUE} if allowed else {NO_SOURCE})


def test_completions_in_a_style(folder, tmp_path):
    """A checkpoint keeps its origins; ``style`` chooses one for complete, other styles and none mean plain continuing,
    and para refuses it.
    """
    _, skills, _, config = mixed(folder)
    model = new_model()
    model.skills, model.config.data.task_name = skills, "qqp,text"
    save_checkpoint(tmp_path / "a.pt", model)
    generator = DiffusionTextGenerator(load_checkpoint(tmp_path / "a.pt"))
    asked = []
    real = generator.generate_ids
    generator.generate_ids = lambda examples, *rest, **more: (
        asked.append(examples[0][0]) or real(examples, *rest, **more)
    )
    for style in (None, "wikipedia", "news letter", "nobody"):
        assert generator.complete_text("The city is", num_samples=1, style=style, num_steps=2)
    assert [skill for skill in asked if skill in (2, -1, -2)] and set(asked) == {2, -1, -2}
    assert "style is 'wikipedia'" in refusal(generator.paraphrase_text, "The city is", style="wikipedia")


def test_training_on_origins(folder, tmp_path):
    """The script trains on texts with origins and says them; the run can be continued."""
    flags = small_flags(folder, output_dir=tmp_path, task_name="qqp,text", max_steps=3, low_noise_share=0.5)
    result = run("run_conditional_training", *flags)
    assert result.code == 0 and "styles of text: news letter, wikipedia" in result.out, result.err
    model = load_checkpoint(only_run(tmp_path) / "best_model.pt")
    assert model.skills.continuing("wikipedia") == -2 and model.config.data.low_noise_share == 0.5
    child = run(
        "continue_training", "--model_dir", only_run(tmp_path), "--max_steps", 2, "--output_dir", tmp_path / "c"
    )
    assert child.code == 0, child.err
    assert load_checkpoint(only_run(tmp_path / "c") / "best_model.pt").skills == model.skills
