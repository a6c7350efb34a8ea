"""Wrong input to any script: one line on stderr that says what came and what to do, exit code 2, no traceback, nothing written."""

import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
from commands import run

TRAIN, CONTINUE, EVALUATE, TALK = "run_conditional_training", "continue_training", "evaluate_trained_model", "interactive_generation"


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


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> Path:
    """A folder full of broken files."""
    folder = tmp_path_factory.mktemp("broken")
    write_broken_checkpoints(folder, trained / "best_model.pt")
    write_broken_data(folder)
    write_broken_settings(folder)
    return folder


# name, script, arguments ({f} broken files, {run} a finished run, {data} good data, {out} the output folder), words of the message
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
    ("missing validation file", TRAIN, "--train_file {f}/good.jsonl --valid_file {f}/nowhere.csv", "nowhere.csv no such file"),
    ("missing test file", TRAIN, "--train_file {f}/good.jsonl --test_file {f}/nowhere.csv", "nowhere.csv no such file"),
    ("unknown ending", TRAIN, "--train_file {f}/data.docx", ".docx .jsonl"),
    ("folder as file", TRAIN, "--train_file {f}/no_valid", "is a folder --data_dir"),
    ("one bad row too many", TRAIN, "--train_file {f}/one_bad.jsonl --max_bad_rows 0", "one_bad.jsonl, line 2 --max_bad_rows"),
    ("many bad rows", TRAIN, "--train_file {f}/many_bad.jsonl", "line 2 20 more malformed rows"),
    ("only empty targets", TRAIN, "--train_file {f}/no_target.jsonl", "no usable row trg is empty"),
    ("rows that are lists", TRAIN, "--train_file {f}/list.jsonl", "expected an object"),
    ("UTF-16 table", TRAIN, "--train_file {f}/utf16.csv", "UTF-8"),
    ("UTF-16 rows", TRAIN, "--train_file {f}/utf16.jsonl", "UTF-8"),
    ("Latin-1 text", TRAIN, "--train_file {f}/latin1.txt", "not UTF-8 0xe9"),
    ("wrong columns", TRAIN, "--train_file {f}/columns.csv", "question, answer src and trg"),
    ("no header", TRAIN, "--train_file {f}/headless.tsv", "src and trg"),
    ("open quote", TRAIN, "--train_file {f}/open_quote.csv", "quote"),
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
    ("sequences longer than positions", TRAIN, "--model_name_or_path {f}/bert_without_tokenizer --max_length 9999", "bert_without_tokenizer"),
    ("shares over one", TRAIN, "--source_dropout 0.7 --continue_share 0.7", "over 1"),
    ("small vocabulary", TRAIN, "--vocab_size 5", "vocab_size at least 100"),
    ("negative seed", TRAIN, "--seed -1", "seed at least 0"),
    ("huge seed", TRAIN, "--seed 99999999999", "seed at most"),
    ("no samples", TRAIN, "--max_samples 0", "max_samples at least 1"),
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
    ("hub model without a network", TRAIN, "--data_dir {data} --model_name_or_path some-bert-of-someone", "cannot reach some-bert-of-someone tiny"),
    ("missing model folder", TRAIN, "--data_dir {data} --model_name_or_path ./nowhere", "config.json"),
    ("broken model folder", TRAIN, "--data_dir {data} --model_name_or_path {f}/broken_bert", "broken_bert"),
    ("not a BERT", TRAIN, "--data_dir {data} --model_name_or_path {f}/gpt", "gpt2 expected a BERT"),
    ("typeless model", TRAIN, "--data_dir {data} --model_name_or_path {f}/typeless", "typeless"),
    ("BERT without a tokenizer", TRAIN, "--data_dir {data} --model_name_or_path {f}/bert_without_tokenizer", "bert_without_tokenizer"),
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
    ("output folder with an impossible name", TRAIN, "--data_dir {data} --output_dir {out}/" + "x" * 300, "--output_dir"),
    # ---- checkpoints, through three scripts
    ("missing checkpoint", EVALUATE, "--checkpoint {f}/nowhere.pt", "nowhere.pt no such checkpoint"),
    ("folder as checkpoint", EVALUATE, "--checkpoint {run}", "is a folder best_model.pt"),
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
    ("no run yet to resume", CONTINUE, "--resume", "no trained model last.pt"),
    # ---- evaluation
    ("unknown split", EVALUATE, "--checkpoint {run}/best_model.pt --split train", "split is 'train' valid or test"),
    ("no pairs", EVALUATE, "--checkpoint {run}/best_model.pt --max_samples 0", "at least 1"),
    ("MBR of none", EVALUATE, "--checkpoint {run}/best_model.pt --mbr 0", "at least 1"),
    ("MBR in words", EVALUATE, "--checkpoint {run}/best_model.pt --mbr ten", "'ten' whole number"),
    ("missing test file", EVALUATE, "--checkpoint {run}/best_model.pt --test_file {f}/nowhere.jsonl", "no such file"),
    ("missing examples", EVALUATE, "--checkpoint {run}/best_model.pt --examples {f}/nowhere.txt", "no such file"),
    ("missing data", EVALUATE, "--checkpoint {run}/best_model.pt --data_dir {f}/nowhere", "no such folder"),
    ("unknown sampler", EVALUATE, "--checkpoint {run}/best_model.pt --sampler best", "ancestral, first_hitting, confidence"),
    ("negative temperature", EVALUATE, "--checkpoint {run}/best_model.pt --temperature -1", "temperature at least 0"),
    ("top_p over one", EVALUATE, "--checkpoint {run}/best_model.pt --top_p 1.5", "top_p at most 1"),
    ("evaluation on CUDA", EVALUATE, "--checkpoint {run}/best_model.pt --device cuda", "no CUDA"),
    ("report into a file", EVALUATE, "--checkpoint {run}/best_model.pt --output_dir {f}/good.jsonl --max_samples 1", "good.jsonl --output_dir"),
    # ---- talking
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
    ("preset of another model", CONTINUE, "--model_dir {run} --preset quick_demo", "model_name_or_path belongs to the checkpoint"),
    ("another architecture", CONTINUE, "--model_dir {run} --copy_head false", "unknown argument '--copy_head'"),
    ("another length head", CONTINUE, "--model_dir {run} --max_target_length 9", "unknown argument '--max_target_length'"),
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
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("script", "argv", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_line(files, trained, data_dir, tmp_path, monkeypatch, without_accelerator, script, argv, words):
    """Exit code 2, exactly one line on stderr that begins with "error: " and holds the words; no traceback, no file, within seconds."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    arguments = [text.format(f=files, run=trained, data=data_dir, out=out) for text in argv.split()]
    if script == TRAIN and "--output_dir" not in arguments:
        arguments += ["--output_dir", str(out)]
    before = snapshot(files, trained, data_dir)
    began = time.monotonic()
    result = run(script, *arguments)
    assert time.monotonic() - began < 15
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
    assert len(set(names)) == len(names) >= 60


def test_without_network_within_seconds(data_dir, tmp_path, monkeypatch):
    """A hub whose server accepts and never answers is given up after some seconds (the library alone would try for 23)."""
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        result = run(TRAIN, "--task_name", "qqp", "--output_dir", tmp_path / "out")
        assert time.monotonic() - began < 6
    assert result.code == 2 and "cannot reach" in result.err and result.err.count("\n") == 1
