"""Pages without what they do not need: the theme draws its icons twice, from a font and by a script of 1.5 MB."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ICON_SCRIPT = re.compile(r'\s*<script src="[^"]*/fontawesome/[^"]*\.js[^"]*"></script>')


def drop_icon_script(app: Sphinx, failed: Exception | None) -> None:
    """The font and its style sheet remain, and draw the same icons."""
    if failed or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        lighter = ICON_SCRIPT.sub("", text)
        if lighter != text:
            page.write_text(lighter, encoding="utf-8")
    for script in Path(app.outdir).glob("_static/vendor/fontawesome/*/js/*.js"):
        script.unlink()


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", drop_icon_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
