"""Everything that zig raises on purpose.

    ZigError
    ├── UsageError     zig was asked for something it can't do (option, path, provider)
    ├── ModelError     a model file can't be read, is invalid, or onnxruntime refuses it
    ├── RuleError      a rule string or an operator's row is wrong
    ├── PlanError      a plan can't be made (ratio outside (0, 1), unknown criterion)
    ├── ExportError    a torch model can't be exported without losing a parameter
    ├── LinkError      an initializer can't be traced to a torch parameter
    ├── UnchangedError no group is zero, and that was asked to be an error
    ├── RunError       a training run can't go on
    └── VerifyError    two models that must agree do not

A message is one plain sentence that names the file, node or tensor and says what to do. The command line prints it as
it is and ends with the class's `exit_code`: 1 when the job failed, 2 for wrong use or unreadable input.

What is no error and should be known, such as a budget that is nearly met, is a `ZigWarning`. In Python it is told by
`warnings`; the command line prints it as one plain sentence too.
"""

from typing import ClassVar

from zig.printable import sentence


class ZigError(Exception):
    """Base of every error that zig raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message on one line; names in it come from files, and a terminal obeys some of what they may hold."""
        return sentence(super().__str__())


class UsageError(ZigError):
    """Zig was asked for something it can't do."""

    exit_code = 2


class ModelError(ZigError):
    """A model file can't be read, is invalid, or is refused by onnxruntime."""

    exit_code = 2


class RuleError(ZigError):
    """A rule string or an operator's row is wrong."""

    exit_code = 2


class PlanError(ZigError):
    """A plan can't be made from what was asked for."""

    exit_code = 2


class ExportError(ZigError):
    """A torch model can't be exported without losing a parameter."""


class LinkError(ZigError):
    """An initializer can't be traced to a torch parameter."""


class UnchangedError(ZigError):
    """`--strict` was asked for, and no group of the model is zero."""


class RunError(ZigError):
    """A training run can't go on."""


class VerifyError(ZigError):
    """Two models that must agree do not."""


class ZigWarning(UserWarning):
    """There is a result, and something about it should be known."""
