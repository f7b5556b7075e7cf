"""The version of this package, in the one place that the build and the program both read.

A frozen program or a bundle has no package metadata, so `importlib.metadata` finds no version there.
"""

__version__ = "0.1.0"
