"""The parts of `scripts/numa-vm`. Standard library only: it runs before anything is installed."""


class VmError(Exception):
    """The machine could not be set up or did not run; the text says what, why and what to do."""


class InterruptedRunError(Exception):
    """A signal, of this number, asked numa-vm to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
