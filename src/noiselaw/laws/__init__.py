"""Scaling laws from a table of runs: fits with honest intervals, predictions, plans.

numpy only, quick to import. Runs go in as `LossCurve`s (`fit_isoflop`), as a table of points (`tabulate_points`,
`fit_tables`) or as anybody's file (`read_table`, and the `fit_...` of the module of each method); a fit predicts
(`predict_loss`), plans (`plan_run`) and is written (`to_json`). `plan_training` plans the whole run from a book of
laws.
"""

from noiselaw.laws.curves import IsoflopTable, LossCurve, tabulate_curves, tabulate_points
from noiselaw.laws.forms import PowerLaw, SaturatingCurve
from noiselaw.laws.isoflop import IsoflopFit, Optimum, SizePoint, fit_isoflop, fit_tables
from noiselaw.laws.lawbook import published_book
from noiselaw.laws.lawfits import LawFit
from noiselaw.laws.ownbook import read_book
from noiselaw.laws.plan import Plan, plan_run
from noiselaw.laws.planner import Budget, plan_training
from noiselaw.laws.prediction import Prediction, predict_loss
from noiselaw.laws.published import LargeRun, PublishedLaw, isoflop_laws, load_points
from noiselaw.laws.read import read_table
from noiselaw.laws.record import from_json, to_json
from noiselaw.laws.surface import SurfaceFit, fit_surface
from noiselaw.laws.table import RunTable
from noiselaw.laws.trainingplan import TrainingPlan

__all__ = [
    "Budget",
    "IsoflopFit",
    "IsoflopTable",
    "LargeRun",
    "LawFit",
    "LossCurve",
    "Optimum",
    "Plan",
    "PowerLaw",
    "Prediction",
    "PublishedLaw",
    "RunTable",
    "SaturatingCurve",
    "SizePoint",
    "SurfaceFit",
    "TrainingPlan",
    "fit_isoflop",
    "fit_surface",
    "fit_tables",
    "from_json",
    "isoflop_laws",
    "load_points",
    "plan_run",
    "plan_training",
    "predict_loss",
    "published_book",
    "read_book",
    "read_table",
    "tabulate_curves",
    "tabulate_points",
    "to_json",
]
