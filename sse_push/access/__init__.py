"""Access: what can stop a request, in the order in which the endpoints ask.

=====================================================  =================================  =====
Every request
1. Does it ask for a host of this service?             ``hosts.Hosts.check``              421
``GET /events``
1. May a page of this origin listen?                   ``origin.Origins.check``           403
2. Which merchant may this client listen to?           ``gate.Gate``                      401
   By a token: is it valid, and signed by a key?       ``tokens``, ``token_keys``
   By a header: is its sender a trusted proxy?         ``proxies``
   The answer is the right to listen                   ``grant``
3. Is that right revoked?                              ``revocation.Revocations``         401
4. Is there room: in all, per merchant, per address?   ``room.Place.reserve``             soft
``POST /notify``, ``POST /revoke``
1. Does the request come from a page?                  ``origin.require_backend``         403
2. Is its key one of the settings?                     ``gate.authorize_notify``          401
3. Does the key notify too often?                      ``rate.Rates.spend``               429
4. Is the key for this merchant?                       ``keys.NotifyKey.require``         403
``GET /`` with ``swoole_compat``, which needs no key
1. Is it a backend's own request, from its address?    ``keyless.Keyless.check``          403
2. Do such backends notify too often?                  ``rate.Rates.spend``               429
=====================================================  =================================  =====

The last column is the status of a refusal; *soft* is a soft answer, which the package sse_push.http
defines. A request that is malformed is answered 400, and a merchant that a valid token or proxy
does not name 403.

Knows credentials, merchants, addresses, clocks and counts. Does not know Redis, how connections
are served, nor how a refusal is answered. Each caller imports the one module that it needs.
"""
