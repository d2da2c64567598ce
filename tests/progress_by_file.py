"""Tells of each test file when its tests have ended, in place of a dot a test."""

from collections import Counter

import pytest


class ProgressByFile:
    """A plugin of the process that prints: pytest's only one, or the one that hands tests to pytest-xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left: Counter[str] = Counter()
        self.files = self.ended = 0
        self.found: dict[str, Counter[str]] = {}

    def expect(self, names: list[str]) -> None:
        """Takes the tests of a run by their node ids."""
        self.left = Counter(name.partition("::")[0] for name in names)
        self.files = len(self.left)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Counts the tests of a run in this process."""
        self.expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Counts the tests of a run by workers, which have all found the same ones."""
        if not self.files:
            self.expect(ids)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Leaves dots out; failures keep their letter."""
        silent = report.skipped or (report.when == "call" and report.passed)
        return (report.outcome, "", "") if silent and not hasattr(report, "wasxfail") else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Prints a line when the last test of a file has ended."""
        file = report.nodeid.partition("::")[0]
        if report.when == "call" or not report.passed:
            self.found.setdefault(file, Counter())[report.outcome] += 1
        if report.when == "teardown":
            self.left[file] -= 1
            if not self.left[file]:
                self.ended += 1
                told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.found[file].items()))
                terminal = self.config.pluginmanager.get_plugin("terminalreporter")
                terminal.ensure_newline()
                terminal.write_line(f"[{self.ended}/{self.files}] {file}: {told}")
