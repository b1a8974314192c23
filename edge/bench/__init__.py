"""Measurements that anyone can run again: the frame path, and a whole line through a broker.

Each figure stands beside that of `bare_script.py`, the script that a user would write instead,
taken in the same run, in turn. Noise comes and goes on any machine: medians and ratios count.
"""
