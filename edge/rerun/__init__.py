"""Verdicts computed again from what the ledger recorded and kept: is each the same, bit for bit?

It reads a ledger and changes nothing. It runs the very frame path of a worker, in this process, and
says of each record that its verdict is identical, or which input, code, parameter or engine is not
the recorded one, and by how much the answer moved.
"""
