"""What a chapter declares, what it allows, and that nothing a reader does to the cell switches the check off."""

import json
from math import pi

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hqnn_utils.notebooks import parameters
from hqnn_utils.notebooks.parameters import ChapterError, Parameter, ParameterError, check_parameters, declarations, validated

CELL = """
# How long to train.
epochs: int = 3  # passes over the images, in [1, 1000]
rate: float = 1e-3  # step size, in (0, 1]
noise: float = 0.0  # spread, in [0, 1)
dataset: str = "mnist"  # which images, in {mnist, digits}
classes: list[int] = [0, 1]  # which digits, 2 distinct, in [0, 9]
heads: list[str] = ["sine"]  # which twins, in {quantum, sine, sigmoid}
spreads: list[float] = [0.1]  # initial weights, in (0, 2)
share: float = 0.5  # of the images, in {0.5, 1.0}
verbose: bool = False  # print more, in {False, True}
title: str = "x"  # anything, in {*}
"""
DECLARED = declarations(CELL)


# -- what is declared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("epochs", Parameter("epochs", "int", 3, "passes over the images, in [1, 1000]")),
        ("rate", Parameter("rate", "float", 0.001, "step size, in (0, 1]")),
        ("classes", Parameter("classes", "list[int]", [0, 1], "which digits, 2 distinct, in [0, 9]")),
        ("dataset", Parameter("dataset", "str", "mnist", "which images, in {mnist, digits}")),
    ],
)
def test_a_line_declares_name_type_default_and_meaning(name, declared):
    assert DECLARED[name] == declared


LINE = "expected `name: type = value  # meaning, in [low, high]`"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("depth: int = 2", "parameter depth has no comment, which would end in no allowed values: " + LINE),
        ("depth: int = 2  # layers", "parameter depth has the comment 'layers', which ends in no allowed values: " + LINE),
        ("depth: int = 2  # layers, in [1, many]", "in no allowed values"),
        ("depth: int = 2  # layers, in [1, 8], say", "in no allowed values"),
        ("depth = 2  # layers, in [1, 8]", "parameter depth has no type behind its name in the parameters cell: " + LINE),
        ("depth = 2", "parameter depth has no type"),
        ("a = b = 2", "parameter a has no type"),
        ("depth: integer = 2  # layers, in [1, 8]", "parameter depth has the type integer: expected int, float, str, bool"),
        ("depth: list = [2]  # layers, in [1, 8]", "parameter depth has the type list: expected"),
        ("depth: int  # layers, in [1, 8]", "the value of parameter depth cannot be read from nothing: there is none"),
        ("depth: int =  # layers", "the parameters cell is not Python that can be read (invalid syntax"),
        ("text = 'x", "the parameters cell is not Python that can be read"),
        (
            "sizes: list[int] = [10**k for k in range(3)]  # in [1, 99]",
            "sizes cannot be read from [10 ** k for k in range(3)]",
        ),
        ("depth: int = len('ab')  # layers, in [1, 8]", "cannot be read from len('ab'): that would have to be run"),
        ("depth: int = 1 / 0  # layers, in [1, 8]", "cannot be read from 1 / 0: division by zero"),
        ("depth: int = 9**9**9  # layers, in [1, 8]", "cannot be read from 9 ** 9 ** 9: math range error"),
        ("word: str = 'a' * 9  # any, in {*}", "arithmetic is for numbers"),
    ],
)
def test_a_line_that_does_not_say_all_is_refused_with_what_it_lacks(line, sentence):
    with pytest.raises(ParameterError) as refusal:
        declarations(f"theta: float = 0.8  # the angle, in [-10, 10]\n{line}")
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("np.pi / 4", pi / 4),
        ("math.pi", pi),
        ("-torch.pi", -pi),
        ("2 * pi", 2 * pi),
        ("10**2", 100),
        ("-1", -1),
        ("+1.5", 1.5),
        ("2**-2", 0.25),
        ("7 // 2 + 7 % 2 - 1", 3),
        ("1e-3", 0.001),
    ],
)
def test_a_default_may_be_simple_arithmetic(written, value):
    assert declarations(f"x: float = {written}  # a number, in [-1000, 1000]")["x"].default == value
    assert declarations(f"x: list[float] = [{written}]  # numbers, in [-1000, 1000]")["x"].default == [value]


