"""What every specification shares."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, infinities survive JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True)


def plain_name(name: str) -> str:
    """`name` again. Raises ValueError where, taken for a file's, it would lead elsewhere than into the folder."""
    if Path(name).name != name or name == "..":
        raise ValueError("must be a plain file name inside the folder, without any /")
    return name


PlainName = Annotated[str, AfterValidator(plain_name)]
"""Names that files and folders get."""
