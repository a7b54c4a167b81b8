"""The package behind the book: circuits, layers, data, training and evidence.

Each module is one idea and stands on its own; `CONTRIBUTING.md` draws how they hang together.
"""

from importlib.metadata import version

__version__ = version("hqnn-utils")