@pytest.mark.parametrize("magic", ["%%time", "%%capture out", "%matplotlib inline", "!ls"])
def test_a_line_that_is_ipythons_own_declares_nothing(magic):
    assert list(declarations(f"{magic}\ndepth: int = 2  # layers, in [1, 8]")) == ["depth"]


def test_a_default_over_several_lines_takes_the_comment_of_its_last():
    source = "angles: list[float] = [\n    0.1,  # not this\n    0.2,\n]  # radians, in [0, 1]"
    assert declarations(source)["angles"] == Parameter("angles", "list[float]", [0.1, 0.2], "radians, in [0, 1]")


def test_a_hash_in_a_string_is_no_comment():
    assert declarations('name: str = "a # b"  # in {*}')["name"] == Parameter("name", "str", "a # b", "in {*}")


def test_a_chapter_declares_in_the_cell_that_is_tagged(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "other: int = 1", parameters="depth: int = 2  # in [1, 8]")
    assert list(parameters.of(path)) == ["depth"]


def test_a_chapter_without_such_a_cell_declares_nothing(write_notebook, tmp_path):
    assert parameters.of(write_notebook(tmp_path / "a.ipynb", "depth: int = 2")) == {}


BROKEN = {
    "text": "not a notebook",
    "a list": "[]",
    "no cells": "{}",
    "cells that are none": '{"cells": [1], "metadata": {}}',
    "a cell without source": '{"cells": [{"metadata": {}}], "metadata": {}}',
    "a source of numbers": '{"cells": [{"metadata": {}, "source": [1]}], "metadata": {}}',
    "a cell's metadata": '{"cells": [{"metadata": 1, "source": ""}], "metadata": {}}',
    "tags": '{"cells": [{"metadata": {"tags": 1}, "source": ""}], "metadata": {}}',
    "metadata": '{"cells": [], "metadata": 1}',
    "depth": "[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_notebook_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.ipynb").write_text(content)
    with pytest.raises(ChapterError, match=r"broken\.ipynb is no notebook"):
        parameters.of(tmp_path / "broken.ipynb")


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(ChapterError, match=r"cannot read .*: Is a directory"):
        parameters.of(tmp_path)
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe")
    with pytest.raises(ChapterError, match=r"bytes\.ipynb is no notebook"):
        parameters.of(tmp_path / "bytes.ipynb")


def test_the_defaults_of_an_executed_notebook_are_the_values_that_it_was_run_with(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "# Parameters\nepochs = 7\nPAPERMILL_INPUT_PATH = 'x'\n", parameters=CELL)
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["metadata"]["tags"] = ["injected-parameters"]
    path.write_text(json.dumps(notebook))
    expected = {name: p.default for name, p in DECLARED.items()} | {"epochs": 7}
    assert {name: p.default for name, p in parameters.of(path).items()} == expected


