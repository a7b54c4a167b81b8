"""A release: what is published, in `dist/`, once everything that tells a version tells the same one.

`make version NEW=1.2.3` writes a version and today's date wherever one is told; `make release` makes what is published.
`python tools/release.py --check` only compares, and `--check FOLDER` does so elsewhere.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import yaml

ROOT = Path(__file__).parents[1]
# What Zenodo asks of a deposit of software, and what else of it we use.
REQUIRED = {"title", "upload_type", "description", "creators", "access_right", "license"}
KNOWN = REQUIRED | {"version", "keywords", "notes", "related_identifiers", "references", "language"}
UNRELEASED = "## Unreleased"
BY_HAND = """
All of version {0} is in dist/. Look at it: open the PDF, the EPUB, and index.html in the archive of the site.
What follows is done by hand, and can't be undone:
  1. git tag v{0} && git push origin HEAD v{0}
         The tag starts the workflow that publishes the pages.
  2. .venv/bin/uv publish dist/*.whl
         To PyPI, with a token of the project's account.
  3. On GitHub, a release from tag v{0} with all files of dist/.
         Zenodo, if it watches the repository, gives it a DOI: write that into CITATION.cff and README.md for the next release.
Before the first release, once: on GitHub under Settings, choose GitHub Actions as the source of Pages, and let tags v* deploy
to the environment github-pages; on zenodo.org, switch the repository on.
"""


def disagreements(root: Path) -> list[str]:
    """What stands against a release, a sentence each. The version is that of pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    version, title, released = project["version"], citation["title"], str(citation["date-released"])
    if UNRELEASED in changes.splitlines():
        return ["The changes in CHANGELOG.md are Unreleased: give them a version by `make version NEW=…`, and commit that."]
    entry = re.search(r"^## (\S+)(?: – (\S+))?$", changes, re.MULTILINE)
    newest, day = entry.groups() if entry else (None, None)
    people = [person["name"] for person in citation["authors"]]
    found = []

    def same(what: str, said: object, wanted: object, source: str = "pyproject.toml") -> None:
        if said != wanted:
            found.append(f"{what} is {said}, but {wanted} in {source}.")

    same("The version in CITATION.cff", citation["version"], version)
    same("The version in .zenodo.json", zenodo.get("version"), version)
    same("The newest entry of CHANGELOG.md", newest, version)
    same("The date of the newest entry of CHANGELOG.md", day, released, "CITATION.cff")
    same("The title in .zenodo.json", zenodo.get("title"), title, "CITATION.cff")
    same("The licence in CITATION.cff", citation["license"], project["license"])
    same("The licence in .zenodo.json", zenodo.get("license"), project["license"])
    creators = [person.get("name") for person in zenodo.get("creators", [])]
    same("The list of creators in .zenodo.json", creators, people, "CITATION.cff")
    same("The list of authors in pyproject.toml", [person["name"] for person in project["authors"]], people, "CITATION.cff")
    if missing := sorted(REQUIRED - zenodo.keys()):
        found.append(f".zenodo.json lacks {', '.join(missing)}, which Zenodo asks for.")
    if unknown := sorted(zenodo.keys() - KNOWN):
        found.append(f".zenodo.json has {', '.join(unknown)}, which Zenodo doesn't know, or we don't use.")
    if zenodo.get("upload_type") != "software" or zenodo.get("access_right") != "open":
        found.append(".zenodo.json must say upload_type software and access_right open.")
    return found


def renumber(root: Path, new: str, day: str) -> None:
    """A version and its date into every file that tells one; what is unreleased is released by it.

    Raises:
        ValueError: this is no newer version, or there is nothing to release.
    """
    old = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    numbers = [int(part) for part in old.split(".")]
    if not re.fullmatch(r"\d+\.\d+\.\d+", new) or [int(part) for part in new.split(".")] <= numbers:
        example = f"{numbers[0]}.{numbers[1] + 1}.0"
        raise ValueError(f"{new or 'That'} is no version after {old}: say, for example, `make version NEW={example}`.")
    changes = {
        "CHANGELOG.md": [(rf"^{UNRELEASED}$", f"## {new} – {day}")],
        "pyproject.toml": [(r'^version = ".*"$', f'version = "{new}"')],
        "CITATION.cff": [(r"^version: .*$", f"version: {new}"), (r"^date-released: .*$", f"date-released: {day}")],
        ".zenodo.json": [(r'^  "version": ".*"', f'  "version": "{new}"')],
    }
    written = {}
    for name, lines in changes.items():
        written[name] = (root / name).read_text(encoding="utf-8")
        for pattern, line in lines:
            written[name], found = re.subn(pattern, line, written[name], flags=re.MULTILINE)
            if found != 1:
                raise ValueError(f"{name} has {found} lines `{pattern}`, and must have one. Nothing is written.")
    for name, text in written.items():
        (root / name).write_text(text, encoding="utf-8")


def git(*words: str) -> str:
    """What git answers about this checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip()


def of_git(version: str) -> list[str]:
    """What the checkout has against a release."""
    if not (ROOT / ".git").exists():
        return ["This is no checkout of git, from which the archive of the source is made."]
    found = []
    if changed := git("status", "--porcelain"):
        found.append(f"There are changes that are not committed, which the archive of the source would lack:\n{changed}")
    if (tag := git("tag", "--list", f"v{version}")) and git("rev-parse", f"{tag}^{{commit}}") != git("rev-parse", "HEAD"):
        found.append(f"{tag} is the tag of another commit: `make version NEW=…` gives this one a version of its own.")
    if os.environ.get("GITHUB_REF_TYPE") == "tag" and (name := os.environ["GITHUB_REF_NAME"]) != f"v{version}":
        found.append(f"The tag is {name}, but the version is {version} in pyproject.toml.")
    return found


def pack(folder: Path, archive: Path) -> None:
    """A folder as it stands, the same bytes from the same files, whenever they were made."""
    with ZipFile(archive, "w", ZIP_DEFLATED) as packed:
        for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".buildinfo"):  # names paths
            entry = ZipInfo(f"{archive.stem}/{file.relative_to(folder).as_posix()}")  # of 1980, where zip's time begins
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes())


def build(version: str, dist: Path) -> None:
    """The wheel with its chapters, the pages, the PDF, the EPUB and the source, with their checksums."""
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist], cwd=ROOT, check=True)
    pack(ROOT / "_build" / "html", dist / f"hqnn-book-{version}-site.zip")
    for kind in ("pdf", "epub"):
        shutil.copy(ROOT / "_build" / f"book.{kind}", dist / f"hqnn-book-{version}.{kind}")
    source = dist / f"hqnn-book-{version}-source.tar.gz"
    git("archive", "--format=tar.gz", f"--prefix=hqnn-book-{version}/", f"--output={source}", "HEAD")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print("".join(f"{file.stat().st_size / 1e6:8.1f} MB  dist/{file.name}\n" for file in sorted(dist.iterdir())), end="")


def main(words: list[str]) -> None:
    """Write a new version, or compare, and unless that is all that was asked for, build."""
    task, *rest = words or ["--build"]
    if task == "--version":
        new, root = rest[0], Path(rest[1] if rest[1:] else ROOT)
        try:
            renumber(root, new, date.today().isoformat())
        except ValueError as refusal:
            sys.exit(str(refusal))
        print(f"This is version {new} now, of today. Look at `git diff`, commit it, and run `make release`.")
        return
    root = Path(rest[0] if rest else ROOT)
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if against := disagreements(root) + (of_git(version) if root == ROOT else []):
        sys.exit("\n".join(["No release:", *against]))
    if task == "--build":
        build(version, ROOT / "dist")
        print(BY_HAND.format(version))


if __name__ == "__main__":
    main(sys.argv[1:])
