"""What params.yaml says of the checks."""

from typing import Annotated

from pydantic import Field

from pipeline.artifacts.record import Frozen


class Limits(Frozen):
    """The most that a check lets pass before it warns, or fails; None never does."""

    warning: Annotated[float, Field(ge=0)] | None = None
    error: Annotated[float, Field(ge=0)] | None = None
