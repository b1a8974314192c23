"""Plays parts with known truth through a broker, as a camera would, and scores the verdicts.

It is a camera and a reject gate to the daemon, and sees nothing of it but its messages.
"""
