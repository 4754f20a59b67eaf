"""The Redis streams: adding entries, and following which streams change.

``append`` adds what backends send, by the commands of ``adding``, over a connection of the
``pool``, and may wait until ``replicas`` have it; ``outcomes`` says what became of it. ``follow``
reads what is new over one connection on which Redis announces changes (``pipeline``), and proves
that it does (``probe``, ``proof``); where Redis refuses that, messages take its place
(``announcing``), by the rules of the ``bell``. ``heard`` hands on what is announced. A ``primary``
is all of that for one server; a ``cluster`` has many, each a ``member``, and ``cluster_append``
finds the one that has a record's stream. ``rounds`` are reads without a cause. ``tail`` and
``revocations`` decide which reads come next, without any I/O; the theory of operation is in
``tail``. ``histories`` names the history of a server, ``window`` bounds what is on the way at once,
``parser`` the size of a reply; what exceeds it, or may, is read by ``aside`` on a connection of its
own, as ``standing`` decides. ``leftovers`` names keys that Redis tracks for nobody. ``keys`` names
what is in Redis, ``contract`` knows its form, ``replies`` whose error a reply is, ``examine`` what
is wrong with a server, ``delivery`` whether it does what we need, ``obstacles`` why it does not do
what it is asked. Every connection is a ``connection`` of our own, which ``opening`` begins at an
``address``, of one server or of the primary that a ``sentinel`` names; ``failures`` are the ways in
which it ends. In a cluster, whose ``seeds`` a URL names, ``survey`` asks who has which ``slots``,
``homes`` brings each merchant there, ``moving`` reads streams on their way, ``guests`` are nodes
without slots. To all others Redis is a ``store``.

The only package, beside ``runtime.embedded``, that knows Redis. Does not know browsers, nor how
they are served.

==============================  ===========  =====================================================
key                             type         what
==============================  ===========  =====================================================
``sse_push:{<merchant_id>}``    stream       an entry per notification; fields ``topic``, ``data``
                                             (JSON text) and ``by``, each optional, others ignored
``sse_push:revocations``        stream       an entry per revocation, its ID the time; fields
                                             ``merchant_id``, ``jti`` and ``sub``, the last two
                                             optional, others ignored
``sse_push:{~<process>}``       stream       written by each process, to find its own entries; kept
                                             for 60 s; no merchant's ID has a ``~``
``sse_push:bell``               channel      a message per group of entries, where it may be
                                             needed: appender, number, merchants (``bell``)
==============================  ===========  =====================================================

The keys are those of the default ``key_prefix``. A merchant's stream is a public contract: a
backend may XADD to it (ID ``*``) in MULTI or Lua and never call HTTP. The braces make it one slot
of a cluster. Revocations are trimmed by time: each stays until the last token that it covers has
expired.

https://redis.io/docs/latest/develop/reference/client-side-caching/
"""

from sse_push.stream.address import Address
from sse_push.stream.append import Appender
from sse_push.stream.bell import BellChoice
from sse_push.stream.examine import examine
from sse_push.stream.follow import Follower, FollowTally
from sse_push.stream.keys import Keys
from sse_push.stream.listener import Listener
from sse_push.stream.outcomes import AppendTally
from sse_push.stream.planting import PlantTally
from sse_push.stream.primary import Primary, Terms
from sse_push.stream.sentinel import Login, parse_address
from sse_push.stream.store import Adds, Follows, Store

__all__ = [
    "Address",
    "Adds",
    "AppendTally",
    "Appender",
    "BellChoice",
    "FollowTally",
    "Follower",
    "Follows",
    "Keys",
    "Listener",
    "Login",
    "PlantTally",
    "Primary",
    "Store",
    "Terms",
    "examine",
    "parse_address",
]
