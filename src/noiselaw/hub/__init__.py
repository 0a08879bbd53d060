"""Models ready for use, whoever trained and saved them."""

from noiselaw.hub.gidd import load_gidd as load_gidd
from noiselaw.hub.load import LoadedModel as LoadedModel
from noiselaw.hub.load import LoadError as LoadError
from noiselaw.hub.load import load_model as load_model
