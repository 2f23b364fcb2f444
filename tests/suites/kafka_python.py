"""kafka-python's integration tests, from its source distribution.

They find a broker that runs by KAFKA_URI. The distribution lacks two files of its tests: the
package's `__init__.py`, and `test/service.py`, in whose place comes `kafka_python_service.py`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.suites.outcomes import Outcome, of_junit
from tests.suites.suite import KAFKA_AUTHORIZER, Suite, Target

_SERVICE = Path(__file__).with_name("kafka_python_service.py")
_REQUIREMENTS = (
    "pytest>=9,<10",
    "pytest-mock>=3,<4",
    "pytest-timeout>=2,<3",
    "lz4>=4,<5",
    "python-snappy>=0.7,<0.8",
    "zstandard>=0.25,<0.26",
)
_TEST_TIMEOUT_S = 120


class KafkaPython(Suite):
    """kafka-python: test/integration."""

    name = "kafka-python"
    version = "3.0.12"
    package = "kafka-python==3.0.12"
    archive = "kafka_python-3.0.12.tar.gz"
    sha256 = "4ccda3616b9aa5c353d74a97f2770d6cd1b950890d77ab0e8890e09a48eeed65"
    inner = "kafka_python-3.0.12"
    # Those of its servers/resources/default/kafka.properties that its tests rely on.
    settings: ClassVar[Mapping[str, str]] = {
        "num.partitions": "4",
        "group.min.session.timeout.ms": "1000",
    }
    kafka_settings = KAFKA_AUTHORIZER

    def fetch_command(self) -> Sequence[str]:
        return self.pip_download()

    def build(self) -> None:
        self.command((sys.executable, "-m", "venv", str(self._venv)), self.folder)
        self.command((self._python, "-m", "pip", "install", "-q", *_REQUIREMENTS), self.folder)
        (self.source / "test" / "__init__.py").touch()
        shutil.copy(_SERVICE, self.source / "test" / "service.py")

    @property
    def _venv(self) -> Path:
        return self.folder / "venv"

    @property
    def _python(self) -> str:
        return str(self._venv / "bin" / "python")

    def run(self, target: Target, only: str) -> list[Outcome]:
        report = self.folder / "report.xml"
        options = [
            "--timeout-method=signal",
            f"--timeout={_TEST_TIMEOUT_S}",
            f"--junitxml={report}",
        ]
        options += ["-k", only] if only else []
        text = self.report_of(
            [self._python, "-m", "pytest", "-q", "--tb=short", *options, "test/integration"],
            self.source,
            {
                "KAFKA_URI": f"kafka://{target.address}",
                "KAFKA_VERSION": target.version,
                "KAFKA_ROOT": str(self.folder),  # only has to exist
                "PYTHONPATH": "",
            },
            report,
        )
        return of_junit(text)
