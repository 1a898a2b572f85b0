"""What made a model, as it is recorded beside the model."""

from pydantic import Field

from pipeline.artifacts.record import Frozen, Record
from pipeline.models.backbones.weights import Weights
from pipeline.models.recipes import Recipe


class Code(Frozen):
    """The code that trained.

    Attributes:
        commit: None outside a git repository, or before its first commit.
        branch: the one that is checked out, or the name that git gives to a detached commit.
        dirty: whether files of the code differ from the commit, or are new.
        diff: the difference from the commit, for `git apply`; empty where the code is clean.
        others: md5 by name of other files that differ or are new, which no stage reads; an empty
            md5 where the file is gone or large.
        lockfiles: sha256 of each requirements file.
    """

    commit: str | None
    branch: str | None
    dirty: bool | None
    diff: str = ""
    others: dict[str, str] = Field(default_factory=dict)
    lockfiles: dict[str, str] = Field(default_factory=dict)


class Environment(Frozen):
    """The software and the hardware that trained.

    Attributes:
        packages: the exact version of every installed distribution.
        hardware: `cpu`, `cores`, `memory_gib` and, where one trained, the `gpu` with its `driver`,
            its memory and the versions of CUDA and cuDNN.
    """

    python: str
    platform: str
    packages: dict[str, str]
    hardware: dict[str, str]


class Interruption(Frozen):
    """An end of a training before its last epoch, after which another process went on.

    Attributes:
        epoch: the last epoch that was not lost.
        at: when it was noticed, or else when that epoch was saved.
        status: what its MLflow run was then; RUNNING after a `kill -9`, None where it is gone.
        reason: the error, where there was one.
        resumed_at: when the training went on.
    """

    epoch: int
    at: str
    status: str | None
    reason: str
    resumed_at: str

    def __str__(self) -> str:
        ended = ": ".join(filter(None, [self.status or "its run is gone", self.reason]))
        return f"after epoch {self.epoch}, {self.at}, {ended}; resumed {self.resumed_at}"


class Provenance(Record):
    """`provenance.json` beside a model: what training knows about itself.

    Attributes:
        params_yaml: the text of the file.
        weights: those that the backbone of the recipe began with; None without a backbone.
        device: the device that trained it, as in `RunInfo`.
        flow_run: `flow_run_id` and `flow_run_url`, where a flow ran it.
        sources: md5 of each source file that trained it, by its path in the repository; empty in
            records from before this field.
        interruptions: how often it was interrupted and resumed.
    """

    code: Code
    environment: Environment
    params_yaml: str
    recipe: Recipe
    seed: int
    deterministic: bool
    device: str
    flow_run: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    weights: Weights | None = None
    interruptions: tuple[Interruption, ...] = ()
