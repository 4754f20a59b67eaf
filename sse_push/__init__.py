"""Tell every open browser of a merchant that its data has changed, by Server-Sent Events."""

__version__ = "0.1.0"
