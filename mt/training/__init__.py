"""Learning: the only room that knows Lightning."""
