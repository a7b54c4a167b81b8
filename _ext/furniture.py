"""What other programs show of a page: search engines its description, messengers its card, crawlers its address.

The address is that of `public_address`; without it there is no canonical link, no sitemap and no picture on the card, which
need one. Two libraries exist for this, sphinxext-opengraph and sphinx-sitemap; neither knows the "In short" of a page, and
what is left is little.
"""

import csv
import re
from html import escape
from pathlib import Path

from docutils import nodes
from markupsafe import Markup
from matplotlib.figure import Figure
from sphinx.application import Sphinx

ICONS = '<link rel="icon" type="image/png" sizes="180x180" href="{0}">\n<link rel="apple-touch-icon" href="{0}">'
"""Beside the SVG of `_config.yml`, for browsers that show none."""
CARD, CARD_SIZE = "_static/card.png", (1200, 630)
CARD_SHOWS = "The title of the book above what an entangling circuit gains in many universes, sorted: most lie below zero."
LONGEST = 300
"""Of a description, in characters: search engines show less, messengers a little more."""


def add_meta(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """The description of a page, and what the Open Graph protocol wants of it."""
    head = [ICONS.format(context["pathto"]("_static/favicon.png", 1))]
    if doctree:
        title, site, address = Markup(context["title"]).striptags(), app.config.html_title, app.config.html_baseurl
        about = description(doctree) or f"{title}: {site}"
        facts = {
            "og:title": title,
            "og:description": about,
            "og:type": "website" if pagename == app.config.root_doc else "article",
            "og:site_name": site,
        }
        if address:
            width, height = CARD_SIZE
            facts |= {"og:url": address + app.builder.get_target_uri(pagename), "og:image": address + CARD}
            facts |= {"og:image:width": width, "og:image:height": height, "og:image:alt": CARD_SHOWS}
            head.append('<meta name="twitter:card" content="summary_large_image">')
        head.append(f'<meta name="description" content="{escape(about)}">')
        head += [f'<meta property="{name}" content="{escape(str(value))}">' for name, value in facts.items()]
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(head) + "\n"


def description(doctree: nodes.document) -> str:
    """What a page says "In short", else what its first paragraph says: whole sentences, of which the first is always one."""
    shown = [(_in_words(node), node.parent) for node in doctree.findall(nodes.paragraph)]
    short = [text for text, parent in shown if text.startswith("In short. ")]
    own = [text for text, parent in shown if isinstance(parent, nodes.section)]  # and no table, list or quotation
    first, *others = re.split(r"(?<=[.?!]) ", re.sub(r"^(In short|What you will do)\. ", "", [*short, *own, ""][0]))
    for sentence in others:
        if len(first) + len(sentence) >= LONGEST:
            break
        first += f" {sentence}"
    return first


def _in_words(paragraph: nodes.paragraph) -> str:
    """Without comments, and formulas nearly as one types them: where this is shown there is no mathematics."""
    text = "".join(str(part) for part in paragraph.findall(nodes.Text) if not isinstance(part.parent, nodes.raw))
    return " ".join(text.replace("\\theta", " θ").replace("( θ", "(θ").replace("\\", "").split())


def draw_card(app: Sphinx) -> Figure:
    """The book's first figure as large as a stamp: what entanglement gains in every universe that was drawn."""
    with (Path(app.srcdir) / "data/results/multiverse.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["status"] == "finished"]
    rows.sort(key=lambda row: float(row["gain_ent_classical"]))
    gains, lows, highs = ([float(row[f"gain_ent_classical{end}"]) for row in rows] for end in ("", "_low", "_high"))
    verdicts = [row["verdict_ent_classical"] for row in rows]
    figure = Figure(figsize=[side / 100 for side in CARD_SIZE], dpi=100, facecolor="#0f1720")
    figure.text(0.055, 0.83, "Hybrid quantum-classical\nneural networks", color="white", size=42, weight="bold", va="center")
    figure.text(0.055, 0.645, "An executable book", color="#c8d2dc", size=24, va="center")
    axes = figure.add_axes((0.055, 0.13, 0.89, 0.45))
    colours = [{"behind": "#d55e00", "ahead": "#56b4e9"}.get(verdict, "#7f8c99") for verdict in verdicts]
    axes.vlines(range(len(rows)), lows, highs, colors=colours, linewidth=0.6)
    axes.plot(gains, color="white", linewidth=2)
    axes.axhline(0, color="white", linewidth=0.8)
    axes.set_xlim(0, len(rows))
    axes.axis("off")
    drawn = f"{len(rows):,} universes: {verdicts.count('behind'):,} clearly worse, {verdicts.count('ahead'):,} clearly better"
    figure.text(0.055, 0.07, f"With entanglement, in {drawn}", color="#c8d2dc", size=20, va="center")
    return figure


def add_files(app: Sphinx, failed: Exception | None) -> None:
    """The picture of the card and the sitemap, where the address is known that both need."""
    out, address = Path(app.outdir), app.config.html_baseurl
    if app.builder.name != "html" or failed or not address:
        return
    draw_card(app).savefig(out / CARD, metadata={"Software": None})
    pages = [escape(address + app.builder.get_target_uri(page)) for page in sorted(app.env.found_docs)]
    listed = "\n".join(f"<url><loc>{page}</loc></url>" for page in pages)
    told = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    (out / "sitemap.xml").write_text(f"{told}{listed}\n</urlset>\n", encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_meta)
    app.connect("build-finished", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
