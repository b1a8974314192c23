"""What an operator sees of the supervisor: log lines, counters, metrics, traces, systemd.

Nothing in here decides anything, and nothing in here may fail a frame: a log pipe that is closed,
a systemd that does not listen and a counter nobody reads cost no verdict. The environment is not
read; the command line hands it in. Figures leave the box in the retained status message; a port for
Prometheus, a file for node_exporter and traces by OTLP are there for whoever turns them on.
"""
