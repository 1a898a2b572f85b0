"""The section `validation` of params.yaml."""

from typing import Annotated

from pydantic import Field

from pipeline.artifacts.record import Frozen


class Limits(Frozen):
    """Above which number a check warns or fails; None: never."""

    warning: Annotated[float, Field(ge=0)] | None = None
    error: Annotated[float, Field(ge=0)] | None = None
