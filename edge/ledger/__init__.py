"""The room of the ledger: every verdict committed, chained, and kept until the cloud holds it.

The only door to sqlite3. One thread owns the one connection that ever writes; the event loop is
never kept waiting. Over the records lies a Merkle tree, signed with the device's key, so that each
of them can be proved. What travels over the network, and how, is not known here.
"""
