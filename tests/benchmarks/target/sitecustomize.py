# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Makes a Python that was started with this on its path a managed host below BULKHEAD_TARGET_ROOT.

The modules arrive and run as on any host; alone the class through which they reach files, programs and
the kernel is replaced by the unit tests' fake host, as soon as it is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import pathlib
import sys
import types
import typing

HOST = "ansible_collections.bulkhead.hardening.plugins.module_utils.host"


class Loader(importlib.abc.Loader):
    """Loads the module of the host, then puts the fake one into it."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """Leave it to the real one."""
        return self._real.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        """Load it, and replace its class."""
        self._real.exec_module(module)
        from tests.unit.fake_engine import FakeHost

        class Target(FakeHost):
            """The host that the benchmark has laid out already."""

            def __init__(self, root: str = "/") -> None:
                super().__init__(pathlib.Path(os.environ["BULKHEAD_TARGET_ROOT"]))

            def _build(self) -> None:
                pass

        module.__dict__["Host"] = Target


class Finder(importlib.abc.MetaPathFinder):
    """Finds that one module as others do."""

    def find_spec(
        self,
        name: str,
        path: typing.Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the real spec with the loader above."""
        if name != HOST:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is not None and found.loader is not None:
            found.loader = Loader(found.loader)
        return found


sys.meta_path.insert(0, Finder())
