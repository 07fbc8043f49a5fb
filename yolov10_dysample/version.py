"""The one place of the version number, below every other module. It must never import anything."""

__version__ = "0.2.0"
