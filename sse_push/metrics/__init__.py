"""Metrics for Prometheus: the sum over all workers, whichever worker answers the scrape.

The only package that imports prometheus-client. The parts of the service count, as plain integers
(``hub.tally`` and so on), and ``metrics`` copies these once a second, so that counting a delivery
costs no call of the library. ``series`` has the words of each series, and ``files`` what workers
share.
"""

from sse_push.metrics.metrics import Metrics
from sse_push.metrics.series import SERIES

__all__ = ["SERIES", "Metrics"]
