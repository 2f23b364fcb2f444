"""The cluster's metadata: topics, their configs and producer ids, in Kafka's metadata records."""
