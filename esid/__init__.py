"""esid keeps a local database equal to EVE Online's public ESI data."""

__version__ = "0.2.0"
