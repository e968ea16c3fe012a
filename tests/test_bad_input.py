"""Wrong input gets one sentence and exit code 2, and nothing is left behind."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command, snapshot
from hosts.gguf_files import tiny, write_gguf
from tiny import write_tiny_checkpoint


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test of this file runs in a folder of its own, and leaves it as its last `prepare` made it."""
    monkeypatch.chdir(tmp_path)
    yield
    before = tmp_path / ".before.json"
    assert before.exists(), "a test of bad input must say what was there: call prepare"
    expected = {name: tuple(state) for name, state in json.loads(before.read_text()).items()}
    before.unlink()
    assert snapshot(tmp_path) == expected


def prepare() -> None:
    """Notes what is there before the command; creating the note does not count."""
    here = Path()
    state = snapshot(here)
    (here / ".before.json").write_text(json.dumps(state))


def config_only(source: Path, **changes: object) -> Path:
    """A folder with only a config.json, changed."""
    folder = Path("changed")
    folder.mkdir()
    content = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))
    return folder


# --- the command line itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["compere"], ["unknown verb 'compere'", "compare"]),
        (["inspct", "x"], ["unknown verb 'inspct'", "did you mean inspect?"]),
        (["zzzz"], ["unknown verb 'zzzz'", "known are compare, convert"]),
        (["inspect"], ["required: source", "ropewalk inspect --help"]),
        (["inspect", "a", "b"], ["ropewalk inspect does not take 'b'"]),
        (["inspect", "a", "--jsno"], ["does not take '--jsno'", "did you mean --json"]),
        (["extend", "a", "--method", "pi", "--length", "4k", "--lenght=8k"], ["does not take '--lenght=8k'", "--length"]),
        (["extend", "a", "--length", "4k"], ["required: --method"]),
        (["inspect", "a", "--lineage", "pure"], ["invalid choice: 'pure'", "trained"]),
        (["compare", "a", "--methods", "pi", "--length", "4k", "--out", "o"], ["required: --text"]),
        (["methods", "yarm"], ["unknown method 'yarm'", "did you mean yarn"]),
        (["--versoin"], ["does not take '--versoin'", "did you mean --version"]),
    ],
)
def test_what_was_typed_is_named_with_what_was_meant(command: Command, typed: list[str], words: list[str]) -> None:
    prepare()
    assert command(*typed).refused(*words)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_a_path_that_does_not_exist(command: Command) -> None:
    prepare()
    assert command("inspect", "nowhere").refused("nowhere does not exist", "hub id such as org/name")


def test_a_hub_id_without_a_network(command: Command) -> None:
    prepare()
    assert command("inspect", "nobody/nothing").refused("nobody/nothing", "no path here", "local cache")


def test_a_path_that_is_too_long_for_the_system(command: Command) -> None:
    prepare()
    assert command("inspect", "a" * 5000).refused("File name too long")


def test_a_folder_that_is_no_checkpoint(command: Command) -> None:
    Path("empty").mkdir()
    prepare()
    assert command("inspect", "empty").refused("empty is not a checkpoint", "no config.json")


def test_a_file_that_is_no_checkpoint(command: Command) -> None:
    Path("notes.txt").write_text("hello")
    prepare()
    assert command("inspect", "notes.txt").refused("not a GGUF file", "give the checkpoint's folder")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[]", "holds a JSON list, expected an object"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("{}", "model_type"),
    ],
    ids=["half", "empty", "list", "deep", "long-number", "no-model"],
)
@pytest.mark.parametrize("verb", ["inspect", "extend"])
def test_a_broken_config(command: Command, verb: str, content: str, words: str) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_text(content)
    prepare()
    rest = ["--method", "pi", "--length", "4k", "--out", "out"] if verb == "extend" else []
    assert command(verb, "broken", *rest).refused(words)


def test_a_config_that_is_not_text(command: Command) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_bytes(b"\xff\xfe{}")
    prepare()
    assert command("inspect", "broken").refused("is not JSON")


