"""The version of this package, apart from its face so that every module may read it."""

__version__ = "0.1.0"
