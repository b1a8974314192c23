"""Whether pictures and verdicts are still like those that a device once learnt as its own.

Rules: counts and figures come in as calls, changes go out as values; no file, clock, log or socket,
and no NumPy: the supervisor carries it. A finding changes no verdict, it warns. Everything that is
kept has a bound.

A *recipe* is what the line makes at a time. A *reference* is what one recipe looks like and how it
is judged, learnt on this device. A *window* holds the newest samples. What differs between them is
told as a sentence with its remedy.
"""
