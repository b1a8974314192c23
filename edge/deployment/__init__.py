"""Deployments: what they pin, whether it is whole, and what it becomes on this device.

The supervisor imports this room, so neither NumPy nor any engine is imported here. Files are read
and hashed; nothing is compiled, loaded or run.
"""
