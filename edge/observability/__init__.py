"""What an operator sees of the supervisor: log lines, counters, latencies, systemd's notification.

Nothing in here decides anything, and nothing in here may fail a frame: a log pipe that is closed,
a systemd that does not listen and a counter nobody reads cost no verdict. The environment is not
read; the command line hands it in. There is no exporter and no open port: figures leave the box in
the retained status message.
"""
