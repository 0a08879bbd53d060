"""What every specification shares."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, infinities survive JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True)
