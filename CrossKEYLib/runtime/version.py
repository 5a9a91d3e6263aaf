"""The version of the package, read by reports and by the command line."""

__version__ = "0.1.0"
