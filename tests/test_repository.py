"""What is tracked, and how the package hangs together: its modules' imports point one way."""

import ast
import re
import subprocess
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hqnn_utils"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
WINGS = [folder.name for folder in sorted(PACKAGE.iterdir()) if (folder / "__init__.py").is_file()]
each_module = pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that git tracks and that is still there."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to know which files are tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_is_large(tracked):
    assert not [path for path in tracked if path.stat().st_size > 1_500_000]


def test_no_data_set_and_no_weights_are_tracked(tracked):
    kinds = re.compile(r"\.(gz|tgz|zip|tar|npz|npy|pkl|pt|pth|ckpt|onnx|safetensors|h5|parquet)$|idx\d-ubyte|(^|/)data/cache/")
    assert not [path for path in tracked if kinds.search(path.relative_to(ROOT).as_posix())]


@pytest.fixture(scope="module")
def texts(tracked) -> dict[str, str]:
    """The content of every tracked file that is text."""
    read = {}
    for path in tracked:
        with suppress(UnicodeDecodeError):  # a picture
            read[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    return read


def private_paths(text: str) -> list[str]:
    """Absolute paths that exist on one person's machine only."""
    homes = r"/(?:home|Users)/\w+|/root(?=/)"
    here = re.escape(str(ROOT)) if len(ROOT.parts) > 2 else r"(?!)"  # a checkout in `/book` says nothing
    return re.findall(rf"(?<![\w.~])(?:{homes}|{here}(?![\w.-]))", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in " + "/home" + "/ada/book", 1),
        ("'" + "/Users" + "/ada'", 1),
        ("at " + "/root" + "/.cache", 1),
        (f"File {ROOT / 'book'}", 1),
        ("https://example.org" + "/home" + "/page", 0),
        ("the /root of the matter, ~/sets, /dev/null", 0),
    ],
)
def test_a_private_path_is_recognised(text, found):
    assert len(private_paths(text)) == found


def test_no_tracked_text_names_a_path_of_somebodys_machine(texts):
    assert not {name: found for name, text in texts.items() if (found := private_paths(text))}


def imports(path: Path) -> set[str]:
    """The full names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = f"hqnn_utils.{node.module or ''}".rstrip(".") if node.level else node.module
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def reached(path: Path) -> set[str]:
    """The names of all modules of the package that a module leads to."""
    found, waiting = set(), [path]
    while waiting:
        new = {name for name in imports(waiting.pop()) if name in MODULES} - found
        found |= new
        waiting += [MODULES[name] for name in new]
    return found


def wing(name: str) -> str:
    """The wing of a module, or the module itself where it stands beside the wings."""
    return name.split(".")[1]


def arrows() -> set[tuple[str, str]]:
    """Which wing, or module beside them, imports which."""
    found = {(wing(name), wing(other)) for name, path in MODULES.items() for other in imports(path) if other in MODULES}
    return {(one, other) for one, other in found if one != other}


def accounts(text: str) -> list[str]:
    """What tells whose AWS account was used: access keys, account numbers in names of resources, and default buckets."""
    key = r"(?<![\w+/])(?:AKIA|ASIA)[A-Z0-9]{16}(?![\w+/=])"  # and not within a picture
    number = r"(?!000000000000)\d{12}"
    return re.findall(rf"{key}|arn:aws:[\w-]*:[\w-]*:{number}|amazon-braket-[\w-]*{number}", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("AKIA" + "IOSFODNN7EXAMPLE", 1),
        ("arn:aws:braket:us-east-1:" + "123456789012" + ":quantum-task/1", 1),
        ("arn:aws:iam::" + "123456789012" + ":user/ada", 1),
        ("amazon-braket-us-east-1-" + "123456789012", 1),
        ("arn:aws:braket:us-east-1:000000000000:quantum-task/1", 0),
        ("arn:aws:braket:::device/quantum-simulator/amazon/sv1, 123456789012 photons", 0),
    ],
)
def test_a_trace_of_an_account_is_recognised(text, found):
    assert len(accounts(text)) == found


def test_no_tracked_text_tells_of_an_account(texts):
    assert not {name: found for name, text in texts.items() if (found := accounts(text))}


@each_module
def test_no_module_leads_to_the_command_line(path):
    assert path.stem == "cli" or "hqnn_utils.cli" not in reached(path)


@each_module
def test_no_module_imports_a_chapter_or_a_test(path):
    assert not {"book", "tests"} & {name.partition(".")[0] for name in imports(path)}


@each_module
def test_no_module_leads_to_itself(path):
    assert ".".join(path.relative_to(ROOT).with_suffix("").parts) not in reached(path)


def test_the_picture_of_the_wings_has_the_arrows_of_the_imports():
    """But those to files, errors, checks and kept, on which everything stands."""
    picture = re.search(r"```mermaid\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)[1]
    drawn = {(one, other) for other, one in re.findall(r"^    (\w+)(?:\[.*?\])? --> (\w+)", picture, re.M)}
    assert drawn == {(one, other) for one, other in arrows() if other not in ("files", "errors", "checks", "kept", "named")}


@pytest.mark.parametrize("name", WINGS)
def test_wings_stand_apart_but_for_those_they_are_built_on(name):
    built_on = {"learning": {"quantum", "datasets"}, "hardware": {"quantum", "learning"}, "sweeps": {"notebooks"}}
    assert {other for one, other in arrows() if one == name} & set(WINGS) <= built_on.get(name, set())


def test_nothing_but_the_wing_of_hardware_needs_its_extra():
    extra = {"boto3", "botocore", "braket", "qiskit", "pennylane_qiskit"}
    needing = {wing(name) for name, path in MODULES.items() if extra & {full.partition(".")[0] for full in imports(path)}}
    assert needing == {"hardware"}


def test_imports_are_followed_through_the_modules_between():
    assert "hqnn_utils.datasets.catalogue" in reached(PACKAGE / "datasets" / "digits.py")
    assert "hqnn_utils.quantum.circuits" in reached(PACKAGE / "learning" / "models.py")


@each_module
def test_no_module_holds_a_function_of_its_own_name(path):
    defined = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")]
    assert path.stem not in defined


def test_no_two_classes_have_one_name():
    classes = [
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(classes) == sorted(set(classes))


@each_module
def test_everything_public_says_what_it_is_for(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    definitions = (ast.FunctionDef, ast.ClassDef)
    public = [node for node in module.body if isinstance(node, definitions) and not node.name.startswith("_")]
    # What torch calls is described by its class, where PyTorch's own modules say it too.
    inherited = {"forward", "setup_context", "backward", "vmap"}
    for owner in [node for node in public if isinstance(node, ast.ClassDef)]:
        methods = [node for node in owner.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
        public += [node for node in methods if node.name not in inherited]
    assert ast.get_docstring(module)
    assert not [node.name for node in public if not ast.get_docstring(node)]


@each_module
def test_an_example_in_a_docstring_is_set_as_code(path):
    """Sphinx runs indented lines together, and reads them as words, unless two colons end what stands before them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    paragraphs = [re.split(r"\n\s*\n", ast.get_docstring(node) or "") for node in documented]
    before = [one for said in paragraphs for one, other in pairwise(said) if other.startswith("    ") > one.startswith("    ")]
    assert [one for one in before if not one.endswith("::")] == []
