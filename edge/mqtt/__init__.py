"""The room of MQTT: sessions, topics, and a broker of our own for demos and tests.

The only door to paho (and, in a child process, to amqtt). Everything runs inside the caller's
asyncio loop; what comes from the network is never trusted. What a message means is not known here.
"""
