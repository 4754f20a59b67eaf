"""How the event stream of one connection is written."""
