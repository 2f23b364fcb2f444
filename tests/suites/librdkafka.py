"""librdkafka's own tests in C and C++, from the source that node-rdkafka's npm package carries.

Left out are those that need no broker and those that slow down its sockets; it is asked for the
quick form of the others, one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tests.suites.outcomes import Outcome, of_librdkafka
from tests.suites.suite import KAFKA_AUTHORIZER, Suite, Target

# Some tests take about as long as they may on any broker; one that takes longer ends all of them.
_CONF = """\
bootstrap.servers={address}
test.topic.random=true
test.timeout.multiplier=3
"""


class Librdkafka(Suite):
    """librdkafka: tests/test-runner."""

    name = "librdkafka"
    version = "2.12.0"
    package = "node-rdkafka@3.6.1"
    archive = "node-rdkafka-3.6.1.tgz"
    sha256 = "148f7e7b65c510314c70762d8f1be052c8fe1fdf03a128e6c78083a729a57a30"
    inner = "package/deps/librdkafka"
    # That of trivup's brokers, for which the tests are written.
    settings: ClassVar[Mapping[str, str]] = {"num.partitions": "4"}
    kafka_settings = KAFKA_AUTHORIZER
    timeout_s = 3600

    def fetch_command(self) -> Sequence[str]:
        return self.npm_pack()

    def build(self) -> None:
        jobs = f"-j{os.cpu_count() or 1}"
        self.command(("./configure", "--disable-gssapi", "--disable-curl"), self.source)
        self.command(("make", jobs, "libs"), self.source)
        self.command(("make", jobs, "test-runner"), self.source / "tests")

    def run(self, target: Target, only: str) -> list[Outcome]:
        tests = self.source / "tests"
        report = self.folder / "report.json"
        (tests / "test.conf").write_text(_CONF.format(address=target.address))
        libraries = f"{self.source / 'src'}:{self.source / 'src-cpp'}"
        variables = {
            "LD_LIBRARY_PATH": libraries,
            "TEST_REPORT": str(report),
            "TEST_KAFKA_VERSION": f"{target.version}.0",
            **({"TESTS": only} if only else {}),
        }
        command = ["./test-runner", "-L", "-Q", "-E", "-p1"]
        return of_librdkafka(self.report_of(command, tests, variables, report))
