"""Kafka for Python, without the cluster.

The names are loaded when they are first used, so that importing the package costs little.
"""

from typing import TYPE_CHECKING, Any

from ottla import _compiled
from ottla._version import VERSION

_compiled.activate()
__version__ = VERSION

if TYPE_CHECKING:
    from ottla.broker.broker import Broker
    from ottla.client.admin import Admin
    from ottla.client.consumer import Consumer
    from ottla.client.consumer import Consumer as KafkaConsumer
    from ottla.client.delivery import Delivery, RecordMetadata
    from ottla.client.membership import SubscriptionPattern
    from ottla.client.producer import Producer
    from ottla.client.producer import Producer as KafkaProducer
    from ottla.errors import KafkaError
    from ottla.records.record import Record

_EXPORTS = {
    "Admin": ("ottla.client.admin", "Admin"),
    "Broker": ("ottla.broker.broker", "Broker"),
    "Consumer": ("ottla.client.consumer", "Consumer"),
    "Delivery": ("ottla.client.delivery", "Delivery"),
    "KafkaConsumer": ("ottla.client.consumer", "Consumer"),
    "KafkaError": ("ottla.errors", "KafkaError"),
    "KafkaProducer": ("ottla.client.producer", "Producer"),
    "Producer": ("ottla.client.producer", "Producer"),
    "Record": ("ottla.records.record", "Record"),
    "RecordMetadata": ("ottla.client.delivery", "RecordMetadata"),
    "SubscriptionPattern": ("ottla.client.membership", "SubscriptionPattern"),
}

__all__ = [
    "Admin",
    "Broker",
    "Consumer",
    "Delivery",
    "KafkaConsumer",
    "KafkaError",
    "KafkaProducer",
    "Producer",
    "Record",
    "RecordMetadata",
    "SubscriptionPattern",
    "__version__",
]


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module 'ottla' has no attribute {name!r}") from None
    from importlib import import_module

    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value
