"""A field of a named tuple is in the package's pages if it is told of. Python itself says "Alias for field number 0" of it."""

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer


def skip(app: Sphinx, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Whether a member is left out; `None` leaves that to autodoc. The signature names all fields anyway."""
    if not str(getattr(obj, "__doc__", "")).startswith("Alias for field number"):
        return None
    where = app.env.temp_data  # which module and class autodoc is at
    return (where["autodoc:class"], name) not in ModuleAnalyzer.for_module(where["autodoc:module"]).find_attr_docs()


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
