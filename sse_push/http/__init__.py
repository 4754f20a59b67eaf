"""The HTTP interface: parse a request, call what it is for, answer."""
