"""The broker: Kafka's protocol on top of the log, in this process or served over TCP."""
