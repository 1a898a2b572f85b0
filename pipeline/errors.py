"""The exceptions of the pipeline.

PipelineError
├── ParamsError        params.yaml asks for something that does not exist or is out of range
├── DatasetError       a dataset cannot be fetched, or its layout is wrong
│   ├── DownloadError  no source delivered the file
│   └── ArchiveError   an archive is damaged or hostile
├── ImageError         one image cannot be decoded
├── ValidationFailed   a dataset was checked and did not pass
├── TrainingError      a model cannot be built, or training went wrong
├── TrackingError      the MLflow store cannot be reached or lacks what is asked for
├── WorkerError        a worker process died
└── ArtifactError      a file that a stage needs is missing, torn or cannot be written

The command line prints the message of any of them on one line and exits with 1, or with 75 (the
"temporary failure" of sysexits.h) where the error is retryable: the same command may succeed later.
"""

import difflib

from pipeline.redaction import redact

EXIT_CODE = 1
# The answer to a question is no: refused, found, not reproduced.
EXIT_CODE_NO = 3
EXIT_CODE_RETRYABLE = 75


class PipelineError(Exception):
    """Something the user can fix: the message says what was received and what is allowed.

    Messages are printed, logged and stored, so no password is in them.

    Attributes:
        retryable: whether the same command may succeed later: a network, a server, a lock.
    """

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(redact(message))
        self.retryable = retryable


class ParamsError(PipelineError):
    """params.yaml, or an argument, names something unknown or a value out of range."""


class DatasetError(PipelineError):
    """A dataset cannot be fetched, or its layout is wrong."""


class DownloadError(DatasetError):
    """No source delivered the file."""


class ArchiveError(DatasetError):
    """An archive is damaged or hostile."""


class ImageError(PipelineError):
    """One image cannot be decoded."""


class ValidationFailed(PipelineError):
    """A dataset was checked and did not pass."""


class TrainingError(PipelineError):
    """A model cannot be built, or training went wrong."""


class TrackingError(PipelineError):
    """The MLflow store cannot be reached, or lacks what is asked for."""


class WorkerError(PipelineError):
    """A worker process died."""


class ArtifactError(PipelineError):
    """A file that a stage needs is missing, torn or cannot be written."""


def did_you_mean(word: str, allowed: list[str]) -> str:
    """Return ` (did you mean …?)` where one of the allowed words is close, else nothing."""
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
