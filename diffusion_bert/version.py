"""The version of this package, apart from its face so that every module may read it."""

__version__ = "1.0.0"
