"""Commands: thin. Each module reads its arguments, calls one room, and says the outcome."""
