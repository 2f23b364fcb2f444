"""The durable log: files, segments, indexes, partitions and what makes them survive.

This package stands on its own: it knows neither broker nor network, and gets its files and its
clock from outside.
"""
