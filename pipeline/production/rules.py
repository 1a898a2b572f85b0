"""What the gate asks of a version that wants to go into production: `promotion` in params.yaml."""

from typing import Annotated

from pydantic import Field

from pipeline.artifacts.record import Frozen

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Floors(Frozen):
    """What a version must reach on the test split, whatever is in production.

    Attributes:
        recall: of every class.
        calibration_error: at most; None, here and below: any.
        latency_p95_ms: of one image, at most.
        size_mb: of the model file in 10^6 bytes, at most.
    """

    accuracy: Share = 0.0
    recall: Share = 0.0
    calibration_error: Share | None = None
    latency_p95_ms: Positive | None = None
    size_mb: Positive | None = None


class Rules(Frozen):
    """What the gate asks of a version that wants to go into production.

    Attributes:
        margin: the most that accuracy may be below that of the version in production; it is the
            lower end of the interval of the difference that counts.
        better: whether it must be better, with `confidence`; otherwise not being worse is enough.
        confidence: of the interval, and of the paired test.
        allowance: the most recall that a class may lose.
        allowances: the same of single classes, by name.
        allow_dirty: whether code may have made it that is in no commit.
        require_approval: whether a person has to agree.
    """

    floors: Floors = Floors()
    margin: Share = 0.005
    better: bool = True
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    allowance: Share = 0.05
    allowances: dict[str, Share] = Field(default_factory=dict)
    allow_dirty: bool = False
    require_approval: bool = False
