"""The picture of README.md: a figure of a chapter, as the file that pages of repositories show.

python tools/readme_picture.py          # part of `make numbers`
"""

from pathlib import Path

from hqnn_utils.files import read_notebook

ROOT = Path(__file__).parents[1]
CHAPTER, FIGURE = "book/evidence/multiverse.ipynb", "fig-mv-curve"
PICTURE = ROOT / "book" / "map.svg"


def drawing() -> str:
    """The figure, as the chapter's committed run drew it."""
    for cell in read_notebook(ROOT / CHAPTER)["cells"]:
        if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == FIGURE:
            (data,) = [output["data"] for output in cell["outputs"] if "image/svg+xml" in output.get("data", {})]
            return "".join(data["image/svg+xml"])
    raise LookupError(f"{CHAPTER} has no figure {FIGURE}")


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
