"""Wrong input to any script: one line on stderr that says what came and what to do, exit code 2, no traceback, nothing
written.
"""

import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch

from tests.helpers.models import save_bert
from tests.helpers.scripts import run

TRAIN, CONTINUE, EVALUATE, TALK = (
    "run_conditional_training",
    "continue_training",
    "evaluate_trained_model",
    "interactive_generation",
)


class Malicious:
    """A pickle that would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_broken_checkpoints(folder: Path, good: Path) -> None:
    """Files that are no checkpoint, in every way we could think of."""
    content = good.read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("I am no checkpoint\n")
    (folder / "truncated.pt").write_bytes(content[: len(content) // 2])
    (folder / "short.pt").write_bytes(content[:40])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    (folder / "flipped.pt").write_bytes(bytes(flipped))
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    torch.save(torch.zeros(3), folder / "tensor.pt")
    payload = torch.load(good, weights_only=True)
    torch.save({**payload, "format_version": 99}, folder / "newer.pt")
    torch.save({key: value for key, value in payload.items() if key != "tokenizer"}, folder / "incomplete.pt")
    torch.save({**payload, "tokenizer": "{}"}, folder / "no_tokenizer.pt")
    torch.save({**payload, "config": {**payload["config"], "num_steps": 0}}, folder / "bad_config.pt")
    torch.save({"format": "diffusion-bert", "weights": Malicious(folder / "ran_1")}, folder / "malicious.pt")
    with open(folder / "malicious_old.pt", "wb") as file:
        pickle.dump({"format": "diffusion-bert", "x": Malicious(folder / "ran_2")}, file)
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "b")
    torch.save(
        {"bert.embeddings.word_embeddings.weight": torch.zeros(4, 2), "cls.predictions.bias": torch.zeros(4)},
        folder / "pytorch_model.bin",
    )
    torch.save({**payload, "training": {"state": 1}}, folder / "bad_training.pt")
    smaller = {**payload["architecture"], "vocab_size": 100}
    torch.save({**payload, "architecture": smaller}, folder / "small_vocabulary.pt")
    torch.save({**payload, "architecture": {**payload["architecture"], "hidden_size": 64}}, folder / "narrow.pt")
    torch.save({**payload, "config": {**payload["config"], "copy_head": False}}, folder / "other_heads.pt")
    torch.save(
        {**payload, "token_counts": payload["token_counts"][:5], "informativeness": payload["informativeness"][:5]},
        folder / "short_table.pt",
    )


def write_broken_data(folder: Path) -> None:
    """Data files with everything that goes wrong in practice."""
    row = json.dumps({"src": "How are you?", "trg": "How do you do?"})
    (folder / "one_bad.jsonl").write_text(f"{row}\n{{oops\n{row}\n")
    (folder / "many_bad.jsonl").write_text(f"{row}\n" + "{oops\n" * 30)
    (folder / "no_target.jsonl").write_text('{"src": "a", "trg": ""}\n')
    (folder / "list.jsonl").write_text("[1, 2]\n")
    (folder / "utf16.csv").write_bytes("src,trg\na,b\n".encode("utf-16"))
    (folder / "utf16.jsonl").write_bytes(f"{row}\n".encode("utf-16"))
    (folder / "latin1.txt").write_bytes("caf\xe9 au lait\n".encode("latin-1"))
    (folder / "columns.csv").write_text("question,answer\na,b\n")
    (folder / "headless.tsv").write_text("How are you?\tHow do you do?\n")
    (folder / "open_quote.csv").write_text('src,trg\n"a,b\nc,d\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.txt").write_text("\n   \n")
    (folder / "data.docx").write_text("no")
    (folder / "good.jsonl").write_text(f"{row}\n" * 5)
    (folder / "long.jsonl").write_text(json.dumps({"src": "word " * 300, "trg": "word " * 300}) + "\n")
    for name, rows in (
        ("null", '{"src": null, "trg": null}'),
        ("numbers", '{"src": 1, "trg": 2}'),
        ("nested", '{"src": ["a"], "trg": {"b": 1}}'),
        ("strings", '"a"'),
        ("no_keys", '{"question": "a", "answer": "b"}'),
        ("json_array", '[{"src": "a", "trg": "b"}, {"src": "c", "trg": "d"}]'),
        ("zero_bytes", '{"src": "a\\u0000", "trg": "b"}'),
        ("half_emoji", '{"src": "a", "trg": "\\ud83d"}'),
        ("deep", "[" * 100_000),
        ("huge_number", '{"src": ' + "9" * 5000 + ', "trg": "b"}'),
        ("five_megabytes", '{"src": "a", "trg": "' + "incomprehensibilities " * 240_000 + '"}'),
        ("only_cr", "{oops\r{oops\r"),
    ):
        (folder / f"{name}.jsonl").write_text(rows + "\n")
    (folder / "binary.jsonl").write_bytes(bytes(range(256)) * 20)
    (folder / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "utf16_bom.txt").write_bytes("\ufeffhello\n".encode("utf-16-le"))
    (folder / "utf32.txt").write_bytes("hello\n".encode("utf-32"))
    (folder / "header_only.csv").write_text("src,trg\n")
    (folder / "one_column.csv").write_text("src\na\nb\n")
    (folder / "bars.csv").write_text("src|trg\na|b\n")
    (folder / "spaces.txt").write_text(" \u3000\t\n\u00a0\n")
    (folder / "ragged.csv").write_text("src,trg\n" + "a,b,c\n" * 30)
    (folder / "empty.csv").write_text("")
    (folder / "bom_only.csv").write_bytes(b"\xef\xbb\xbf")
    (folder / "no_valid").mkdir()
    (folder / "no_valid" / "train.jsonl").write_text(f"{row}\n")


def write_broken_settings(folder: Path) -> None:
    """YAML files that are no preset, and directories that are no BERT."""
    for name, text in (
        ("tab", "epochs: 1\n\tlr: 1\n"),
        ("unknown_key", "epocs: 3\n"),
        ("wrong_type", "epochs: many\n"),
        ("quoted", "epochs: '3'\n"),
        ("list", "- 1\n- 2\n"),
        ("empty", ""),
        ("date", "epochs: 2024-13-45\n"),
        ("python", "epochs: !!python/object/apply:os.mkdir ['ran_3']\n"),
        ("bool", "copy_head: maybe\n"),
        ("null", "epochs: null\n"),
        ("nested", "training:\n  epochs: 3\n"),
        ("number_key", "1: 2\n"),
        ("word", "quick_demo\n"),
        ("comment", "# nothing yet\n"),
        ("float_for_int", "batch_size: 16.0\n"),
        ("true_for_int", "epochs: true\n"),
        ("yaml_nan", "lr: .nan\n"),
        ("yaml_inf", "lr: .inf\n"),
        ("list_value", "epochs: [1, 2]\n"),
        ("open_bracket", "epochs: [1\n"),
        ("duplicate_anchor", "epochs: *nowhere\n"),
        ("two_documents", "epochs: 1\n---\nepochs: 2\n"),
        ("sampling_key", "temperature: 1.0\n"),
        ("conflict", "data_dir: a\ntrain_file: b.jsonl\n"),
        ("empty_string", "data_dir: ''\n"),
        ("lambda", "word_freq_lambda: 0.9\n"),
    ):
        (folder / f"{name}.yaml").write_text(text)
    (folder / "utf16.yaml").write_bytes("epochs: 1\n".encode("utf-16"))
    for name, text in (
        ("broken_bert", "{"),
        ("gpt", '{"model_type": "gpt2"}'),
        ("typeless", "{}"),
        ("bert_without_tokenizer", '{"model_type": "bert"}'),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    save_bert(folder / "malicious_bert")
    for path in (folder / "malicious_bert").glob("*.safetensors"):
        path.unlink()
    torch.save(
        {"bert.embeddings.word_embeddings.weight": Malicious(folder / "ran_4")},
        folder / "malicious_bert" / "pytorch_model.bin",
    )


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> Path:
    """A folder full of broken files."""
    folder = tmp_path_factory.mktemp("broken")
    write_broken_checkpoints(folder, trained / "best_model.pt")
    write_broken_data(folder)
    write_broken_settings(folder)
    return folder


# name, script, arguments ({f} broken files, {run} a finished run, {data} good data, {out} the output folder), words of
# the message
CASES = [
    # ---- training: task and data
    ("unknown task", TRAIN, "--task_name nope", "task_name is 'nope' qqp sample"),
    ("mistyped task", TRAIN, "--task_name qpq", "did you mean 'qqp'"),
    ("task without a hub", TRAIN, "--task_name QT", "--data_dir"),
    ("hub data without a network", TRAIN, "--task_name qqp", "cannot reach 127.0.0.1 --data_dir sample"),
    ("missing folder", TRAIN, "--data_dir {f}/nowhere", "nowhere no such folder"),
    ("file as folder", TRAIN, "--data_dir {f}/good.jsonl", "no such folder"),
    ("folder without validation", TRAIN, "--data_dir {f}/no_valid", "valid.jsonl no such file"),
    ("missing file", TRAIN, "--train_file {f}/nowhere.jsonl", "nowhere.jsonl no such file"),
    (
        "missing validation file",
        TRAIN,
        "--train_file {f}/good.jsonl --valid_file {f}/nowhere.csv",
        "nowhere.csv no such file",
    ),
    ("missing test file", TRAIN, "--train_file {f}/good.jsonl --test_file {f}/nowhere.csv", "nowhere.csv no such file"),
    ("unknown ending", TRAIN, "--train_file {f}/data.docx", ".docx .jsonl"),
    ("folder as file", TRAIN, "--train_file {f}/no_valid", "is a folder --data_dir"),
    (
        "one bad row too many",
        TRAIN,
        "--train_file {f}/one_bad.jsonl --max_bad_rows 0",
        "one_bad.jsonl, line 2 --max_bad_rows",
    ),
    ("many bad rows", TRAIN, "--train_file {f}/many_bad.jsonl", "line 2 20 more malformed rows"),
    ("only empty targets", TRAIN, "--train_file {f}/no_target.jsonl", "no usable row trg is empty"),
    ("rows that are lists", TRAIN, "--train_file {f}/list.jsonl", "expected an object"),
    ("UTF-16 table", TRAIN, "--train_file {f}/utf16.csv", "UTF-8"),
    ("UTF-16 rows", TRAIN, "--train_file {f}/utf16.jsonl", "UTF-8"),
    ("Latin-1 text", TRAIN, "--train_file {f}/latin1.txt", "not UTF-8 0xe9"),
    ("wrong columns", TRAIN, "--train_file {f}/columns.csv", "question, answer src and trg"),
    ("no header", TRAIN, "--train_file {f}/headless.tsv", "src and trg"),
    ("open quote", TRAIN, "--train_file {f}/open_quote.csv --max_bad_rows 0", "line 2 quote never closed"),
    ("empty file", TRAIN, "--train_file {f}/empty.jsonl", "no usable row"),
    ("blank text", TRAIN, "--train_file {f}/blank.txt", "no usable row"),
    ("nothing fits", TRAIN, "--train_file {f}/long.jsonl", "no training example fits --max_length"),
    ("tiny target limit", TRAIN, "--data_dir {data} --max_target_length 1", "no training example fits"),
    ("folder and file", TRAIN, "--data_dir {data} --train_file {f}/good.jsonl", "both given"),
    ("validation without training", TRAIN, "--valid_file {f}/good.jsonl", "--train_file"),
    # ---- training: numbers
    ("zero epochs", TRAIN, "--epochs 0", "epochs is 0 at least 1"),
    ("negative epochs", TRAIN, "--epochs -3", "epochs is -3 at least 1"),
    ("fraction of an epoch", TRAIN, "--epochs 1.5", "epochs is '1.5' whole number"),
    ("epochs in words", TRAIN, "--epochs three", "epochs is 'three' whole number"),
    ("zero steps", TRAIN, "--num_steps 0", "num_steps is 0 at least 1"),
    ("huge steps", TRAIN, "--num_steps 10000000000000000000000000", "at most 1000000"),
    ("zero max_steps", TRAIN, "--max_steps 0", "max_steps at least 1"),
    ("negative minutes", TRAIN, "--max_minutes -1", "max_minutes at least 0"),
    ("zero batch", TRAIN, "--batch_size 0", "batch_size at least 1"),
    ("zero accumulation", TRAIN, "--accumulation_steps 0", "accumulation_steps at least 1"),
    ("zero learning rate", TRAIN, "--lr 0", "lr is 0 positive"),
    ("negative learning rate", TRAIN, "--lr -0.1", "lr is -0.1 at least 0"),
    ("lr nan", TRAIN, "--lr nan", "lr is nan finite"),
    ("lr inf", TRAIN, "--lr inf", "lr is inf finite"),
    ("lr overflow", TRAIN, "--lr 1e999", "finite"),
    ("lr text", TRAIN, "--lr fast", "lr is 'fast' number"),
    ("lambda over the limit", TRAIN, "--word_freq_lambda 0.5", "0.5 0.318"),
    ("negative lambda", TRAIN, "--word_freq_lambda -0.1", "at least 0"),
    ("lambda nan", TRAIN, "--word_freq_lambda nan", "finite"),
    ("full dropout", TRAIN, "--dropout 1.0", "dropout at most 0.9"),
    ("long warm-up", TRAIN, "--warmup_ratio 2", "warmup_ratio at most 1"),
    ("clip to infinity", TRAIN, "--max_grad_norm inf", "finite"),
    ("short sequences", TRAIN, "--max_length 4", "max_length at least 8"),
    ("targets longer than sequences", TRAIN, "--max_target_length 200", "max_target_length is 200 max_length is 128"),
    (
        "sequences longer than positions",
        TRAIN,
        "--model_name_or_path {f}/bert_without_tokenizer --max_length 9999",
        "bert_without_tokenizer",
    ),
    ("shares over one", TRAIN, "--source_dropout 0.7 --continue_share 0.7", "over 1"),
    ("small vocabulary", TRAIN, "--vocab_size 5", "vocab_size at least 100"),
    ("negative seed", TRAIN, "--seed -1", "seed at least 0"),
    ("huge seed", TRAIN, "--seed 99999999999", "seed at most"),
    ("no samples", TRAIN, "--max_samples 0", "max_samples at least 1"),
    ("draws without isolation", TRAIN, "--noise_draws 2 --attention full", "noise_draws is 2 --attention isolated"),
    ("draws with a time token", TRAIN, "--noise_draws 2 --timestep prefix", "noise_draws is 2 --timestep none"),
    ("no draws", TRAIN, "--noise_draws 0", "noise_draws at least 1"),
    ("negative workers", TRAIN, "--num_workers -1", "num_workers at least 0"),
    ("zero patience", TRAIN, "--patience 0", "patience at least 1"),
    ("zero save_steps", TRAIN, "--save_steps 0", "save_steps at least 1"),
    ("zero eval_steps", TRAIN, "--eval_steps 0", "eval_steps at least 1"),
    # ---- training: choices, device, model, files
    ("hybrid with ce", TRAIN, "--hybrid_lambda 0.5", "hybrid_lambda --loss nelbo"),
    ("unknown loss", TRAIN, "--loss elbo", "did you mean 'nelbo'"),
    ("unknown attention", TRAIN, "--attention half", "isolated, full"),
    ("CUDA without CUDA", TRAIN, "--data_dir {data} --device cuda", "no CUDA --device cpu"),
    ("eighth GPU", TRAIN, "--data_dir {data} --device cuda:7", "no CUDA --device cpu"),
    ("unknown device", TRAIN, "--data_dir {data} --device tpu", "device is 'tpu' cuda:N"),
    ("bf16 on a CPU", TRAIN, "--data_dir {data} --precision bf16", "bf16 --precision auto"),
    (
        "hub model without a network",
        TRAIN,
        "--data_dir {data} --model_name_or_path some-bert-of-someone",
        "cannot reach some-bert-of-someone tiny",
    ),
    ("missing model folder", TRAIN, "--data_dir {data} --model_name_or_path ./nowhere", "config.json"),
    ("broken model folder", TRAIN, "--data_dir {data} --model_name_or_path {f}/broken_bert", "broken_bert"),
    ("not a BERT", TRAIN, "--data_dir {data} --model_name_or_path {f}/gpt", "gpt2 expected a BERT"),
    ("typeless model", TRAIN, "--data_dir {data} --model_name_or_path {f}/typeless", "typeless"),
    (
        "BERT without a tokenizer",
        TRAIN,
        "--data_dir {data} --model_name_or_path {f}/bert_without_tokenizer",
        "bert_without_tokenizer",
    ),
    ("unknown preset", TRAIN, "--preset quick_dem", "did you mean 'quick_demo'"),
    ("missing preset file", TRAIN, "--preset {f}/nowhere.yaml", "nowhere.yaml"),
    ("preset and config", TRAIN, "--preset quick_demo --config {f}/tab.yaml", "expected one of them"),
    ("YAML with a tab", TRAIN, "--config {f}/tab.yaml", "line 2 no tabs"),
    ("unknown key", TRAIN, "--config {f}/unknown_key.yaml", "'epocs' did you mean 'epochs'"),
    ("word for a number", TRAIN, "--config {f}/wrong_type.yaml", "epochs is 'many' whole number"),
    ("quoted number", TRAIN, "--config {f}/quoted.yaml", "epochs is '3' whole number"),
    ("null for a number", TRAIN, "--config {f}/null.yaml", "epochs is None whole number"),
    ("YAML list", TRAIN, "--config {f}/list.yaml", "list key: value"),
    ("empty YAML", TRAIN, "--config {f}/empty.yaml", "nothing"),
    ("impossible date", TRAIN, "--config {f}/date.yaml", "date.yaml"),
    ("YAML that runs code", TRAIN, "--config {f}/python.yaml", "not valid YAML"),
    ("half a boolean", TRAIN, "--config {f}/bool.yaml", "copy_head is 'maybe' true or false"),
    ("sections in YAML", TRAIN, "--config {f}/nested.yaml", "unknown setting 'training'"),
    ("number as a key", TRAIN, "--config {f}/number_key.yaml", "unknown setting '1'"),
    ("UTF-16 YAML", TRAIN, "--config {f}/utf16.yaml", "utf16.yaml"),
    ("folder as config", TRAIN, "--config {f}", "cannot read"),
    ("missing config", TRAIN, "--config {f}/nowhere", "cannot read nowhere"),
    ("unknown flag", TRAIN, "--epoch 3", "'--epoch' did you mean '--epochs'"),
    ("flag without a value", TRAIN, "--epochs", "--epochs expected one argument"),
    ("stray word", TRAIN, "quick_demo", "unknown argument 'quick_demo'"),
    ("output folder is a file", TRAIN, "--data_dir {data} --output_dir {f}/good.jsonl", "good.jsonl --output_dir"),
    (
        "output folder with an impossible name",
        TRAIN,
        "--data_dir {data} --output_dir {out}/" + "x" * 300,
        "--output_dir",
    ),
    ("vocabulary beyond all bounds", TRAIN, "--vocab_size 99999999999999999999999", "vocab_size at most 1000000"),
    ("sequences beyond all bounds", TRAIN, "--max_length 99999999999999999999", "max_length at most 65536"),
    ("a million workers", TRAIN, "--num_workers 1000000", "num_workers at most 64"),
    ("workers in words", TRAIN, "--num_workers two", "num_workers is 'two' whole number"),
    ("hexadecimal epochs", TRAIN, "--epochs 0x10", "epochs is '0x10' whole number"),
    ("empty epochs", TRAIN, "--epochs=", "epochs is '' whole number"),
    ("epochs none", TRAIN, "--epochs none", "epochs is 'none' whole number"),
    ("minus infinity", TRAIN, "--weight_decay=-inf", "weight_decay finite"),
    ("minutes nan", TRAIN, "--max_minutes nan", "max_minutes is nan finite"),
    ("minutes inf", TRAIN, "--max_minutes inf", "max_minutes is inf finite"),
    ("negative weight decay", TRAIN, "--weight_decay -1", "weight_decay at least 0"),
    ("negative clipping", TRAIN, "--max_grad_norm -1", "max_grad_norm at least 0"),
    ("negative hybrid", TRAIN, "--loss nelbo --hybrid_lambda -1", "hybrid_lambda at least 0"),
    ("negative bad rows", TRAIN, "--max_bad_rows -1", "max_bad_rows at least 0"),
    ("zero targets", TRAIN, "--max_target_length 0", "max_target_length at least 1"),
    ("zero logging_steps", TRAIN, "--logging_steps 0", "logging_steps at least 1"),
    ("zero demonstration_steps", TRAIN, "--demonstration_steps 0", "demonstration_steps at least 1"),
    ("average of everything", TRAIN, "--ema_decay 1", "ema_decay below 1"),
    ("too much smoothing", TRAIN, "--label_smoothing 1.5", "label_smoothing at most 0.9"),
    ("source dropout over one", TRAIN, "--source_dropout 1.1", "source_dropout at most 1"),
    ("unknown schedule", TRAIN, "--schedule linear", "schedule is 'linear' mutual, cosine"),
    ("unknown precision", TRAIN, "--precision fp16", "precision is 'fp16' auto, fp32, bf16"),
    ("unknown time conditioning", TRAIN, "--timestep yes", "timestep is 'yes' none, prefix, layerwise"),
    ("boolean in words", TRAIN, "--copy_head perhaps", "copy_head is 'perhaps' true or false"),
    ("upper-case device", TRAIN, "--data_dir {data} --device CPU", "device is 'CPU' cpu"),
    ("Apple's device", TRAIN, "--data_dir {data} --device mps", "device is 'mps' cpu, cuda"),
    ("empty model", TRAIN, "--model_name_or_path=", "model_name_or_path is empty"),
    ("empty output", TRAIN, "--output_dir=", "output_dir is empty"),
    (
        "output below a file",
        TRAIN,
        "--data_dir {data} --output_dir {f}/good.jsonl/below",
        "good.jsonl/below --output_dir",
    ),
    ("null fields", TRAIN, "--train_file {f}/null.jsonl", "no usable row src is missing"),
    ("number fields", TRAIN, "--train_file {f}/numbers.jsonl", "no usable row src is int expected text"),
    ("nested fields", TRAIN, "--train_file {f}/nested.jsonl", "no usable row src is list"),
    ("rows that are strings", TRAIN, "--train_file {f}/strings.jsonl", "expected an object str"),
    ("other keys", TRAIN, "--train_file {f}/no_keys.jsonl", "no usable row src"),
    ("a JSON array", TRAIN, "--train_file {f}/json_array.jsonl", "expected an object"),
    ("zero bytes", TRAIN, "--train_file {f}/zero_bytes.jsonl", "zero byte"),
    ("half a character", TRAIN, "--train_file {f}/half_emoji.jsonl", "half of a character"),
    ("JSON without an end", TRAIN, "--train_file {f}/deep.jsonl", "no usable row deep.jsonl, line 1"),
    ("a number of 5,000 digits", TRAIN, "--train_file {f}/huge_number.jsonl", "huge_number.jsonl, line 1"),
    ("a line of 5 MB", TRAIN, "--train_file {f}/five_megabytes.jsonl", "no training example fits --max_length"),
    (
        "lines that end in CR",
        TRAIN,
        "--train_file {f}/only_cr.jsonl --max_bad_rows 0",
        "only_cr.jsonl, line 1 not JSON",
    ),
    ("binary rows", TRAIN, "--train_file {f}/binary.jsonl", "binary.jsonl UTF-8"),
    ("a picture as a table", TRAIN, "--train_file {f}/binary.csv", "binary.csv UTF-8"),
    ("UTF-16 text", TRAIN, "--train_file {f}/utf16_bom.txt", "UTF-8"),
    ("UTF-32 text", TRAIN, "--train_file {f}/utf32.txt", "UTF-8"),
    ("a header alone", TRAIN, "--train_file {f}/header_only.csv", "no usable row"),
    ("one column", TRAIN, "--train_file {f}/one_column.csv", "columns are src expected src and trg"),
    ("bars", TRAIN, "--train_file {f}/bars.csv", "src|trg src and trg"),
    ("all sorts of blanks", TRAIN, "--train_file {f}/spaces.txt", "no usable row"),
    ("ragged rows", TRAIN, "--train_file {f}/ragged.csv", "3 fields 2 --max_bad_rows"),
    ("empty table", TRAIN, "--train_file {f}/empty.csv", "columns are missing"),
    ("nothing but a byte-order mark", TRAIN, "--train_file {f}/bom_only.csv", "columns are missing"),
    ("one preset word", TRAIN, "--config {f}/word.yaml", "str key: value"),
    ("comments alone", TRAIN, "--config {f}/comment.yaml", "nothing key: value"),
    ("16.0 for a whole number", TRAIN, "--config {f}/float_for_int.yaml", "batch_size is 16.0 whole number"),
    ("true for a whole number", TRAIN, "--config {f}/true_for_int.yaml", "epochs is True whole number"),
    ("YAML's nan", TRAIN, "--config {f}/yaml_nan.yaml", "lr is nan finite"),
    ("YAML's infinity", TRAIN, "--config {f}/yaml_inf.yaml", "lr is inf finite"),
    ("a list for a number", TRAIN, "--config {f}/list_value.yaml", "epochs is [1, 2] whole number"),
    ("open bracket", TRAIN, "--config {f}/open_bracket.yaml", "open_bracket.yaml, line 2 not valid YAML"),
    ("unknown alias", TRAIN, "--config {f}/duplicate_anchor.yaml", "line 1 not valid YAML"),
    ("two documents", TRAIN, "--config {f}/two_documents.yaml", "two_documents.yaml, line 2 not valid YAML"),
    ("key of another command", TRAIN, "--config {f}/sampling_key.yaml", "unknown setting 'temperature'"),
    ("conflict in a file", TRAIN, "--config {f}/conflict.yaml", "--data_dir and --train_file both given"),
    ("empty text in a file", TRAIN, "--config {f}/empty_string.yaml", "data_dir is empty"),
    ("lambda in a file", TRAIN, "--config {f}/lambda.yaml", "0.9 0.318"),
    ("preset with a path", TRAIN, "--preset configs/quick_demo", "no preset did you mean 'quick_demo'"),
    ("empty preset", TRAIN, "--preset=", "no preset '' expected one of"),
    ("preset for continuing", TRAIN, "--preset fine_tuning", "for continue_training.py"),
    # ---- checkpoints, through four scripts
    (
        "weights of transformers",
        EVALUATE,
        "--checkpoint {f}/pytorch_model.bin",
        "pytorch_model.bin no DiffusionBERT checkpoint",
    ),
    ("weights of transformers to talk to", TALK, "--checkpoint {f}/pytorch_model.bin", "no DiffusionBERT checkpoint"),
    (
        "weights of transformers as a parent",
        CONTINUE,
        "--checkpoint {f}/pytorch_model.bin --epochs 1",
        "no DiffusionBERT checkpoint",
    ),
    (
        "weights of transformers as a model",
        TRAIN,
        "--data_dir {data} --model_name_or_path {f}/pytorch_model.bin",
        "pytorch_model.bin config.json",
    ),
    ("checkpoint as a model", TRAIN, "--data_dir {data} --model_name_or_path {run}", "config.json"),
    ("malicious data", TRAIN, "--train_file {f}/malicious.pt", "unknown file type '.pt'"),
    ("malicious settings", TRAIN, "--config {f}/malicious_old.pt", "malicious_old.pt"),
    ("malicious model", TRAIN, "--data_dir {data} --model_name_or_path {f}/malicious_bert", "malicious_bert"),
    ("small vocabulary inside", EVALUATE, "--checkpoint {f}/small_vocabulary.pt", "word pieces only 100"),
    ("another width", EVALUATE, "--checkpoint {f}/narrow.pt", "weights do not fit the architecture 128 64"),
    ("another width to talk to", TALK, "--checkpoint {f}/narrow.pt", "weights do not fit the architecture"),
    ("other heads", EVALUATE, "--checkpoint {f}/other_heads.pt", "weights do not fit the architecture copy_head"),
    ("short table", EVALUATE, "--checkpoint {f}/short_table.pt", "informativeness"),
    ("newer format to talk to", TALK, "--checkpoint {f}/newer.pt", "format 99 update"),
    ("newer format of a parent", CONTINUE, "--checkpoint {f}/newer.pt --epochs 1", "format 99 update"),
    ("flipped bits to talk to", TALK, "--checkpoint {f}/flipped.pt", "damaged"),
    ("flipped bits of a parent", CONTINUE, "--checkpoint {f}/flipped.pt --epochs 1", "damaged"),
    ("half a parent", CONTINUE, "--checkpoint {f}/truncated.pt --epochs 1", "incomplete"),
    ("half a checkpoint to resume", CONTINUE, "--checkpoint {f}/truncated.pt --resume", "incomplete"),
    ("damaged training state", CONTINUE, "--checkpoint {f}/bad_training.pt --resume", "damaged training state"),
    ("empty checkpoint to talk to", TALK, "--checkpoint {f}/empty.pt", "empty.pt"),
    ("folder to talk to", TALK, "--checkpoint {f}", "best_model.pt"),
    ("missing checkpoint", EVALUATE, "--checkpoint {f}/nowhere.pt", "nowhere.pt no such checkpoint"),
    ("folder as checkpoint", EVALUATE, "--checkpoint {f}", "best_model.pt"),
    ("text as checkpoint", EVALUATE, "--checkpoint {f}/text.pt", "text.pt not a"),
    ("empty checkpoint", EVALUATE, "--checkpoint {f}/empty.pt", "empty.pt damaged"),
    ("half a checkpoint", EVALUATE, "--checkpoint {f}/truncated.pt", "truncated.pt incomplete"),
    ("beginning of a checkpoint", EVALUATE, "--checkpoint {f}/short.pt", "short.pt"),
    ("flipped bits", EVALUATE, "--checkpoint {f}/flipped.pt", "damaged"),
    ("foreign file", EVALUATE, "--checkpoint {f}/foreign.pt", "no DiffusionBERT checkpoint"),
    ("bare tensor", EVALUATE, "--checkpoint {f}/tensor.pt", "no DiffusionBERT checkpoint"),
    ("zip archive", EVALUATE, "--checkpoint {f}/zip.pt", "zip.pt not a checkpoint"),
    ("newer format", EVALUATE, "--checkpoint {f}/newer.pt", "format 99 update"),
    ("missing part", EVALUATE, "--checkpoint {f}/incomplete.pt", "incomplete tokenizer"),
    ("no tokenizer", EVALUATE, "--checkpoint {f}/no_tokenizer.pt", "not a tokenizer"),
    ("illegal settings inside", EVALUATE, "--checkpoint {f}/bad_config.pt", "num_steps is 0"),
    ("malicious", EVALUATE, "--checkpoint {f}/malicious.pt", "refused nothing in it was run"),
    ("malicious, old format", EVALUATE, "--checkpoint {f}/malicious_old.pt", "refused nothing in it was run"),
    ("malicious to talk to", TALK, "--checkpoint {f}/malicious.pt", "refused"),
    ("malicious parent", CONTINUE, "--checkpoint {f}/malicious.pt --preset fine_tuning", "refused"),
    ("malicious parent, resumed", CONTINUE, "--checkpoint {f}/malicious.pt --resume", "refused"),
    ("malicious parent, auto", CONTINUE, "--checkpoint {f}/malicious.pt --auto", "refused"),
    ("missing checkpoint to talk to", TALK, "--checkpoint {f}/nowhere.pt", "no such checkpoint"),
    ("missing parent", CONTINUE, "--checkpoint {f}/nowhere.pt --epochs 1", "no such checkpoint"),
    ("no run yet to evaluate", EVALUATE, "", "no trained model runs"),
    ("no run yet to talk to", TALK, "", "no trained model --checkpoint"),
    ("no run yet to continue", CONTINUE, "--auto", "no trained model"),
    ("no run yet to resume", CONTINUE, "--resume", "no run to resume last.pt"),
    # ---- evaluation
    ("unknown split", EVALUATE, "--checkpoint {run}/best_model.pt --split train", "split is 'train' valid or test"),
    ("no pairs", EVALUATE, "--checkpoint {run}/best_model.pt --max_samples 0", "at least 1"),
    ("MBR of none", EVALUATE, "--checkpoint {run}/best_model.pt --mbr 0", "at least 1"),
    ("MBR in words", EVALUATE, "--checkpoint {run}/best_model.pt --mbr ten", "'ten' whole number"),
    ("missing test file", EVALUATE, "--checkpoint {run}/best_model.pt --test_file {f}/nowhere.jsonl", "no such file"),
    ("missing examples", EVALUATE, "--checkpoint {run}/best_model.pt --examples {f}/nowhere.txt", "no such file"),
    ("missing data", EVALUATE, "--checkpoint {run}/best_model.pt --data_dir {f}/nowhere", "no such folder"),
    (
        "unknown sampler",
        EVALUATE,
        "--checkpoint {run}/best_model.pt --sampler best",
        "ancestral, first_hitting, confidence",
    ),
    ("negative temperature", EVALUATE, "--checkpoint {run}/best_model.pt --temperature -1", "temperature at least 0"),
    ("top_p over one", EVALUATE, "--checkpoint {run}/best_model.pt --top_p 1.5", "top_p at most 1"),
    ("evaluation on CUDA", EVALUATE, "--checkpoint {run}/best_model.pt --device cuda", "no CUDA"),
    (
        "report into a file",
        EVALUATE,
        "--checkpoint {run}/best_model.pt --output_dir {f}/good.jsonl --max_samples 1",
        "good.jsonl --output_dir",
    ),
    ("evaluation seed", EVALUATE, "--checkpoint {run}/best_model.pt --seed -1", "seed at least 0"),
    (
        "evaluation steps",
        EVALUATE,
        "--checkpoint {run}/best_model.pt --num_steps 1e3",
        "num_steps is '1e3' whole number",
    ),
    ("length beam of none", EVALUATE, "--checkpoint {run}/best_model.pt --length_beam 0", "length_beam at least 1"),
    ("negative top_p", EVALUATE, "--checkpoint {run}/best_model.pt --top_p -0.1", "top_p at least 0"),
    ("binary test file", EVALUATE, "--checkpoint {run}/best_model.pt --test_file {f}/binary.jsonl", "UTF-8"),
    ("empty test file", EVALUATE, "--checkpoint {run}/best_model.pt --test_file {f}/empty.jsonl", "no usable row"),
    ("folder as examples", EVALUATE, "--checkpoint {run}/best_model.pt --examples {f}", "is a folder"),
    ("blank examples", EVALUATE, "--checkpoint {run}/best_model.pt --examples {f}/blank.txt", "no usable row"),
    (
        "report below a file",
        EVALUATE,
        "--checkpoint {run}/best_model.pt --max_samples 1 --output_dir {f}/good.jsonl/x",
        "good.jsonl/x --output_dir",
    ),
    # ---- talking
    ("talking seed", TALK, "--checkpoint {run}/best_model.pt --seed 4294967296", "seed at most"),
    ("talking with infinity", TALK, "--checkpoint {run}/best_model.pt --temperature inf", "finite"),
    ("unknown sampler to talk with", TALK, "--checkpoint {run}/best_model.pt --sampler gibbs", "sampler is 'gibbs'"),
    ("zero batches to talk with", TALK, "--checkpoint {run}/best_model.pt --batch_size 0", "batch_size at least 1"),
    ("no candidates", TALK, "--checkpoint {run}/best_model.pt --num_samples 0", "num_samples at least 1"),
    ("too many candidates", TALK, "--checkpoint {run}/best_model.pt --num_samples 100000", "num_samples at most 1000"),
    ("temperature nan", TALK, "--checkpoint {run}/best_model.pt --temperature nan", "finite"),
    ("negative top_k", TALK, "--checkpoint {run}/best_model.pt --top_k -1", "top_k at least 0"),
    ("no denoiser calls", TALK, "--checkpoint {run}/best_model.pt --num_steps 0", "num_steps at least 1"),
    ("talking on CUDA", TALK, "--checkpoint {run}/best_model.pt --device cuda:3", "no CUDA"),
    ("mistyped option", TALK, "--checkpoint {run}/best_model.pt --temprature 1", "did you mean '--temperature'"),
    # ---- continuing
    ("two parents", CONTINUE, "--checkpoint {run}/best_model.pt --model_dir {run}", "expected one of them"),
    ("auto and resume", CONTINUE, "--auto --resume", "--auto"),
    ("auto and preset", CONTINUE, "--auto --preset fine_tuning", "--auto"),
    ("folder without a model", CONTINUE, "--model_dir {f} --preset fine_tuning", "no best_model.pt"),
    ("resume without last.pt", CONTINUE, "--resume --model_dir {f}", "no last.pt"),
    ("resume of a best_model.pt", CONTINUE, "--resume --checkpoint {run}/best_model.pt", "no training state"),
    ("resume of a finished run", CONTINUE, "--resume --model_dir {run}", "is complete --auto"),
    ("resume with other settings", CONTINUE, "--resume --model_dir {run} --lr 1", "--lr"),
    (
        "preset of another model",
        CONTINUE,
        "--model_dir {run} --preset quick_demo",
        "model_name_or_path belongs to the checkpoint",
    ),
    ("another architecture", CONTINUE, "--model_dir {run} --copy_head false", "unknown argument '--copy_head'"),
    (
        "another length head",
        CONTINUE,
        "--model_dir {run} --max_target_length 9",
        "unknown argument '--max_target_length'",
    ),
    ("missing data for the child", CONTINUE, "--model_dir {run} --train_file {f}/nowhere.csv", "no such file"),
    ("lambda for the child", CONTINUE, "--model_dir {run} --word_freq_lambda 0.5", "0.318"),
    ("too long for the parent", CONTINUE, "--model_dir {run} --max_length 5000", "max_length is 5000 512 positions"),
    ("shorter than the parent's targets", CONTINUE, "--model_dir {run} --max_length 20", "max_target_length is 44"),
    ("child on CUDA", CONTINUE, "--model_dir {run} --epochs 1 --device cuda", "no CUDA"),
    ("task without data for the child", CONTINUE, "--model_dir {run} --task_name CC", "--data_dir"),
]


@pytest.fixture
def without_accelerator(monkeypatch):
    """This machine has no CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def snapshot(*folders: Path) -> dict:
    """Names, sizes and times of all files."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("script", "argv", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_line(files, trained, data_dir, tmp_path, monkeypatch, without_accelerator, script, argv, words):
    """Exit code 2, exactly one line on stderr that begins with "error: " and holds the words; no traceback, no file,
    within seconds.
    """
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    arguments = [text.format(f=files, run=trained, data=data_dir, out=out) for text in argv.split()]
    if script == TRAIN and "--output_dir" not in arguments:
        arguments += ["--output_dir", str(out)]
    before = snapshot(files, trained, data_dir)
    began = time.process_time()
    result = run(script, *arguments)
    assert time.process_time() - began < 15
    assert result.code == 2, result
    assert result.err.startswith("error: ") and result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    missing = [word for word in words.split() if word not in result.err]
    assert not missing, result.err
    assert "Traceback" not in result.err + result.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert snapshot(files, trained, data_dir) == before and not list(files.glob("ran_*"))


def test_the_malicious_files_are_dangerous(files):
    """Read the careless way, they do run: the refusals above are worth something."""
    for number in (1, 2):
        assert not (files / f"ran_{number}").exists()
    with open(files / "malicious_old.pt", "rb") as file:
        pickle.load(file)
    assert (files / "ran_2").is_dir()
    (files / "ran_2").rmdir()


def test_there_are_many_cases():
    """Names are unique, so that a failure is found."""
    names = [case[0] + case[1] for case in CASES]
    assert len(set(names)) == len(names) >= 250


def test_without_network_within_seconds(data_dir, tmp_path, monkeypatch):
    """A hub whose server accepts and never answers is given up after some seconds (the library alone would try for
    23).
    """
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        result = run(TRAIN, "--task_name", "qqp", "--output_dir", tmp_path / "out")
        assert time.monotonic() - began < 6
    assert result.code == 2 and "cannot reach" in result.err and result.err.count("\n") == 1
