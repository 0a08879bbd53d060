"""Models ready for use, whoever trained and saved them."""

from noiselaw.hub.export import export_run
from noiselaw.hub.gidd import load_gidd
from noiselaw.hub.load import LoadedModel, LoadError, load_model
from noiselaw.hub.load import load_model as load  # hub.load(DIR); the module of that name stays importable from
from noiselaw.hub.start import starting_point

__all__ = ["LoadError", "LoadedModel", "export_run", "load", "load_gidd", "load_model", "starting_point"]
