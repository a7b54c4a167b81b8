"""The directive `{chapter-status}`: a table of every chapter's run, from the record that it left in the notebook."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hqnn_utils.notebooks import results, runs

HEAD = ("chapter", "run on", "wall time", "cores", "versions")


class ChapterStatus(SphinxDirective):
    """One row a chapter; a chapter without a record is a warning, which fails the build."""

    def run(self) -> list[nodes.Node]:
        rows = [HEAD]
        for name, path in runs.chapters().items():
            self.env.note_dependency(str(path))
            record = results.run_of(path)
            if not record.get("finished"):
                raise self.warning(f"{name} has no record of a whole run: renew it with `make chapters`")
            versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
            rows.append((name, record["date"], f"{record['wall_time_s']:.0f} s", str(record["cores"]), versions))
        return [_table(rows)]


def _table(rows: list[tuple]) -> nodes.table:
    group = nodes.tgroup(cols=len(HEAD))
    group += [nodes.colspec(colwidth=width) for width in (25, 12, 10, 8, 45)]
    head, body = nodes.thead(), nodes.tbody()
    for section, content in ((head, rows[:1]), (body, rows[1:])):
        for row in content:
            section += nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in row))
    group += [head, body]
    return nodes.table("", group, classes=["with-row-heads"])


def setup(app: Sphinx) -> dict:
    app.add_directive("chapter-status", ChapterStatus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
