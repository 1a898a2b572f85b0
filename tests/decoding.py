"""What processes may do instead of decoding images; apart, so that they start at once."""

import os
import signal
import time
from typing import Any

from pipeline.data.packing import Fact, decode


def die(arrays: Any, items: Any) -> list[Fact]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def take_time(arrays: Any, items: Any) -> list[Fact]:
    time.sleep(0.5)
    return decode(arrays, items)
