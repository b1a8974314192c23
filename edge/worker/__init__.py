"""The process on the frame path: one pipeline, two threads, one socket.

`python -m edge.worker FD` speaks `edge.contracts.messages` over the inherited socket FD. It owns
no other connection, no timer and no policy about deadlines: a supervisor watches it from outside
and replaces it when it hangs or dies.
"""