# -- what a value may be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "1", 1),
        ("epochs", "1000", 1000),
        ("rate", "1", 1),
        ("rate", "1e-9", 1e-9),
        ("noise", "0", 0),
        ("dataset", "digits", "digits"),
        ("share", "0.5", 0.5),
        ("verbose", "true", True),
        ("verbose", "False", False),
        ("verbose", "TRUE", True),
        ("title", "3", "3"),
        ("title", "", ""),
        ("classes", "3,5", [3, 5]),
        ("classes", "3, 5", [3, 5]),
        ("classes", "[3, 5]", [3, 5]),
        ("spreads", "1", [1]),
        ("spreads", "0.5,1", [0.5, 1]),
        ("heads", "['sine', 'quantum']", ["sine", "quantum"]),
    ],
)
def test_a_text_is_read_as_the_declared_type(name, text, value):
    found = DECLARED[name].parse(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("epochs", "3.5", "expected int"),
        ("epochs", "1e2", "expected int"),
        ("epochs", "True", "expected int"),
        ("epochs", "many", "expected int"),
        ("epochs", "", "expected int"),
        ("epochs", "[3]", "expected int"),
        ("rate", "True", "expected float"),
        ("rate", "'0.1'", "expected float"),
        ("rate", "nan", "expected float"),
        ("verbose", "1", "expected bool"),
        ("verbose", "yes", "expected bool"),
        ("classes", "0.5,1", r"expected list\[int\]"),
        ("classes", "[[0, 1]]", r"expected list\[int\]"),
        ("classes", "True,False", r"expected list\[int\]"),
        ("epochs", "{[]: 1}", "expected int"),
        ("spreads", "[]", "expected at least one value"),
        ("heads", "[]", "expected at least one value"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name, text, expected):
    with pytest.raises(ParameterError, match=f"parameter {name} = .* refused: {expected}"):
        DECLARED[name].parse(text)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("epochs", "0", r"in \[1, 1000\]"),
        ("epochs", "1001", r"in \[1, 1000\]"),
        ("rate", "0", r"in \(0, 1\]"),
        ("rate", "1.001", r"in \(0, 1\]"),
        ("noise", "-0.001", r"in \[0, 1\)"),
        ("noise", "1", r"in \[0, 1\)"),
        ("noise", "1e999", r"in \[0, 1\)"),
        ("dataset", "cifar", "in {mnist, digits}"),
        ("dataset", "mnist, digits", "in {mnist, digits}"),
        ("classes", "0,10", r"in \[0, 9\]"),
        ("heads", "['sine', 'cosine']", "in {quantum, sine, sigmoid}"),
        ("spreads", "1,2", r"in \(0, 2\)"),
        ("share", "0.7", "in {0.5, 1.0}"),
    ],
)
def test_a_value_out_of_range_is_refused(name, text, allowed):
    with pytest.raises(ParameterError, match=f"parameter {name} = .* refused: allowed is {allowed}"):
        DECLARED[name].parse(text)


@pytest.mark.parametrize(("text", "allowed"), [("", True), ("a:b/c", True), ("a:/c", True), ("a:b/d", False), ("x", False)])
def test_a_star_in_a_set_stands_for_anything(text, allowed):
    pattern = Parameter("name", "str", "", "of a thing, in {, a:*/c}")
    if allowed:
        assert pattern.parse(text) == text
    else:
        with pytest.raises(ParameterError, match=r"allowed is in \{, a:\*/c\}"):
            pattern.parse(text)


@pytest.mark.parametrize("text", ["3,3", "3", "1,2,3", "3,3,5", "[]"])
def test_a_list_must_have_as_many_different_values_as_declared(text):
    with pytest.raises(ParameterError, match=r"parameter classes = .* expected 2 different values"):
        DECLARED["classes"].parse(text)


@pytest.mark.parametrize(("text", "allowed"), [("1,2", True), ("1,2,2", True), ("1,2,3", True), ("1", False), ("1,1", False)])
def test_a_list_may_have_to_have_at_least_so_many_different_values(text, allowed):
    depths = Parameter("depths", "list[int]", [1, 2], "compared, at least 2 distinct, each in [1, 20]")
    if allowed:
        assert str(depths.parse(text)) == f"[{text.replace(',', ', ')}]"
    else:
        with pytest.raises(ParameterError, match="expected at least 2 different values"):
            depths.parse(text)


def test_the_values_of_a_list_may_have_to_differ():
    sizes = Parameter("sizes", "list[int]", [1, 2], "of training sets, distinct, each in [1, 20]")
    assert sizes.parse("1,2,3") == [1, 2, 3] and sizes.parse("7") == [7]
    with pytest.raises(ParameterError, match=r"sizes = .* refused: expected different values"):
        sizes.parse("1,2,1")


