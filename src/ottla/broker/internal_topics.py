"""The topics that the broker writes to itself."""

GROUPS_TOPIC = "__consumer_offsets"

INTERNAL_TOPICS = frozenset({GROUPS_TOPIC, "__transaction_state"})
"""What the broker writes to itself, and only itself. Kafka: Topic.INTERNAL_TOPICS."""
