"""A real Apache Kafka for the tests: one node, broker and controller, of a folder of jars.

The jars are not part of the project; `tests/kafka/pom.xml` names them and Maven fetches them. The
server gets free ports and a folder of its own, and is ready when it says so itself.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBS_VARIABLE = "OTTLA_KAFKA_LIBS"
DEFAULT_LIBS = ROOT / ".kafka" / "libs"
FETCH = (
    "mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies "
    '-DincludeScope=runtime -DoutputDirectory="$PWD/.kafka/libs"'
)

_READY = "Kafka Server started"
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 30
_TOOL_TIMEOUT_S = 120
_WAIT_S = 30.0
_WAIT_STEP_S = 0.02
_STARTS_MAX = 3
_LOG_TAIL_CHARS = 3000

# What DumpLogSegments prints where something is wrong; it ends with 0 all the same.
_COMPLAINTS = (
    "isvalid: false",
    "invalid bytes",
    "Mismatches in",
    "mismatch in",
    "out of order",
    "Non-consecutive offsets",
    "not found in",
)

_PASSED = ("passed sanity check.", ".index is empty.")
# What it warns of at each start, and when a log begins in the midst of a batch.
_NO_COMPLAINTS = ("Performing controller activation.", "Non-monotonic update of high watermark")

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""

_LOG4J_PROPERTIES = """\
status=error
rootLogger.level=info
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c - %m%n
"""


class NoKafka(Exception):
    """There are no jars, or no Java to run them."""


@dataclass(frozen=True)
class KafkaJars:
    """Kafka's own classes, and the Java that runs them."""

    libs: Path
    java: str

    @classmethod
    def find(cls, libs: str) -> KafkaJars:
        """Return the jars of a folder.

        Args:
            libs: the folder; "" for $OTTLA_KAFKA_LIBS, or else .kafka/libs of the checkout.

        Raises:
            NoKafka: there are none, or Java is missing.
        """
        folder = Path(libs or os.environ.get(LIBS_VARIABLE) or DEFAULT_LIBS).resolve()
        if not any(folder.glob("kafka-clients-*.jar")):
            raise NoKafka(
                f"no jars of Apache Kafka in {folder}. Fetch them:  {FETCH}\n"
                f"Or say where they are:  --real-kafka=DIR or {LIBS_VARIABLE}=DIR"
            )
        java = shutil.which("java")
        if java is None:
            raise NoKafka("no java on the PATH: Kafka needs Java 17 or later")
        return cls(folder, java)

    def command(self, main_class: str, *args: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of one of Kafka's programs."""
        return [self.java, *options, "-cp", f"{self.libs}/*", main_class, *args]

    def run(self, main_class: str, *args: str) -> str:
        """Run one of Kafka's tools, and return what it printed.

        Raises:
            AssertionError: it failed; with all it said.
        """
        done = subprocess.run(
            self.command(main_class, *args, options=("-Xmx256m",)),
            capture_output=True,
            text=True,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{main_class} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def dump_log(self, folder: Path) -> str:
        """Return what kafka-dump-log prints for the segments, indexes and snapshots of a partition.

        Every batch is opened and every index entry compared with the log; then the indexes are
        checked once more as Kafka checks them when it opens them.

        Raises:
            AssertionError: it could not read them, or something in them is wrong.
        """
        suffixes = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
        files = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
        assert files, f"no segments in {folder}"
        dump = self._dump(files, "--deep-iteration", "--print-data-log")
        wrong = [line for line in dump.splitlines() if any(part in line for part in _COMPLAINTS)]
        assert not wrong, f"kafka-dump-log complains about {folder}:\n" + "\n".join(wrong)
        indexes = [path for path in files if path.suffix in (".index", ".timeindex")]
        if indexes:
            checked = self._dump(indexes, "--index-sanity-check").splitlines()
            passed = [line for line in checked if line.endswith(_PASSED)]
            assert len(passed) == len(indexes), f"not all indexes pass in {folder}: {checked}"
        return dump

    def dump_records(self, folder: Path, decoder: str) -> str:
        """Return what kafka-dump-log prints for records that one of its decoders knows."""
        return self._dump(sorted(folder.glob("*.log")), f"--{decoder}-decoder")

    def _dump(self, files: Sequence[Path], *options: str) -> str:
        names = ",".join(map(str, files))
        return self.run("org.apache.kafka.tools.DumpLogSegments", *options, "--files", names)


class RealKafka:
    """A running Kafka, at one address across restarts.

    Args:
        jars: what to start it from.
        folder: where it works.
        settings: broker configs, besides those that it needs.
        java_options: its heap, and what else Java is told.

    Attributes:
        address: host:port of its listener.
        data: the folder with its partitions; they are complete after `stop`.
        jars: what it was started from.
    """

    def __init__(
        self,
        jars: KafkaJars,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        java_options: Sequence[str] = ("-Xmx512m",),
    ) -> None:
        self.jars = jars
        self.data = folder / "data"
        self.address = ""
        self._settings = settings or {}
        self._ports: list[int] = []
        self._folder = folder
        self._java_options = tuple(java_options)
        self._log = folder / "server.log"
        self._started = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Format the storage where it is new, start, and wait until it is ready.

        Raises:
            AssertionError: it did not start; with the end of its log.
        """
        for _ in range(_STARTS_MAX):
            self._launch()
            if "Address already in use" not in self._log_tail():
                break
            self._ports = []
        assert self._is_ready(), f"Kafka did not start:\n{self._log_tail()}"

    def _launch(self) -> None:
        # The ports are free now; another process may take one before Kafka does: hence the loop.
        self._ports = self._ports or _free_ports(2)
        port, controller_port = self._ports
        self.address = f"127.0.0.1:{port}"
        properties = self._folder / "server.properties"
        properties.write_text(
            _SERVER_PROPERTIES.format(port=port, controller_port=controller_port, data=self.data)
            + "".join(f"{name}={value}\n" for name, value in self._settings.items())
        )
        logging = self._folder / "log4j2.properties"
        logging.write_text(_LOG4J_PROPERTIES)
        if not self.data.exists():
            tool = ("format", "-t", _new_cluster_id(), "-c", str(properties))
            self.jars.run("kafka.tools.StorageTool", *tool)
        self._started.clear()
        options = (*self._java_options, f"-Dlog4j2.configurationFile={logging}")
        self._process = subprocess.Popen(
            self.jars.command("kafka.Kafka", str(properties), options=options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._started.wait(_START_TIMEOUT_S)
        if not self._is_ready():
            self.stop()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self._log.open("w") as log, process.stdout as lines:
            for line in lines:
                log.write(line)
                log.flush()
                if _READY in line:
                    self._started.set()
        self._started.set()

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def _is_ready(self) -> bool:
        return _READY in self._log.read_text()

    def complaints(self) -> list[str]:
        """Return the lines of its log, since it was started last, that warn or tell of errors."""
        lines = self._log.read_text().splitlines()
        found = [line for line in lines if " WARN " in line or " ERROR " in line]
        return [line for line in found if not any(part in line for part in _NO_COMPLAINTS)]

    def _log_tail(self) -> str:
        return self._log.read_text()[-_LOG_TAIL_CHARS:]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it cleanly, or kill it where that takes too long."""
        if self._process is None or self._reader is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process = None


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something has happened that nobody tells about.

    Raises:
        AssertionError: it did not.
    """
    waiting = threading.Event()
    for _ in range(int(_WAIT_S / _WAIT_STEP_S)):
        if condition():
            return
        waiting.wait(_WAIT_STEP_S)
    raise AssertionError("it did not happen")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _new_cluster_id() -> str:
    # A leading "-" would be read as an option.
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
