"""The process that serves, its event loop, its log and its server."""
