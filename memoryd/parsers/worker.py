"""The process that reads files: one after the other from its input, until that ends."""

import os
import resource
import sys
from typing import BinaryIO

from memoryd.documents.parsing.files import parse_file
from memoryd.documents.parsing.types import Parsed
from memoryd.errors import InvalidInputError, MemorydError, TooLargeError
from memoryd.parsers.confinement import confine
from memoryd.parsers.frames import READY, REQUEST_HEAD, Request, read_request, write_answer


def main(memory_bytes: int) -> None:
    """Serve requests. The process takes at most `memory_bytes` beyond what it starts with."""
    requests, answers = _take_pipes()
    confine(memory_bytes)
    answers.write(READY)
    answers.flush()
    while True:
        head = requests.read(REQUEST_HEAD.size)
        if len(head) < REQUEST_HEAD.size:
            return
        request_length, data_length = REQUEST_HEAD.unpack(head)
        request = read_request(requests.read(request_length))
        answers.write(write_answer(_parse(requests.read(data_length), request)))
        answers.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes to the server, and leave to libraries that print an output of their own."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return requests, answers


def _limit_time(cpu_s: int) -> None:
    """End the process by SIGXCPU when it has computed for `cpu_s` seconds more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _parse(data: bytes, request: Request) -> Parsed | MemorydError:
    _limit_time(request.cpu_s)
    try:
        return parse_file(data, request.name, request.mime_type, request.limits)
    except MemorydError as error:
        return error
    except MemoryError:
        return TooLargeError("the file needs more memory to be read than one may take")
    except Exception as error:  # libraries fail over broken files in any way
        return InvalidInputError(f"the file is broken: {type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main(int(sys.argv[1]))
