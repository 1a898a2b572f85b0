"""What processes may do instead of decoding images; apart, so that they start at once."""

import os
import signal
import time
from typing import Any

from pipeline.data.shards.packing import Decoded, decode


def die(items: Any) -> list[Decoded]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def take_time(items: Any) -> list[Decoded]:
    time.sleep(0.5)
    return decode(items)