@given(st.sampled_from(list(DECLARED)), st.one_of(st.text(max_size=12), st.text("[](){}0123456789.,:-'eja", max_size=12)))
@example("epochs", "{{}}")
@example("epochs", "\0")
def test_any_text_is_either_read_or_refused_with_the_parameters_name(name, text):
    try:
        value = DECLARED[name].parse(text)
    except ParameterError as refusal:
        assert f"parameter {name} = " in str(refusal)
    else:
        assert DECLARED[name].check(value) == value


@given(st.integers(-2000, 2000))
def test_an_interval_allows_exactly_what_lies_in_it(value):
    def allows(text):
        try:
            return bool(Parameter("x", "int", 0, f"in {text}").check(value) == value)
        except ParameterError:
            return False

    assert [allows(text) for text in ("[-5, 9]", "(-5, 9]", "[-5, 9)", "(-5, 9)")] == [
        -5 <= value <= 9,
        -5 < value <= 9,
        -5 <= value < 9,
        -5 < value < 9,
    ]


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("rate", "1e-3", "write 1.0e-3"),
        ("rate", "1E3", "write 1.0e+3"),
        ("rate", "2.5e3", "write 2.5e+3"),
        ("rate", "0.1", "write 0.1"),
        ("epochs", "1e2", "write 100"),
        ("spreads", [0.1, "1e-3"], "write 1.0e-3"),
    ],
)
def test_a_number_that_yaml_reads_as_text_is_refused_with_how_to_write_it(name, value, advice):
    with pytest.raises(ParameterError) as refusal:
        DECLARED[name].check(value)
    assert f"; this is a text, for YAML too: {advice} (" in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), [("rate", "fast"), ("rate", "nan"), ("epochs", "1.5"), ("rate", None)])
def test_what_is_no_such_number_is_refused_without_advice(name, value):
    with pytest.raises(ParameterError, match=r"refused: expected (float|int) \("):
        DECLARED[name].check(value)


@pytest.mark.parametrize("value", [10**5000, "9" * 5000, list(range(5000))], ids=["number", "text", "list"])
def test_a_value_without_end_is_refused_in_a_short_sentence(value):
    with pytest.raises(ParameterError) as refusal:
        DECLARED["epochs"].check(value)
    assert len(str(refusal.value)) < 400


def test_bytes_of_a_command_line_that_are_no_text_are_refused():
    with pytest.raises(ParameterError, match="expected str"):
        DECLARED["title"].parse("\udcff")


CODE = [
    "__import__('os').system('touch {}')",
    "open('{}', 'w')",
    "1; open('{}', 'w')",
    "1\nopen('{}', 'w')",
    "1\r\nopen('{}', 'w')",
    "1\u2028open('{}', 'w')",
    "'\nopen('{}', 'w')\n'",
    '"\nopen("{}", "w")\n"',
    "''' + open('{}', 'w') + '''",
    "\\'; open('{}', 'w') #",
    "\\\\'; open('{}', 'w') #",
    "'+open('{}', 'w').name+'",
    "[open('{}', 'w')]",
    "[x for x in [open('{}', 'w')]]",
    "(lambda: open('{}', 'w'))()",
    "{{open('{}', 'w')}}",
    "{{0: open('{}', 'w')}}",
    'f\'{{open("{}", "w")}}\'',
    "{{__import__}}",
    "!touch {}",
    "%system touch {}",
    "%%bash\ntouch {}",
    "$(touch {})",
    "`touch {}`",
    "exec(\"open('{}', 'w')\")",
]
"""What would leave a file if it were run."""


@pytest.mark.parametrize("name", [name for name in DECLARED if name != "title"])
def test_no_text_becomes_code(name, tmp_path):
    for code in CODE:
        with pytest.raises(ParameterError, match=f"parameter {name} = "):
            DECLARED[name].parse(code.format(tmp_path / "trace"))
    assert list(tmp_path.iterdir()) == []


def test_a_default_out_of_range_is_refused_unless_another_value_is_given():
    declared = declarations("epochs: int = 0  # in [1, 9]")
    with pytest.raises(ParameterError, match="epochs = 0 refused"):
        validated(declared, {})
    assert validated(declared, {"epochs": "3"}) == {"epochs": 3}


