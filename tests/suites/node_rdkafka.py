"""node-rdkafka's end-to-end tests, from its npm package; npm builds it and its librdkafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from tests.suites.outcomes import Outcome, of_mocha
from tests.suites.suite import Suite, Target

_TEST_TIMEOUT_MS = "120000"


class NodeRdkafka(Suite):
    """node-rdkafka: e2e. The interface of mocha that its Makefile names is not its files'."""

    name = "node-rdkafka"
    version = "3.6.1"
    package = "node-rdkafka@3.6.1"
    archive = "node-rdkafka-3.6.1.tgz"
    sha256 = "148f7e7b65c510314c70762d8f1be052c8fe1fdf03a128e6c78083a729a57a30"
    inner = "package"
    # Those that its run_docker.sh creates.
    topics: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("test", "test2", "test3", "test4", "test5", "test6"), 1),
        "test7": 2,
    }

    def fetch_command(self) -> Sequence[str]:
        return self.npm_pack()

    def build(self) -> None:
        self.command(("npm", "install", "--no-audit", "--no-fund"), self.source)

    def run(self, target: Target, only: str) -> list[Outcome]:
        report = self.folder / "report.json"
        specs = sorted(str(path) for path in (self.source / "e2e").glob("*.spec.js"))
        options = ["--exit", "--timeout", _TEST_TIMEOUT_MS, "--ui", "bdd"]
        options += ["--reporter", "json", "--reporter-option", f"output={report}"]
        options += ["--grep", only] if only else []
        mocha = str(self.source / "node_modules" / ".bin" / "mocha")
        variables = {"KAFKA_HOST": target.address}
        return of_mocha(self.report_of([mocha, *options, *specs], self.source, variables, report))
