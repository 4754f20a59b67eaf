"""The names of the keys of a service with the default prefix."""

from __future__ import annotations

from sse_push.settings import Settings
from sse_push.stream.keys import Keys

KEYS = Keys(Settings.model_fields["key_prefix"].default)
REVOCATIONS_KEY = KEYS.revocations
stream_key, merchant_of = KEYS.stream, KEYS.merchant_of
