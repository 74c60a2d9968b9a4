"""For all tests of the core."""

import signal


def pytest_configure(config):
    # A shell that runs `make test` in the background has Ctrl-C ignored, here and in every process that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
