"""The words that every room shares: frame, signal, verdict, guest ABI, plan, channel messages.

Plain values only: nothing here does I/O, reads a clock, or imports an engine.
"""