def test_a_family_that_rotates_nothing(command: Command, tiny_checkpoint: Path) -> None:
    folder = config_only(tiny_checkpoint, model_type="gpt2")
    prepare()
    assert command("inspect", folder).refused("gpt2")


def test_an_unknown_scaling(command: Command, tiny_checkpoint: Path) -> None:
    folder = config_only(tiny_checkpoint, rope_parameters={"rope_type": "mystery", "rope_theta": 10000.0})
    prepare()
    assert command("inspect", folder).refused("mystery")


def test_pickled_weights_say_how_to_convert(command: Command, tiny_checkpoint: Path, long_text: Path) -> None:
    folder = config_only(tiny_checkpoint)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    prepare()
    for verb in (["extend", folder, "--method", "pi"], ["compare", folder, "--methods", "pi", "--text", long_text]):
        result = command(*verb, "--length", "256", "--out", "out")
        assert result.refused("pickled weights (pytorch_model.bin)", "save_pretrained")


def test_truncated_weights(command: Command) -> None:
    folder = write_tiny_checkpoint(Path("cut"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    prepare()
    assert command("extend", folder, "--method", "pi", "--length", "256", "--out", "out").refused("is truncated")


def test_a_truncated_gguf_file(command: Command) -> None:
    Path("cut.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 200, 40))
    prepare()
    assert command("inspect", "cut.gguf").refused("cut.gguf")
    assert command("convert", "cut.gguf", "--out", "out").refused("cut.gguf")


def test_convert_of_what_is_no_gguf_file(command: Command, tiny_checkpoint: Path) -> None:
    Path("text.gguf").write_text("this is no GGUF file at all")
    prepare()
    assert command("convert", "text.gguf", "--out", "out").refused("text.gguf")
    assert command("convert", "nowhere.gguf", "--out", "out").refused("nowhere.gguf")
    assert command("convert", tiny_checkpoint, "--out", "out").refused(tiny_checkpoint.name)


def test_a_gguf_file_cannot_be_compared_and_convert_is_named(command: Command, long_text: Path) -> None:
    write_gguf(tiny("llama"), Path("model.gguf"), "llama", tokenizer=True)
    prepare()
    result = command("compare", "model.gguf", "--methods", "pi", "--length", "8k", "--text", long_text, "--out", "out")
    assert result.refused("gguf", "ropewalk convert")


def test_a_plan_that_llama_cpp_cannot_say_for_an_architecture(command: Command) -> None:
    write_gguf(tiny("qwen2"), Path("model.gguf"), "qwen2")
    prepare()
    result = command("extend", "model.gguf", "--method", "llama3", "--length", "8k", "--out", "out.gguf")
    assert result.refused("llama.cpp cannot compute llama3 for qwen2", "frequency", "take ntk")


def test_a_folder_without_weights_cannot_be_run(command: Command, tiny_checkpoint: Path, long_text: Path) -> None:
    folder = config_only(tiny_checkpoint)
    prepare()
    result = command("measure", folder, "--length", "256", "--text", long_text, "--out", "out")
    assert result.refused("cannot be run", "safetensors weights")


def test_a_stretch_of_unknown_origin_asks_for_its_lineage(command: Command, tiny_checkpoint: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    folder = config_only(tiny_checkpoint, rope_parameters=yarn)
    prepare()
    result = command("extend", folder, "--method", "pi", "--length", "256", "--out", "out")
    assert result.refused("--lineage trained", "--lineage runtime")


# --- lengths and methods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("lots", ["a length looks like 65536 or 64k", "'lots'"]),
        ("", ["a length looks like 65536 or 64k"]),
        ("1.5k", ["a length looks like", "'1.5k'"]),
        ("-5", ["a length looks like", "'-5'"]),
        ("٦٤", ["a length looks like"]),
        ("0", ["a length lies between 1 and"]),
        ("64", ["length 64 is not above the trained length 64", "longer --length"]),
        ("63", ["length 63 is not above the trained length 64"]),
        ("999999999", ["over 4096 times the trained length 64"]),
        ("99999999999999999999", ["a length lies between 1 and 2147483647"]),
        ("9" * 5000, ["a length lies between 1 and 2147483647"]),
    ],
)
@pytest.mark.parametrize("verb", ["extend", "compare"])
def test_a_length_that_cannot_be_meant(
    command: Command, tiny_checkpoint: Path, long_text: Path, verb: str, length: str, words: list[str]
) -> None:
    prepare()
    rest = ["--method", "pi"] if verb == "extend" else ["--methods", "pi", "--text", long_text]
    assert command(verb, tiny_checkpoint, *rest, "--length", length, "--out", "out").refused(*words)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("yarm", ["unknown method 'yarm'", "did you mean yarn"]),
        ("", ["unknown method ''"]),
        ("yarn:beta_fats=3", ["yarn does not take the option 'beta_fats'", "did you mean beta_fast"]),
        ("pi:ramp=index", ["pi does not take the option 'ramp'"]),
        ("yarn:beta_fast=much", ["yarn:beta_fast is a number, got 'much'"]),
        ("yarn:beta_fast=nan", ["yarn:beta_fast is a number, got 'nan'"]),
        ("yarn:ramp=sideways", ["yarn:ramp is one of index, rotations, got 'sideways'"]),
        ("yarn:beta_fast", ["looks like key=value, got 'beta_fast'"]),
        ("yarn:beta_fast=1,beta_fast=2", ["'beta_fast' of yarn is given twice"]),
        ("dynamic", ["dynamic"]),
        ("dynamic:yarm", ["yarm"]),
        ("longrope", ["longrope"]),
        ("none", ["none changes nothing", "yarn"]),
        ("crop", ["crop changes nothing"]),
    ],
)
def test_a_method_that_cannot_be_meant(command: Command, tiny_checkpoint: Path, method: str, words: list[str]) -> None:
    prepare()
    for way in (["--out", "out"], ["--dry-run"], ["--dry-run", "--json"]):
        assert command("extend", tiny_checkpoint, "--method", method, "--length", "256", *way).refused(*words)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ("pi,yarm", ["unknown method 'yarm'", "yarn"]),
        ("pi,yarn:beta_fast=1,beta_slow=2", ["is ambiguous", "separate methods by ';'"]),
        ("yarn:beta_fast=1,beta_slow=2,pi", ["looks like key=value, got 'pi'"]),
        ("none,crop", ["a method beside none and crop"]),
        (",;,", ["unknown method ','"]),
        ("", ["a method beside none and crop"]),
    ],
)
def test_a_list_of_methods_that_cannot_be_meant(
    command: Command, tiny_checkpoint: Path, long_text: Path, methods: str, words: list[str]
) -> None:
    prepare()
    result = command(
        "compare", tiny_checkpoint, "--methods", methods, "--length", "256", "--text", long_text, "--out", "out"
    )
    assert result.refused(*words)


