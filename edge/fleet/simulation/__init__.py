"""A fleet in one process: how a rollout fares on many devices, and what load it is.

Real are the publisher with its keys and rings, the repository and its server, TUF, the fetch with
its store, the journal with its table, the broker, and one session and report of each device.
Simulated is what a frame path would find: there are no workers, and a release that is bad fails on
probation by chance.

`scenario` has the terms, `server` serves and counts, `device` is one device, `fleet` plays it all.
"""
