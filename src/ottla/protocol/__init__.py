"""Kafka's messages: typed classes, the tables of their fields, and the codec that runs on them."""
