"""Where the book is public, and the links that follow: to its repository, its issues, and to where a chapter runs.

The address is the one that the publishing workflow knows, else that of git's remote, else there is none, and then no link
either. None is guessed.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

HOSTS = {"github.com": "github", "gitlab.com": "gitlab", "bitbucket.org": "bitbucket"}
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"
REMOTE = re.compile(r"(?:https://(?:[^/@]+@)?|ssh://[^/@]+@|[^/@]+@)([\w.-]+)(?::\d+)?[:/]((?:[\w.-]+/)+[\w.-]+?)(?:\.git)?/?")
"""`https://[user@]host/owner/name[.git]` and what ssh writes for it."""


@dataclass(frozen=True)
class Repository:
    """A public repository: its address, who hosts it, and which of its states the pages show."""

    url: str
    provider: str
    ref: str = "HEAD"

    def launches(self, page: str) -> dict[str, str]:
        """Where a chapter runs without an installation: name → address. Only GitHub is known to all three."""
        if not self.url.startswith("https://github.com/"):
            return {}
        name = self.url.removeprefix("https://github.com/")
        return {
            "Colab": f"{COLAB}/github/{name}/blob/{self.ref}/{page}.ipynb",
            "Binder": f"{BINDER}/v2/gh/{name}/{self.ref}?urlpath=lab/tree/{page}.ipynb",
            "Codespaces": f"https://codespaces.new/{name}",
        }


def repository(environ: Mapping[str, str], remote: str = "") -> Repository | None:
    """The repository that GitHub's workflow names, else the one of git's remote, else none.

    Args:
        environ: of the build; of a release GitHub names the tag, whose state the links then lead to.
        remote: the address of `origin`. A folder, an unknown host or a name in one's own ssh configuration is no public one.
    """
    server, name = environ.get("GITHUB_SERVER_URL"), environ.get("GITHUB_REPOSITORY")
    if server and name:
        tag = environ.get("GITHUB_REF_NAME") if environ.get("GITHUB_REF_TYPE") == "tag" else None
        return Repository(f"{server}/{name}", "github", tag or "HEAD")
    found = REMOTE.fullmatch(remote.strip())
    if found and found[1] in HOSTS:
        return Repository(f"https://{found[1]}/{found[2]}", HOSTS[found[1]])
    return None


def git(folder: Path, *asked: str) -> str:
    """What git answers about a checkout; nothing where there is no checkout, no git, or no answer."""
    if not (folder / ".git").exists() or not shutil.which("git"):
        return ""
    return subprocess.run(["git", *asked], cwd=folder, capture_output=True, text=True).stdout


def of_checkout(folder: Path) -> Repository | None:
    """As `repository`, of this process's environment and a folder that may be a git checkout."""
    return repository(os.environ, git(folder, "config", "--get", "remote.origin.url"))


def tell_the_theme(app: Sphinx, config: Config) -> None:
    """Its buttons need the address before the builder begins."""
    # Where the pages themselves will stand: GitHub's action for Pages knows it, and the workflow hands it on.
    if address := os.environ.get("BOOK_ADDRESS"):
        config.html_baseurl = address.rstrip("/") + "/"
    app.repository = of_checkout(Path(app.srcdir))
    if app.repository:
        config.html_theme_options |= {
            "repository_url": app.repository.url,
            "repository_provider": app.repository.provider,
            "repository_branch": app.repository.ref,
            "use_repository_button": True,
            "use_issues_button": app.repository.provider != "bitbucket",  # of which the theme knows no issues
        }
    if app.repository and app.repository.launches("any"):
        config.html_theme_options["launch_buttons"] = {
            "colab_url": COLAB,
            "binderhub_url": BINDER,
            "notebook_interface": "jupyterlab",
        }


def add_codespaces(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """The one button that the theme does not have, beside those that it has."""
    for group in context["header_buttons"]:
        if group.get("label") == "launch-buttons":
            url = app.repository.launches(pagename)["Codespaces"]
            about = {"text": "Codespaces", "tooltip": "Launch on Codespaces", "icon": "fab fa-github"}
            group["buttons"].append({"type": "link", "url": url} | about)


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", tell_the_theme)
    app.connect("html-page-context", add_codespaces, priority=502)  # after the theme's own
    return {"parallel_read_safe": True, "parallel_write_safe": True}