def test_all_given_values_are_checked_and_no_others_made_up():
    assert validated(DECLARED, {"epochs": "7", "classes": "3,5"}) == {"epochs": 7, "classes": [3, 5]}


def test_words_of_a_list_need_no_quotes():
    heads = Parameter("heads", "list[str]", ["sine"], "which twins, in {quantum, sine, sigmoid}")
    assert heads.parse("quantum, sine") == heads.parse("['quantum', 'sine']") == ["quantum", "sine"]
    with pytest.raises(ParameterError, match=r"allowed is in \{quantum, sine, sigmoid\}"):
        heads.parse("quantum,swish")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("clases", "did you mean classes?"),
        ("qqq", "this chapter declares " + ", ".join(DECLARED)),
    ],
)
def test_an_unknown_parameter_is_refused_with_its_near_misses(name, hint):
    with pytest.raises(ParameterError) as refusal:
        validated(DECLARED, {"epochs": "3", name: "3"})
    assert str(refusal.value) == f"unknown parameter {name!r}: {hint}"


def test_a_chapter_that_declares_nothing_says_so():
    with pytest.raises(ParameterError, match="this chapter declares none"):
        validated({}, {"epochs": "3"})


# -- what a running notebook holds -------------------------------------------------------------------------------------


def running(*history: str) -> dict:
    """The `globals()` of a notebook that ran these cells."""
    namespace: dict = {}
    for source in history:
        exec(source, namespace)
    return namespace | {"In": ["", *history]}


def test_a_notebooks_own_defaults_pass():
    assert check_parameters(running("import math", CELL)) is None


@pytest.mark.parametrize(
    ("injected", "sentence"),
    [
        ("epochs = 0", "parameter epochs = 0 refused"),
        ("epochs = 2.5", "expected int"),
        ("epochs = True", "expected int"),
        ("rate = float('nan')", r"parameter rate = nan refused: allowed is in \(0, 1\]"),
        ("dataset = 'cifar'", "allowed is in {mnist, digits}"),
        ("classes = [3, 3]", "expected 2 different values"),
        ("spreads = 0.5", r"expected list\[float\]"),
        ("epochs = [3]", "expected int"),
        ("epoch = 3", "unknown parameter 'epoch': did you mean epochs?"),
        ("qqq = 3", "unknown parameter 'qqq': this chapter declares epochs"),
    ],
)
def test_what_papermill_injects_is_held_against_the_declarations(injected, sentence):
    with pytest.raises(ParameterError, match=sentence):
        check_parameters(running(CELL, f"# Parameters\n{injected}\n"))


def test_what_papermill_injects_may_be_good():
    assert check_parameters(running(CELL, "# Parameters\nepochs = 5\nrate = 1\nclasses = [3, 5]\n")) is None


def test_names_that_other_cells_make_are_none_of_its_business():
    assert check_parameters(running(CELL, "helper = 3")) is None


def test_a_parameter_that_was_changed_by_hand_is_checked_too():
    with pytest.raises(ParameterError, match="epochs = -1"):
        check_parameters(running(CELL) | {"epochs": -1})


def test_a_rerun_parameters_cell_counts_anew():
    assert check_parameters(running("epochs: int = 2  # in [1, 3]", "epochs: int = 7  # in [1, 9]")) is None


def test_a_notebook_that_declares_nothing_is_refused():
    with pytest.raises(ParameterError, match="no cell that was run and kept in the history declares parameters in lines"):
        check_parameters(running("x = 1"))


@pytest.mark.parametrize("source", ["%matplotlib inline", "x: int = len('a')", "def f(:", "text = '''", "x: int"])
def test_cells_that_declare_no_literals_are_passed_over(source):
    assert check_parameters({"In": ["", CELL, source]} | running(CELL) | {"In": ["", CELL, source]}) is None


def test_the_paths_that_papermill_injects_are_no_parameters():
    assert check_parameters(running(CELL, "# Parameters\nepochs = 5\nPAPERMILL_OUTPUT_PATH = 'out.ipynb'\n")) is None


