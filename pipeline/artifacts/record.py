"""Typed values, and those that are JSON files."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifacts.files import read_json, write_json
from pipeline.errors import ArtifactError

DeviceChoice = Literal["auto", "cpu", "gpu"]  # where to train


class Frozen(BaseModel):
    """A typed value read from a file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(Frozen):
    """A typed JSON file."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the record.

        Raises:
            ArtifactError: it is missing, torn, or not of this form.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise ArtifactError(f"{path} is not a {cls.__name__}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the record."""
        write_json(path, self.model_dump(mode="json"))
