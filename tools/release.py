"""A release: what is published, in `dist/`, once everything that tells a version tells the same one.

`make release`; `python tools/release.py --check` only compares, and `--check FOLDER` does so elsewhere.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
# What Zenodo asks of a deposit of software, and what else of it we use.
REQUIRED = {"title", "upload_type", "description", "creators", "access_right", "license"}
KNOWN = REQUIRED | {"version", "keywords", "notes", "related_identifiers", "references", "language"}
BY_HAND = """
What is left to do by hand, and can't be undone:
  git tag v{0} && git push origin main v{0}    the tag starts the workflow that publishes the pages
  twine upload dist/*.whl                          to PyPI, with an account of the project
  a release on GitHub from tag v{0}, with all files of dist/; Zenodo, if it watches the repository, gives it a DOI
  write that DOI into CITATION.cff and README.md for the next release
"""


def disagreements(root: Path) -> list[str]:
    """What stands against a release, a sentence each. The version is that of pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    version, title, date = project["version"], citation["title"], str(citation["date-released"])
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
    same("The date of the newest entry of CHANGELOG.md", day, date, "CITATION.cff")
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


def git(*words: str) -> str:
    """What git answers about this checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def build(version: str, dist: Path) -> None:
    """The wheel with its chapters, the pages, the PDF and the source, with their checksums."""
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist], cwd=ROOT, check=True)
    shutil.make_archive(str(dist / f"hqnn-book-{version}-site"), "zip", ROOT / "_build" / "html")
    shutil.copy(ROOT / "_build" / "book.pdf", dist / f"hqnn-book-{version}.pdf")
    source = dist / f"hqnn-book-{version}-source.tar.gz"
    git("archive", "--format=tar.gz", f"--prefix=hqnn-book-{version}/", f"--output={source}", "HEAD")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print("".join(f"{file.stat().st_size / 1e6:8.1f} MB  dist/{file.name}\n" for file in sorted(dist.iterdir())), end="")


def main(words: list[str]) -> None:
    """Compare, and unless that is all that was asked for, build."""
    check, root = "--check" in words, Path(next((word for word in words if word != "--check"), ROOT))
    against = disagreements(root)
    if root == ROOT and git("status", "--porcelain"):
        against.append("There are changes that are not committed: the archive would not hold what was built.")
    if against:
        sys.exit("\n".join(["No release:", *against]))
    if not check:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        build(version, ROOT / "dist")
        print(BY_HAND.format(version))


if __name__ == "__main__":
    main(sys.argv[1:])
