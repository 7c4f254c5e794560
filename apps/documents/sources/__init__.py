"""Sources: where a collection's documents come from, and the sync that keeps up with it (connectors/ reads them)."""
