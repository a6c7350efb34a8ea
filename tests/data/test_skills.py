"""Several tasks and styles in one model: every example has its own prompt, balance is as promised, the parts of the
NELBO add up.
"""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffusion_bert.commands.repl import Repl
from diffusion_bert.config.schema import DataConfig, SamplingConfig
from diffusion_bert.data.batching import Collator, EpochBatches, balanced_choice, batch_tasks, fixed_batches
from diffusion_bert.data.encoded import EncodedMix
from diffusion_bert.data.encoding import encode_pairs, encode_tasks, row_styles, styles_of
from diffusion_bert.data.pairs import MixedPairs, Pair, StyledPair, parts_of
from diffusion_bert.data.reading import read_file
from diffusion_bert.data.skills import CONTINUE, MOST_STYLES, NO_SOURCE, PAIR, Skills, commands_of, is_pair
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import load_checkpoint, restore, save_checkpoint
from diffusion_bert.model.payload import read_payload, training_part
from diffusion_bert.training.preparation import encode_training_data, skills_of_child
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.trainer import Trainer
from diffusion_bert.training.yardstick import estimate_nelbo, estimate_nelbo_by_group
from tests.helpers.models import new_model, refusal, tiny_config, tiny_tokenizer
from tests.helpers.scripts import compare_runs, new_trainer, only_run, read_records, run, small_flags, write_data

