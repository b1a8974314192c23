"""A camera for lines that have none that speaks MQTT: pictures from elsewhere become frames.

Folders, V4L2 devices, RTSP and MJPEG streams, and what a bridge writes into a pipe. It holds a few
frames at most: when the broker lags, the oldest waiting frame gives way, and is counted.
"""
