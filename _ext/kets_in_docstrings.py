"""Let docstrings write |0⟩ as physicists do: to reStructuredText a bar would open a substitution."""

from sphinx.application import Sphinx


def escape_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app: Sphinx) -> dict:
    # After napoleon (priority 500) has made fields of the sections, which hold no bars of their own.
    app.connect("autodoc-process-docstring", escape_bars, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
