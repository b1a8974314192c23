"""The operator's page: live verdicts, records and kept frames, thresholds tried on them.

Rules:

1. It is a process of its own. It reads the ledger from copies and the kept frames from their files,
   hears the broker as one more client, and changes nothing. The one thing that it can cause is a
   record: what a person says of a verdict goes to the daemon, by whatever its caller hands in.
2. Nothing that it is asked costs without a bound: connections, bytes, time, records looked at.
3. Nothing is served that a record does not name, and no file by a name that came from outside.

Not here: who judges, what runs, any setting. A threshold is tried here, and changed in a manifest.
"""
