"""Where documents come from: connectors that tell what is there, and the sync that keeps up with it."""
