"""Models ready for use, whoever trained and saved them."""

from noiselaw.hub.export import export_run
from noiselaw.hub.gidd import load_gidd
from noiselaw.hub.loading import LoadedModel, LoadError, load_model
from noiselaw.hub.loading import load_model as load
from noiselaw.hub.start import starting_point

__all__ = ["LoadError", "LoadedModel", "export_run", "load", "load_gidd", "load_model", "starting_point"]