# --- texts and numbers of a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["compare", "measure"])
def test_a_text_that_is_too_short_says_how_many_tokens_it_has(command: Command, tiny_checkpoint: Path, verb: str) -> None:
    Path("short.txt").write_text("x" * 100)
    prepare()
    rest = ["--methods", "pi"] if verb == "compare" else []
    result = command(verb, tiny_checkpoint, *rest, "--length", "256", "--text", "short.txt", "--out", "out")
    assert result.refused("short.txt has 100 tokens, expected at least 256", "longer text or a smaller --length")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["absent.txt"], ["absent.txt cannot be read", "No such file"]),
        (["."], ["cannot be read", "Is a directory"]),
        (["empty.txt"], ["empty.txt is empty"]),
        (["latin.txt"], ["latin.txt is not UTF-8 text", "convert it"]),
        (["same.txt", "copy.txt"], ["copy.txt is given twice"]),
    ],
)
def test_a_text_that_cannot_be_used(command: Command, tiny_checkpoint: Path, given: list[str], words: list[str]) -> None:
    Path("empty.txt").write_text(" \n")
    Path("latin.txt").write_bytes("café ".encode("latin-1") * 100)
    Path("same.txt").write_text("word " * 100)
    Path("copy.txt").write_text("word " * 100)
    prepare()
    result = command("measure", tiny_checkpoint, "--length", "128", "--text", *given, "--out", "out")
    assert result.refused(*words)


