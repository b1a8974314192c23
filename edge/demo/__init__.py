"""The demo: a whole line on one machine, from simulated camera to scored verdicts."""
