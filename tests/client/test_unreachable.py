"""What a client says where no broker can be reached: the cause, the effect and the next step."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ottla import Admin, Consumer, Delivery, Producer
from ottla.errors import (
    BrokerUnavailable,
    ConfigError,
    DeliveryError,
    KafkaError,
    NotKafka,
)


@contextlib.contextmanager
def peer(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen, and let `answer` deal with each connection; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def failure_of(address: str, **settings: float) -> DeliveryError:
    producer = Producer(address, **settings)
    handle = producer.send("topic1", b"x")
    with pytest.raises(DeliveryError) as caught:
        producer.flush()
    assert handle.state == "failed"
    with pytest.raises(KafkaError):
        handle.result()
    producer.close()
    return caught.value


def test_nothing_listens() -> None:
    address = closed_port()
    started = time.monotonic()
    error = failure_of(address)
    waited = time.monotonic() - started
    assert waited < 30  # a bound for a hang, not a measurement
    assert (error.failed, error.pending) == (1, 0)
    [cause] = error.causes
    assert isinstance(cause, BrokerUnavailable)
    assert cause.stage == "connect"
    text = str(error)
    assert f"not sent: nothing is listening on {address} (refused on 127.0.0.1, 3 tries" in text
    assert "The record was NOT stored: 1 of 1 undelivered." in text
    assert "ottla serve" in text


def test_every_address_of_a_list_is_named() -> None:
    first, second = closed_port(), closed_port()
    text = str(failure_of(f"{first},{second}"))
    assert first in text
    assert second in text


def test_the_name_does_not_resolve() -> None:
    error = failure_of("no-such-host.invalid:9092")
    assert "the name no-such-host.invalid does not resolve" in str(error)
    assert isinstance(error.causes[0], BrokerUnavailable)
    assert error.causes[0].stage == "resolve"


def test_an_http_server_answers() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with peer(answer) as address:
        error = failure_of(address)
    assert isinstance(error.causes[0].__cause__, NotKafka)
    assert "is not Kafka but an HTTP server" in str(error)
    assert "not of its web interface" in str(error)


def test_a_tls_port_answers() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(bytes.fromhex("15030300020246"))

    with peer(answer) as address:
        error = failure_of(address)
    assert "is not Kafka but a TLS port" in str(error)


def test_a_peer_that_hangs_up_is_told_from_one_that_is_not_there() -> None:
    with peer(lambda connection: None) as address:
        error = failure_of(address)
    assert "accepts connections but does not answer as a broker" in str(error)
    assert isinstance(error.causes[0], BrokerUnavailable)
    assert error.causes[0].stage == "handshake"


def test_a_response_to_a_request_that_was_never_made_is_no_crash() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"\0\0\0\x06\x7f\x7f\x7f\x7f\0\0")

    with peer(answer) as address:
        error = failure_of(address)
    assert "cannot be read" in str(error)


def test_a_silent_peer_is_given_up_after_the_startup_timeout() -> None:
    hold = threading.Event()

    def answer(connection: socket.socket) -> None:
        hold.wait()

    with peer(answer) as address:
        try:
            error = failure_of(address, startup_timeout_ms=100)
        finally:
            hold.set()
    assert "does not answer as a broker" in str(error)


def test_sending_goes_on_with_a_new_attempt_after_a_failed_flush() -> None:
    with Producer(closed_port()) as producer:
        for _ in range(2):
            producer.send("topic1", b"x")
            with pytest.raises(DeliveryError, match="nothing is listening"):
                producer.flush()
        assert producer.flush() == 0


def test_leaving_a_with_block_raises_what_close_raises() -> None:
    with pytest.raises(DeliveryError, match="2 of 2 undelivered"), Producer(closed_port()) as it:
        it.send("topic1", b"x")
        it.send("topic2", b"x")


def test_an_exception_in_a_with_block_is_not_hidden_but_gets_a_note() -> None:
    with pytest.raises(RuntimeError) as caught, Producer(closed_port()) as producer:
        producer.send("topic1", b"x")
        raise RuntimeError("the user's own")
    assert "1 of 1 undelivered" in caught.value.__notes__[0]


def test_a_callback_is_told() -> None:
    told: list[Delivery] = []
    with contextlib.suppress(DeliveryError), Producer(closed_port()) as producer:
        producer.send("topic1", b"x", on_delivery=told.append)
    [handle] = told
    assert isinstance(handle.exception(), BrokerUnavailable)


def test_a_consumer_and_an_admin_say_the_same() -> None:
    with Consumer(closed_port(), "t") as consumer, pytest.raises(BrokerUnavailable, match="tries"):
        consumer.poll(60)
    with Admin(closed_port()) as admin, pytest.raises(BrokerUnavailable, match="tries"):
        admin.list_topics()


@pytest.mark.parametrize("address", ["localhost", "a b:1", "host:0", "host:99999", 17])
def test_what_is_no_address_is_refused_at_once(address: object) -> None:
    with pytest.raises(ConfigError):
        Producer(address)


def test_an_unknown_setting_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match="linger_ms"):
        Producer("localhost:1", lingerms=5)
