"""Load on a broker, in processes of its own: prebuilt requests, and librdkafka's clients.

Each module is run as `python -m bench.loads.NAME JSON`, with the fields of its `Load`. It gets
ready, says so, waits until it is told to begin, and prints what came of it (`bench.loads.process`).
"""
