"""What is wrong on the way from a browser to the service, seen from outside, through the proxy.

``target`` is what is examined. ``network`` and ``asking`` look and ask, ``examination`` says in
which order, ``reading`` reads the events and errors of the service, ``judging`` and ``rights`` make
results of what was seen, and ``faults`` is the list of what can be wrong, with what mends it.
"""

from sse_push.doctor.examination import Examination
from sse_push.doctor.faults import Fault, Result
from sse_push.doctor.target import Address, Target

__all__ = [
    "Address",
    "Examination",
    "Fault",
    "Result",
    "Target",
]
