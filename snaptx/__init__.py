"""snaptx updates a Linux system the way a database commits."""

__version__ = "0.1.0"
