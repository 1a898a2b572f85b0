"""What the log of a flow run must not hold."""

import logging

from pipeline.redaction import redact

# Every flow and every task logs under one of these names.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def hide_secrets() -> None:
    """Take passwords out of every line that flows and tasks of this process log."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(without_secrets)


def hide_tracebacks() -> None:
    """Log an error as one line: its message says what to do."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(without_traceback)


def without_secrets(record: logging.LogRecord) -> bool:
    """Take passwords out of a record, and out of the traceback of its error."""
    record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info:
        # Formatters use this text where there is one.
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return True


def without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback out of a record."""
    record.exc_info = None
    return True