INTACT = "theta: float = 0.8  # the angle, in [-10, 10]\nshots: int = 100  # measurements, in [1, 1000]\n"


@pytest.mark.parametrize(
    "later",
    [
        "other: int = 3",
        "other: int = 3  # how many, in [0, 5]\nplain = 2",
        "theta: float = 99.0",
        "theta = 99.0",
        "theta = 99.0  # the angle, in [-10, 10]",
        "theta: float = 99.0  # the angle",
        "# theta: float = 99.0  # the angle, in [-100, 100]\ntheta = 99.0",
        "# Parameters\ntheta = 99.0\n",
        "theta += 98.2",
        "for theta in [99.0]: pass",
    ],
)
def test_no_later_cell_switches_the_check_off(later):
    with pytest.raises(ParameterError, match=r"parameter theta = 99\.0 refused: allowed is in \[-10, 10\]"):
        check_parameters(running(INTACT, later) | {"theta": 99.0})


@pytest.mark.parametrize(
    ("edited", "sentence"),
    [
        (INTACT.replace("  # the angle, in [-10, 10]", ""), "parameter theta has no comment"),
        (INTACT.replace(": float", ""), "parameter theta has no type"),
        (INTACT.replace(": float", "").replace("  # the angle, in [-10, 10]", ""), "parameter theta has no type"),
        ("theta = 99.0\nshots = 100", "no cell that was run and kept in the history declares parameters"),
    ],
)
def test_an_edit_that_takes_the_contract_away_is_refused_with_what_is_missing(edited, sentence):
    with pytest.raises(ParameterError, match=sentence):
        check_parameters(running("import numpy as np", edited))


def test_an_edit_that_was_mended_is_forgotten():
    broken = INTACT.replace("  # the angle, in [-10, 10]", "")
    assert check_parameters(running(broken, INTACT)) is None
    assert check_parameters(running(INTACT, "# Parameters\nthet = 1.0\n", "# Parameters\ntheta = 1.0\n")) is None


def test_an_edited_contract_counts():
    wider = INTACT.replace("[-10, 10]", "[-100, 100]").replace("0.8", "np.pi * 10")
    assert check_parameters(running("import numpy as np", INTACT, wider)) is None


def test_a_cell_that_is_timed_is_read_as_it_was_typed():
    history = {"In": ["", f"get_ipython().run_cell_magic('time', '', {INTACT!r})"], "_i1": f"%%time\n{INTACT}"}
    assert check_parameters(history | {"theta": 0.8, "shots": 100}) is None
    with pytest.raises(ParameterError, match="theta = 99"):
        check_parameters(history | {"theta": 99.0, "shots": 100})


def test_a_parameter_without_a_value_is_missed():
    with pytest.raises(ParameterError, match="parameter shots has no value: run the parameters cell first"):
        check_parameters({"In": ["", INTACT], "theta": 0.8})


SCRIPTS = {
    "nbconvert": "#!/usr/bin/env python\n\n# In[1]:\n\n\nx = 1\n\n\n# In[2]:\n\n\n{}\n\n# In[3]:\n\n\ny = 1\n",
    "nbconvert without numbers": "x = 1\n\n\n{}\n\n\ny = 1\n",
    "jupytext": "x = 1\n\n# %% tags=['parameters']\n{}\n# %%\ny = 1\n",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_chapter_that_was_made_a_script_is_read_from_its_file(script, tmp_path):
    path = tmp_path / "chapter.py"
    path.write_text(script.format(INTACT))
    assert check_parameters({"__file__": str(path), "theta": 0.8, "shots": 100}) is None
    with pytest.raises(ParameterError, match="theta = 99"):
        check_parameters({"__file__": str(path), "theta": 99.0, "shots": 100})


def test_a_chapter_that_ipython_runs_as_a_file_is_read_from_it(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "y = 1", parameters=INTACT)
    assert check_parameters({"In": [""], "__file__": str(path), "theta": 0.8, "shots": 100}) is None