@pytest.mark.parametrize(
    ("verb", "flags", "words"),
    [
        ("compare", ["--seed", "-1"], ["a seed lies between 0 and", "got -1"]),
        ("compare", ["--seed", "1e3"], ["--seed is a whole number, got '1e3'"]),
        ("compare", ["--depths", "0"], ["the number of depths lies between 1 and", "got 0"]),
        ("compare", ["--depths", "400", "--lengths", "4k"], ["4096 tokens leave no room for 400 needles"]),
        ("compare", ["--depths", "1000000000"], ["the number of depths lies between"]),
        ("compare", ["--haystacks", "0"], ["the number of haystacks lies between"]),
        ("compare", ["--crop-windows", "-3"], ["the number of crop windows lies between"]),
        ("compare", ["--lengths", "200"], ["200 tokens leave no room for 5 needles; the smallest length is"]),
        ("compare", ["--lengths", "8k"], ["the map has a length of 8192, beyond the 4096"]),
        ("compare", ["--lengths", "256,"], ["a length looks like 65536 or 64k"]),
        ("compare", ["--retrieval", "yarn"], ["the map names 'yarn'", "none, crop, pi"]),
        ("compare", ["--control-tokens", "few"], ["a length looks like", "'few'"]),
        ("compare", ["--device", "cuda:99"], ["cuda:99", "--device cpu"]),
        ("compare", ["--device", "abacus"], ["device is auto or a torch device", "'abacus'"]),
        ("compare", ["--dtype", "float12"], ["unknown dtype 'float12'", "float32"]),
        ("compare", ["--mode", "guess"], ["invalid choice: 'guess'"]),
        ("measure", ["--protocol", "guess"], ["unknown protocol 'guess'", "sliding-press"]),
        ("measure", ["--protocol", "disjoint", "--window", "1"], ["a window has at least 2 tokens, got 1"]),
        ("measure", ["--protocol", "sliding-press", "--stride", "100"], ["stride must lie between 1 and the window of 64"]),
        ("measure", ["--protocol", "sliding-press", "--stride", "0"], ["a length lies between 1 and"]),
        ("measure", ["--stride", "32"], ["--stride is of --protocol sliding-press; name it, or leave it out"]),
        ("measure", ["--protocol", "yarn-truncate", "--window", "32"], ["--window is of the protocols disjoint and"]),
        ("measure", ["--depths", "3"], ["--depths is of --tasks, and none are named"]),
        ("measure", ["--samples", "3"], ["--samples is of --tasks, and none are named"]),
        ("measure", ["--mode", "grow"], ["--mode is of --tasks, and none are named"]),
        ("measure", ["--scoring", "forced"], ["--scoring is of --tasks, and none are named"]),
        ("measure", ["--template", "chat"], ["--template is of --tasks, and none are named"]),
        ("measure", ["--stop-early"], ["--stop-early is of --tasks, and none are named"]),
        ("measure", ["--concurrency", "2"], ["--concurrency is of a server, and none is asked"]),
        ("measure", ["--timeout", "5"], ["--timeout is of a server, and none is asked"]),
        ("compare", ["--retrieval", "off", "--depths", "3"], ["--depths is of the retrieval map, which --retrieval off"]),
        ("compare", ["--retrieval", "off", "--haystacks", "3"], ["--haystacks is of the retrieval map"]),
        ("compare", ["--retrieval", "off", "--mode", "grow"], ["--mode is of the retrieval map"]),
        ("compare", ["--retrieval", "off", "--lengths", "128"], ["--lengths is of the retrieval map"]),
        ("measure", ["--method", "crop"], ["crop is a baseline; with --tasks it is always measured"]),
        ("measure", ["--method", "yarm"], ["unknown method 'yarm'"]),
        ("measure", ["--seed", "-7"], ["a seed lies between 0 and"]),
    ],
)
def test_a_number_or_name_of_a_run_that_cannot_be_meant(
    command: Command, tiny_checkpoint: Path, long_text: Path, verb: str, flags: list[str], words: list[str]
) -> None:
    prepare()
    rest = ["--methods", "pi"] if verb == "compare" else []
    result = command(verb, tiny_checkpoint, *rest, "--length", "4k", "--text", long_text, "--out", "out", *flags)
    assert result.refused(*words)