TASKS = "qqp,QT,text"
SIZES = {"qqp": 96, "QT": 24, "text": 40}
STYLES = ("formal", "casual", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One folder per task: pairs of the grammar, the same sort of pairs the other way round, and plain texts."""
    base = tmp_path_factory.mktemp("tasks")
    write_data(base / "qqp", SIZES["qqp"], 12, 14)
    write_data(base / "QT", SIZES["QT"], 5, 6)
    for path in (base / "QT").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({"src": row["trg"], "trg": row["src"]}) + "\n" for row in rows))
    (base / "text").mkdir()
    texts = [f"The {colour} {thing} is here." for colour in ("old", "new", "red", "big") for thing in "abcdefghij"]
    (base / "text" / "train.txt").write_text("\n".join(texts))
    (base / "text" / "valid.txt").write_text("A red cat.\nAn old dog.\n")
    return base


@pytest.fixture(scope="module")
def styled_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("styled") / "mine.jsonl"
    rows = [{"src": f"how can i {n} ?", "trg": f"what is {n} ?", "style": STYLES[n % 3]} for n in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained_on_tasks(folder, tmp_path_factory) -> Path:
    """A real training on three tasks, by the script: do not change it."""
    output = tmp_path_factory.mktemp("runs")
    result = run(
        "run_conditional_training", *small_flags(folder, output_dir=output, task_name=TASKS, max_steps=6, eval_steps=3)
    )
    assert result.code == 0, result.err
    assert "qqp: 96 examples" in result.out and "QT: 24 examples" in result.out and "text: 40 examples" in result.out
    return only_run(output)


def config_of(folder: Path, **settings) -> DataConfig:
    return tiny_config(task_name=TASKS, data_dir=str(folder), max_length=96, max_target_length=44, **settings).data


def encoded(config: DataConfig, split: str = "train", skills: Skills | None = None):
    """The pairs of a split, encoded, and the collator of their prompts."""
    pairs = getattr(load_pairs(config, 0), split)
    skills = skills or Skills.of(config.task_name, styles_of(pairs, config.task_name))
    return (
        pairs,
        encode_tasks(pairs, tiny_tokenizer(), config, skills),
        Collator(tiny_tokenizer(), skills.prompts),
        skills,
    )


def rows_of(batch) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """(prompt, source, target) of every row of a batch, as ids."""
    rows = []
    lengths = zip(batch.source_length.tolist(), batch.prompt_length.tolist(), batch.target_length.tolist())
    for ids, (source, prompt, target) in zip(batch.input_ids.tolist(), lengths):
        rows.append(
            (tuple(ids[1 : 1 + prompt]), tuple(ids[1 + prompt : source - 1]), tuple(ids[source : source + target]))
        )
    return rows


# ---- the table of skills -------------------------------------------------------------------------------------------


def test_numbers_and_prompts():
    """The first task is PAIR, the others count on after CONTINUE, plain prompts before styled ones; plain texts have no
    prompt.
    """
    skills = Skills.of("text,wiki_alignment,qqp", {"qqp": ["casual", "formal"]})
    assert skills.prompts == ["simplify:", "paraphrase:", "paraphrase casual:", "paraphrase formal:"]
    assert [skills.number(*key) for key in ((), ("qqp",), ("qqp", "casual"), ("qqp", " Formal "))] == [PAIR, 3, 4, 5]
    assert skills.first == "wiki_alignment" and skills.tasks == ("text", "wiki_alignment", "qqp")
    assert [is_pair(number) for number in (PAIR, NO_SOURCE, CONTINUE, 3, 5)] == [True, False, False, True, True]
    assert Skills.from_plain("text,wiki_alignment,qqp", skills.plain()) == skills
    assert commands_of(skills) == {"simplify": "wiki_alignment", "para": "qqp"}
    assert commands_of(Skills.of("CC,QT")) == {"reply": "CC", "question": "QT", "para": "CC"}
    assert commands_of(Skills.of("sample,qqp")) == {"para": "sample"} and Skills.of("text").prompts == [""]


def test_unknown_tasks_and_styles_are_refused():
    skills = Skills.of("qqp,CC", {"qqp": ["casual", "formal"]})
    assert "knows qqp, CC" in refusal(skills.number, "QT")
    assert "casual, formal; did you mean 'formal'" in refusal(skills.number, "qqp", "forml")
    assert "no styles for CC" in refusal(skills.number, "CC", "formal")
    assert f"at most {MOST_STYLES}" in refusal(Skills.of, "qqp", {"qqp": [f"s{n}" for n in range(MOST_STYLES + 1)]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_name": "qqp,QQ"}, "names 'QQ': expected some of sample, qqp"),
        ({"task_name": "qqp,"}, "names ''"),
        ({"task_name": "qqp,CC,qqp"}, "every name once"),
        ({"task_name": "qqp,CC", "train_file": "a.jsonl"}, "DIR/TASK"),
        ({"task_name": "qqp,CC", "dataset_name": "a/b"}, "DIR/TASK"),
        ({"task_name": "qqp", "task_balance": "equal"}, "there is one task, qqp"),
        ({"task_name": "qqp,CC", "task_balance": "even"}, "expected one of proportional, equal, sqrt"),
    ],
)
def test_settings_that_are_refused(settings, words):
    assert words in refusal(tiny_config, **settings)


def test_names_of_tasks_are_tidied():
    assert tiny_config(task_name="qqp, CC").data.task_name == "qqp,CC"


# ---- data ----------------------------------------------------------------------------------------------------------


def test_mixed_pairs_are_a_sequence(folder):
    """Like one list of all parts, whatever the index."""
    mixed = load_pairs(config_of(folder), 0).train
    whole = [pair for part in mixed.parts.values() for pair in part]
    assert (
        {name: len(part) for name, part in mixed.parts.items()} == SIZES and list(mixed) == whole and len(mixed) == 160
    )
    assert [mixed[index] for index in (0, 95, 96, 119, 120, -1)] == [
        whole[index] for index in (0, 95, 96, 119, 120, -1)
    ]
    assert mixed[90:125:3] == whole[90:125:3] and [mixed.task(index) for index in (0, 95, 96, 120, 159)] == [
        "qqp",
        "qqp",
        "QT",
        "text",
        "text",
    ]
    with pytest.raises(IndexError):
        mixed[160]
    assert parts_of(whole, "CC") == {"CC": whole}


def test_where_the_data_of_several_tasks_comes_from(folder, tmp_path):
    """A folder per task; what is missing is refused; `sample` is built in; symmetric turns what can be turned,
    max_samples is of each.
    """
    config = config_of(folder)
    assert "no such folder" in refusal(load_pairs, dataclasses.replace(config, task_name="qqp,CC"))
    assert "one folder (not several)" in refusal(
        load_pairs, dataclasses.replace(config, data_dir=f"{folder}/qqp,{folder}/QT")
    )
    splits = load_pairs(dataclasses.replace(config, symmetric=True, max_samples=20), 0)
    assert [len(part) for part in splits.train.parts.values()] == [40, 20, 20]
    assert any(note.startswith("qqp: symmetric") for note in splits.notes) and not any(
        note.startswith("QT: symmetric") for note in splits.notes
    )
    assert "all go one way" in refusal(load_pairs, dataclasses.replace(config, task_name="QT,text", symmetric=True))
    assert list(load_pairs(dataclasses.replace(config, task_name="text,sample", max_samples=5), 0).train.parts) == [
        "text",
        "sample",
    ]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"src": "a", "trg": "b"}\n')
    assert "takes plain texts" in refusal(load_pairs, DataConfig(task_name="text", train_file=str(pairs)))
    assert "no data of its own" in refusal(load_pairs, DataConfig(task_name="text,sample"))


@pytest.mark.parametrize("mapped", [False, True])
def test_every_example_has_its_own_prompt(folder, tmp_path, mapped):
    """Each row of every batch is an example of a task, once, with that task's prompt, no source, or a prefix; texts
    have never a prompt.
    """
    config = config_of(
        folder,
        **({"cache_above_mb": 0, "cache_dir": str(tmp_path)} if mapped else {}),
        source_dropout=0.2,
        continue_share=0.2,
    )
    pairs, data, collator, skills = encoded(config)
    assert isinstance(data, EncodedMix) and len(data) == 160 and data.kept.tolist() == list(range(160))
    encode = tiny_tokenizer().encode
    written = {
        (tuple(encode(pair.source or "")), tuple(encode(pair.target))): name
        for name, part in pairs.parts.items()
        for pair in part
    }
    prompts = {"qqp": tuple(encode("paraphrase:")), "QT": tuple(encode("question:"))}
    counts, continued = dict.fromkeys(SIZES, 0), 0
    for batch in map(EpochBatches(data, collator, config, 16, 0, 0).__getitem__, range(10)):
        for prompt, source, target in rows_of(batch):
            if prompt == tuple(encode("continue:")):
                continued += 1
            elif prompt:
                task = written[source, target]
                assert prompt == prompts[task]
                counts[task] += 1
            else:
                assert source == () and target in {target for _, target in written}
    assert sum(len(EpochBatches(data, collator, config, 16, 0, 0).indices(n)) for n in range(10)) == 160
    assert (
        96 * 0.4 < counts["qqp"] < 96 * 0.8
        and 24 * 0.3 < counts["QT"] < 24 * 0.9
        and counts["text"] == 0
        and continued > 10
    )


def test_mapped_and_in_memory_give_the_same_batches(folder, tmp_path):
    """Also with self-made rows: a mix from the cache gathers what the flat arrays of its parts hold."""
    plain, mapped = (
        encoded(config_of(folder, **more)) for more in ({}, {"cache_above_mb": 0, "cache_dir": str(tmp_path)})
    )
    assert torch.equal(
        torch.from_numpy(np.concatenate(list(plain[1].target_blocks()))),
        torch.from_numpy(np.concatenate(list(mapped[1].target_blocks()))),
    )
    config = config_of(folder)
    one, two = (EpochBatches(data, collator, config, 16, 7, 3) for _, data, collator, _ in (plain, mapped))
    assert len(one) == len(two) == 10
    assert all(torch.equal(one[number].input_ids, two[number].input_ids) for number in range(10))


def test_what_does_not_fit_is_told_by_task(folder):
    """Indices into the mixed pairs stay right when examples are left out."""
    config = dataclasses.replace(config_of(folder), max_target_length=9)
    pairs, data, _, _ = encoded(config)
    assert 0 < len(data) < 160 and any(note.startswith("QT: ") for note in data.notes)
    for index in range(len(data)):
        ids, begin, middle, end = data.rows(np.array([index]))
        pair = pairs[int(data.kept[index])]
        assert ids[begin[0] : middle[0]].tolist() == tiny_tokenizer().encode(pair.source or "")
        assert ids[middle[0] : end[0]].tolist() == tiny_tokenizer().encode(pair.target)


# ---- balance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "shares"), [("proportional", (96, 24, 40)), ("equal", (24, 24, 24)), ("sqrt", (48, 24, 31))]
)
def test_shares_of_an_epoch(folder, balance, shares):
    """As many examples of each task as promised, none twice; the same for the same seed and epoch, others for
    another.
    """
    config = config_of(folder, task_balance=balance)
    _, data, collator, _ = encoded(config)

    def epoch(seed: int, number: int) -> list[int]:
        batches = EpochBatches(data, collator, config, 8, seed, number)
        return [int(index) for batch in range(len(batches)) for index in batches.indices(batch)]

    first = epoch(0, 0)
    assert len(set(first)) == len(first) == sum(shares)
    assert np.histogram(first, bins=data.starts)[0].tolist() == list(shares)
    assert first == epoch(0, 0) and first != epoch(0, 1) and first != epoch(1, 0)


def test_epochs_walk_through_a_large_task():
    """Four epochs of a quarter each take every row once; then it is shuffled again."""
    parts = [balanced_choice([100, 25], "equal", 3, epoch) for epoch in range(8)]
    large = [part[part < 100] for part in parts]
    assert sorted(np.concatenate(large[:4])) == sorted(np.concatenate(large[4:])) == list(range(100))
    assert not np.array_equal(np.concatenate(large[:4]), np.concatenate(large[4:]))
    assert all(sorted(part[part >= 100]) == list(range(100, 125)) for part in parts)
    assert balanced_choice([5], "equal", 0, 0) is None and balanced_choice([5, 6], "proportional", 0, 0) is None


# ---- the yardstick -------------------------------------------------------------------------------------------------


def test_parts_of_the_nelbo_add_up(folder):
    """Every batch of the yardstick is of one task, with equal numbers of examples where there are as many; its parts
    sum to the whole.
    """
    config = config_of(folder)
    _, data, collator, skills = encoded(config)
    batches, tasks = fixed_batches(data, collator, 16, limit=90), batch_tasks(data, 16, limit=90)
    sizes = [sum(len(batch) for batch, task in zip(batches, tasks) if task == number) for number in range(3)]
    assert sizes == [30, 24, 30] and len(batches) == len(tasks)
    prompts = [
        {row[0] for batch, task in zip(batches, tasks) if task == number for row in rows_of(batch)}
        for number in range(3)
    ]
    assert prompts == [{tuple(tiny_tokenizer().encode(text))} for text in ("paraphrase:", "question:", "")]
    model = new_model(max_length=96, max_target_length=44)
    whole = estimate_nelbo(model.denoiser, model.diffusion, batches)
    parts = estimate_nelbo_by_group(model.denoiser, model.diffusion, batches, tasks, 3)
    assert torch.allclose(torch.stack([part.stacked() for part in parts]).sum(0), whole.stacked(), rtol=1e-12)
    assert all(float(part.tokens) > 0 for part in parts)


# ---- styles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.jsonl",
            (
                '{"src": "a", "trg": "b", "style": " Very  Formal"}\n{"src": "c", "trg": "d", "style": null}\n{"src":'
                ' "e", "trg": "f"}\n'
            ),
        ),
        ("a.csv", "src,trg,Style\na,b,very formal\nc,d,\ne,f, \n"),
        ("a.tsv", "src\ttrg\ttone\na\tb\tVERY FORMAL\nc\td\t\ne\tf\t\n"),
    ],
)
def test_styles_are_read(tmp_path, name, text):
    """From the column style or tone, in small letters; an empty one is none. A styled pair is still two texts."""
    (tmp_path / name).write_text(text)
    pairs = read_file(tmp_path / name).pairs
    assert pairs == [("a", "b"), ("c", "d"), ("e", "f")] and [pair.style for pair in pairs] == [
        "very formal",
        None,
        None,
    ]
    assert (
        type(pairs[1]) is Pair
        and row_styles(pairs)[0] == ["very formal"]
        and row_styles(pairs)[1].tolist() == [0, -1, -1]
    )


def test_bad_styles_are_bad_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    styles = (7, "a:b", "x" * 41, "fine")
    path.write_text("".join(json.dumps({"src": "a", "trg": "b", "style": style}) + "\n" for style in styles))
    report = read_file(path)
    assert (
        [pair.style for pair in report.pairs] == ["fine"]
        and "style is int" in report.bad_rows[0]
        and len(report.bad_rows) == 3
    )


def test_styled_rows_have_styled_prompts(styled_file):
    """Rows of a style have its prompt, but for the share of style_dropout; rows without one the plain prompt; in
    validation all have their own.
    """
    config = tiny_config(
        train_file=str(styled_file), task_name="custom", style_dropout=0.25, source_dropout=0.0, continue_share=0.0
    ).data
    pairs, data, collator, skills = encoded(config)
    assert skills.all_styles() == {"custom": ["casual", "formal"]} and skills.prompts[1] == "paraphrase casual:"
    encode = tiny_tokenizer().encode
    styles = {tuple(encode(pair.target)): pair.style for pair in pairs}
    prompts = {style: tuple(encode(skills.prompts[index])) for index, style in enumerate((None, "casual", "formal"))}
    counts = {style: [0, 0] for style in prompts}  # with the style's own prompt, with the plain one
    for epoch in range(4):
        batches = EpochBatches(data, collator, config, 32, 0, epoch)
        for prompt, _, target in (row for number in range(len(batches)) for row in rows_of(batches[number])):
            style = styles[target]
            assert prompt in (prompts[style], prompts[None])
            counts[style][prompt != prompts[style]] += 1
    assert counts[None][1] == 0 and all(
        0.15 < plain / (plain + own) < 0.35 for own, plain in (counts["casual"], counts["formal"])
    )
    for prompt, _, target in (row for batch in fixed_batches(data, collator) for row in rows_of(batch)):
        assert prompt == prompts[styles[target]]


def test_styles_come_through_the_cache(styled_file, tmp_path):
    """Mapped rows keep their styles, taken rows theirs, turned rows have none; batches are the same as from memory."""
    settings = {"train_file": str(styled_file), "task_name": "custom"}
    plain, mapped = (
        tiny_config(**settings, **more).data for more in ({}, {"cache_above_mb": 0, "cache_dir": str(tmp_path)})
    )
    here, there = load_pairs(plain, 0).train, load_pairs(mapped, 0).train
    assert type(there).__name__ == "MappedPairs" and [pair.style for pair in here] == [pair.style for pair in there]
    assert row_styles(here)[0] == row_styles(there)[0] and np.array_equal(row_styles(here)[1], row_styles(there)[1])
    turned = there.turned()
    assert (
        {pair.style for pair in turned} == {None} and row_styles(turned)[0] == [] and set(row_styles(turned)[1]) == {-1}
    )
    one, two = (EpochBatches(data, collator, plain, 16, 0, 0) for _, data, collator, _ in map(encoded, (plain, mapped)))
    assert all(torch.equal(one[number].input_ids, two[number].input_ids) for number in range(len(one)))


def test_without_styles_nothing_changes(folder):
    """One task without a style column has no column of skills at all: the arrays and draws of ever."""
    config = tiny_config(task_name="qqp", data_dir=str(folder / "qqp"), max_length=96, max_target_length=44).data
    pairs, data, collator, skills = encoded(config)
    before = encode_pairs(pairs, tiny_tokenizer(), config, "paraphrase:")
    assert data.pair_skills is None and data.plain_skills is None and skills.prompts == ["paraphrase:"]
    old = EpochBatches(before, Collator(tiny_tokenizer(), "paraphrase:"), config, 16, 5, 2)
    new = EpochBatches(data, collator, dataclasses.replace(config, style_dropout=0.9), 16, 5, 2)
    assert all(torch.equal(old[number].input_ids, new[number].input_ids) for number in range(len(old)))


def test_styles_that_a_model_does_not_know_count_as_none():
    """In data to evaluate on."""
    pairs = [StyledPair("how ?", "why ?", "formal"), StyledPair("how ?", "what ?", "rude"), Pair("how ?", "who ?")]
    data = encode_tasks(pairs, tiny_tokenizer(), DataConfig(), Skills.of("qqp", {"qqp": ["formal"]}))
    assert data.pair_skills.tolist() == [3, PAIR, PAIR] and "style rude is unknown" in data.notes[0]


# ---- training, checkpoint, generation ------------------------------------------------------------------------------


def test_a_run_on_several_tasks(trained_on_tasks):
    """Directory, settings, log and checkpoint know all tasks."""
    assert "_qqp+QT+text_lr" in trained_on_tasks.name
    assert yaml.safe_load((trained_on_tasks / "config.yaml").read_text())["task_name"] == TASKS
    validations = [record for record in read_records(trained_on_tasks) if record["kind"] == "validation"]
    assert len(validations) == 3 and all(
        {f"valid_nelbo_{task}" for task in SIZES} < set(record) for record in validations
    )
    for record in validations:
        parts = [record[f"valid_nelbo_{task}"] for task in SIZES]
        assert min(parts) <= record["valid_nelbo"] <= max(parts)
    results = json.loads((trained_on_tasks / "training_results.json").read_text())
    assert {f"test_nelbo_{task}" for task in SIZES} < set(results)
    model = load_checkpoint(trained_on_tasks / "best_model.pt")
    assert model.skills == Skills.of(TASKS) and model.task.name == "qqp" and model.knows_pairs


def test_one_task_of_pairs_with_plain_texts(folder, tmp_path):
    """A single kind of pairs beside plain texts: one prompt in all, two tasks."""
    result = run(
        "run_conditional_training", *small_flags(folder, output_dir=tmp_path, task_name="qqp,text", max_steps=2)
    )
    assert result.code == 0, result.err
    assert "qqp: 96 examples" in result.out and "text: 40 examples" in result.out
    assert load_checkpoint(only_run(tmp_path) / "best_model.pt").skills.prompts == Skills.of("qqp,text").prompts


def test_an_id_column_is_no_style(tmp_path):
    """A style column with a name of its own for every row is refused in one line, and soon."""
    path = tmp_path / "ids.jsonl"
    path.write_text(
        "".join(json.dumps({"src": "a", "trg": "b", "style": f"id{number}"}) + "\n" for number in range(40_000))
    )
    result = run(
        "run_conditional_training",
        *small_flags(None, train_file=path, task_name="custom", output_dir=tmp_path, max_steps=2),
    )
    assert result.code == 2 and "style" in result.err and len(result.err.splitlines()) == 1


def test_schedule_counts_all_targets(folder, trained_on_tasks):
    """The word-frequency table is of the targets of all tasks."""
    model = load_checkpoint(trained_on_tasks / "best_model.pt")
    splits = load_pairs(model.config.data, model.config.training.seed)
    ids = [index for pair in splits.train for index in model.tokenizer.encode(pair.target)]
    assert torch.equal(model.token_counts, torch.bincount(torch.tensor(ids), minlength=len(model.token_counts)))


def test_evaluation_of_one_task(trained_on_tasks, tmp_path):
    """By default of the first, or of the one that is named; an unknown one is refused."""
    flags = [
        "--checkpoint",
        trained_on_tasks / "best_model.pt",
        "--parts",
        "nelbo",
        "--output_dir",
        tmp_path,
        "--device",
        "cpu",
    ]
    pairs = {}
    for task, size in (("qqp", 14), ("QT", 6), ("text", 2)):
        result = run("evaluate_trained_model", *flags, *(() if task == "qqp" else ("--task_name", task)))
        assert result.code == 0, result.err
        name = "evaluation.json" if task == "qqp" else f"evaluation_{task}.json"
        pairs[task] = json.loads((tmp_path / name).read_text())
        assert (pairs[task]["task"], pairs[task]["pairs"]) == (task, size) and pairs[task]["nelbo"]
    refused = run("evaluate_trained_model", *flags, "--task_name", "CC")
    assert refused.code == 2 and "knows qqp, QT, text" in refused.err
    refused = run("evaluate_trained_model", *flags, "--style", "formal")
    assert refused.code == 2 and "knows no styles for qqp" in refused.err


def test_skills_are_chosen_at_generation(trained_on_tasks):
    """rewrite takes the prompt of the task; paraphrase_text that of the first; what a checkpoint has not learned is
    refused.
    """
    model = load_checkpoint(trained_on_tasks / "best_model.pt")
    generator = DiffusionTextGenerator(model)
    text, settings = (
        "How can I learn to cook?",
        {"num_samples": 1, "best_of": 1, "num_steps": 2, "temperature": 0.0, "length": "4"},
    )
    assert generator.paraphrase_text(text, **settings) == generator.rewrite(text, task="qqp", **settings)
    assert generator.rewrite(text, task="QT", **settings) == DiffusionTextGenerator(model, task="QT").paraphrase_text(
        text, **settings
    )
    assert "knows qqp, QT" in refusal(generator.rewrite, text, task="wiki_alignment")
    assert "no styles for qqp" in refusal(generator.paraphrase_text, text, style="formal")
    # the prompt is what tells the two tasks apart
    batches = [generator.collator.batch([(skill, [9, 10], [11])]) for skill in (PAIR, 3)]
    logits = [model.denoiser.length_logits(model.denoiser.encode_source(batch).states) for batch in batches]
    assert not torch.allclose(*logits)


def test_skills_in_the_repl(trained_on_tasks):
    """Every skill of the checkpoint is a command that writes with its own prompt; the others say that they have not
    been learned.
    """
    model = load_checkpoint(trained_on_tasks / "best_model.pt")
    options = SamplingConfig(num_samples=1, best_of=1, num_steps=2, temperature=0.0, length="4", device="cpu")
    lines: list[str] = []
    repl = Repl(DiffusionTextGenerator(model, options), lines.append)
    for line in ("para Why is it so?", "question Why is it so?", "simplify Why is it so?", "help", "set style formal"):
        repl.handle(line)
    settings = {**vars(options), "seed": options.seed}
    assert lines[0] == f"  1. {repl.generator.rewrite('Why is it so?', task='qqp', **settings)[0]}"
    assert lines[1].startswith("  1. ") and "not learned to simplify" in lines[2]
    assert any(line.startswith("  question <text>") for line in lines) and "no styles for qqp" in lines[-1]
    model.skills = Skills.of("QT,qqp", {"qqp": ["formal"]})
    lines.clear()
    repl = Repl(DiffusionTextGenerator(model, options), lines.append)
    for line in ("set style rude", "set style formal", "set style none", "help"):
        repl.handle(line)
    assert (
        "knows formal" in lines[0]
        and lines[1:3] == ["style = formal", "style = none"]
        and any("style of qqp: formal" in line for line in lines)
    )


def test_styles_in_a_checkpoint(styled_file, tmp_path):
    """A real training on styled rows: its vocabulary has the prompts, the file the styles; a style can be asked for, or
    none.
    """
    result = run(
        "run_conditional_training",
        *small_flags(None, train_file=styled_file, task_name="custom", output_dir=tmp_path, max_steps=3),
    )
    assert result.code == 0 and "styles of custom: casual, formal" in result.out, result.err
    best = only_run(tmp_path) / "best_model.pt"
    generator = DiffusionTextGenerator.from_checkpoint(best, device="cpu", num_samples=1, num_steps=2)
    assert generator.model.skills.styles("custom") == ["casual", "formal"]
    assert generator.tokenizer.words(generator.tokenizer.encode("paraphrase formal:")) == ["paraphrase", "formal", ":"]
    assert generator.paraphrase_text("how can i 7 ?", style="Formal") and generator.paraphrase_text("how can i 7 ?")
    assert "knows casual, formal" in refusal(generator.paraphrase_text, "how can i 7 ?", style="rude")
    evaluated = run(
        "evaluate_trained_model",
        "--checkpoint",
        best,
        "--split",
        "valid",
        "--style",
        "formal",
        "--max_samples",
        3,
        "--num_steps",
        2,
    )
    assert evaluated.code == 0 and "| style | formal |" in (best.parent / "evaluation.md").read_text(), evaluated.err


def test_old_checkpoints_load(trained, tmp_path):
    """Without a table of prompts those of the task are meant; a damaged table is refused."""
    payload = read_payload(trained / "best_model.pt")
    assert payload.pop("skills") == [["sample", None, "paraphrase:"]]
    model = restore(payload)
    assert model.skills == Skills.of("sample") and model.task.name == "sample"
    for damaged in ([], [["sample", None]], [["CC", None, "reply:"]], [["sample", 3, "paraphrase:"]], 7):
        assert "table of prompts" in refusal(restore, {**payload, "skills": damaged})
    save_checkpoint(tmp_path / "again.pt", model)
    assert read_payload(tmp_path / "again.pt")["skills"] == [["sample", None, "paraphrase:"]]


def test_prompts_of_a_checkpoint_are_its_own(trained):
    """They are read from the file, not from the table of the program."""
    payload = read_payload(trained / "best_model.pt")
    generator = DiffusionTextGenerator(restore({**payload, "skills": [["sample", None, "reword this:"]]}))
    assert generator.collator.prompts[PAIR] == generator.tokenizer.encode("reword this:")


def test_long_names_of_runs(tmp_path):
    """All tasks joined by +; what would be too long is counted."""
    names = [
        RunDirectory.create(tiny_config(task_name=tasks, output_dir=str(tmp_path))).path.name
        for tasks in ("qqp", "qqp,CC", "sample,qqp,QT,wiki_alignment,CC,custom,text")
    ]
    assert [name.split("tiny_")[1].split("_lr")[0] for name in names] == ["qqp", "qqp+CC", "sample+6more"]


@pytest.mark.parametrize("balance", ["proportional", "sqrt"])
def test_resumed_runs_are_the_same(folder, tmp_path, balance):
    """Interrupted in the second epoch and resumed: the weights, metrics and random state of an unbroken run."""
    settings = {"task_name": TASKS, "task_balance": balance, "epochs": 3, "batch_size": 40}
    whole = new_trainer(folder, tmp_path / "whole", **settings)
    whole.fit()
    broken = new_trainer(folder, tmp_path / "broken", **settings)
    step = broken.step

    def stop_after(*arguments):
        step(*arguments)
        if broken.state.step == whole.steps_per_epoch + 1:
            broken._stop(signal.SIGTERM)

    broken.step = stop_after
    assert broken.fit().reason == "interrupted"
    payload = read_payload(broken.run.last)
    model = restore(payload)
    _, data = encode_training_data(model, load_pairs(model.config.data, model.config.training.seed), fit=False)
    resumed = Trainer(model, data, broken.run, resume=training_part(payload, broken.run.last))
    assert resumed.fit().reason == "epochs" and resumed.state.step == whole.state.step
    assert compare_runs(broken.run.path, whole.run.path) == []


def test_training_on(trained_on_tasks, styled_file, tmp_path):
    """A child takes all of the parent's tasks, one of them, or own data with new styles; what its data no longer has it
    keeps as a style.
    """
    flags = ["--checkpoint", trained_on_tasks / "best_model.pt", "--max_steps", 1, "--output_dir"]
    same = run("continue_training", *flags, tmp_path / "same", "--epochs", 1)
    assert same.code == 0 and "_qqp+QT+text_" in only_run(tmp_path / "same").name, same.err
    own = run("continue_training", *flags, tmp_path / "own", "--train_file", styled_file)
    assert own.code == 0 and "_qqp_" in only_run(tmp_path / "own").name, own.err
    assert load_checkpoint(only_run(tmp_path / "own") / "best_model.pt").skills.styles("qqp") == ["casual", "formal"]
    again = run("continue_training", *flags, tmp_path / "again", "--data_dir", trained_on_tasks.parent / "copy")
    assert again.code == 2 and "no such folder" in again.err
    parent = Skills.of("qqp,CC", {"qqp": ["formal"]})
    child = skills_of_child(parent, tiny_config(task_name="qqp"), {"qqp": ["casual", "formal"]})
    assert child.prompts == ["paraphrase:", "paraphrase formal:", "paraphrase casual:"]
    assert skills_of_child(parent, tiny_config(task_name="CC"), {}).prompts == ["reply:"]
    assert MixedPairs({"a": [Pair("b", "c")]})[0] == ("b", "c")
