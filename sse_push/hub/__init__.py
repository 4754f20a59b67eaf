"""The fan-out inside one process: from a merchant's change to each of its connections."""