def test_a_likelihood_of_one_token(command: Command, tiny_checkpoint: Path, long_text: Path) -> None:
    prepare()
    result = command("measure", tiny_checkpoint, "--length", "1", "--text", long_text, "--out", "out")
    assert result.refused("at least 2 tokens, got 1")


# --- output folders ---------------------------------------------------------------------------------------------------


def test_extend_needs_a_folder_or_a_dry_run(command: Command, tiny_checkpoint: Path) -> None:
    prepare()
    assert command("extend", tiny_checkpoint, "--method", "pi", "--length", "256").refused("--out PATH", "--dry-run")


@pytest.mark.parametrize("verb", ["extend", "compare", "measure"])
def test_an_output_folder_that_exists(command: Command, tiny_checkpoint: Path, long_text: Path, verb: str) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("do not lose")
    Path("file").write_text("a file")
    prepare()
    rest = {
        "extend": ["--method", "pi"],
        "compare": ["--methods", "pi", "--text", long_text],
        "measure": ["--text", long_text],
    }[verb]
    line = [verb, tiny_checkpoint, *rest, "--length", "256"]
    assert command(*line, "--out", "mine").refused("mine", "exists", "--force")
    assert command(*line, "--out", "mine", "--force").refused("mine")
    assert command(*line, "--out", "file").refused("file", "another --out")
    assert command(*line, "--out", "file", "--force").refused("file", "another --out")
    assert command(*line, "--out", "file/below").refused("file", "cannot be made")
    assert command(*line, "--out", "").refused("the output folder has no name")
    assert command(*line, "--out", "o" * 300).refused("o" * 300)


@pytest.mark.parametrize("verb", ["compare", "measure"])
def test_force_and_resume_contradict(command: Command, tiny_checkpoint: Path, long_text: Path, verb: str) -> None:
    prepare()
    rest = ["--methods", "pi"] if verb == "compare" else []
    line = [verb, tiny_checkpoint, *rest, "--length", "256", "--text", long_text, "--out", "out"]
    assert command(*line, "--force", "--resume").refused("--force and --resume contradict each other")


def test_extend_does_not_write_over_its_source(command: Command) -> None:
    write_tiny_checkpoint(Path("source"))
    prepare()
    for out in ("source", "source/below", "."):
        result = command("extend", "source", "--method", "pi", "--length", "256", "--out", out, "--force")
        assert result.refused("lie inside one another")


@pytest.mark.parametrize("card", [None, "{", "[]", "{}", "null", '{"verb": "compare"}'])
def test_a_report_of_what_is_no_run_folder(command: Command, card: str | None) -> None:
    Path("run").mkdir()
    if card is not None:
        Path("run/card.json").write_text(card)
    prepare()
    assert command("report", "run").refused("run is not a run folder", "compare and measure write")
    assert command("report", "nowhere").refused("nowhere is not a run folder")
