"""Where the code of a registered name is, as a value that can be sent to any node: a module or a file's content."""

import hashlib
import importlib
import sys
from dataclasses import dataclass
from functools import cache, partialmethod
from types import ModuleType
from typing import Any

from trainables.errors import ConfigError

__all__ = ["Implementation"]


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """A coreset, baseline, distillation method, dataset or network that a sweep refers to by name."""

    name: str
    """Its name in the sweep's settings."""
    address: str
    """`package.module:attribute`, or `file.py:attribute` if `source` is given."""
    source: str | None = None
    """Content of the file; None if the module is installed on every node."""

    def load(self) -> Any:
        """Return the attribute; within one process always the same object.

        Raises:
            ConfigError: Executing the file's content fails.
        """
        module, _, attribute = self.address.rpartition(":")
        if self.source is None:
            return getattr(importlib.import_module(module), attribute)
        return getattr(_run(module, self.source), attribute)


@cache
def _run(file: str, source: str) -> ModuleType:
    """Execute a file's content as a module, named by the hash of the content, and return the module.

    Pickled objects of its classes carry the content, so a process that has not loaded it can unpickle them.
    """
    name = f"extension_{hashlib.sha256(source.encode()).hexdigest()}"
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module  # a dataclass looks up its module when it is defined
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except Exception as error:
        line = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}, an implementation of this sweep, fails when it is loaded: {line}") from error
    finally:
        del sys.modules[name]  # other code must not import it
    for attribute, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == name:
            value.__reduce__ = partialmethod(_reduce, file, source, attribute)  # type: ignore[method-assign, assignment]
    return module


def _reduce(instance: object, file: str, source: str, attribute: str) -> tuple[Any, ...]:
    """Pickle an instance as its file's content, the class's name and the state."""
    return _new, (file, source, attribute), instance.__getstate__()


def _new(file: str, source: str, attribute: str) -> object:
    """Return an uninitialised instance of a class in a file's content; pickle then sets its state."""
    cls = getattr(_run(file, source), attribute)
    return cls.__new__(cls)
