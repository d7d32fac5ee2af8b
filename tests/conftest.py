"""What the tests share.  No test drops privileges in the test process: in_child forks first."""
import fcntl
import os
import pickle
import socket
import struct
import subprocess
import sys
import traceback

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(TESTS)
SCRIPT = os.path.join(TOP, 'capdrop.py')
sys.path.insert(0, TOP)


def need(condition, reason):
    """Skip where something is missing; under CI nothing that matters may be missing."""
    if not condition:
        (pytest.fail if os.environ.get('CI') else pytest.skip)(reason)


def need_root():
    need(os.geteuid() == 0, 'needs root')


class Ended(Exception):
    """The child ended without an answer: args are its wait status decoded (exit status, or -signal) and its stderr."""


def in_child(function, *args):
    """function(*args) in a forked child: its result (or exception) comes back; Ended if it ended itself."""
    answer, tell = os.pipe()
    errors, err = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.close(answer)
            os.close(errors)
            os.dup2(err, 2)
            try:
                result = True, function(*args)
            except BaseException as e:
                e.__traceback__ = None if pickle_safe(e) else e.__traceback__
                result = False, e if pickle_safe(e) else RuntimeError(traceback.format_exc())
            with os.fdopen(tell, 'wb') as pipe:
                pickle.dump(result, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    os.close(err)
    with os.fdopen(answer, 'rb') as pipe:
        data = pipe.read()
    with os.fdopen(errors, 'rb') as pipe:
        text = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    if not data:
        raise Ended(status >> 8 if not status & 127 else -(status & 127), text)
    good, result = pickle.loads(data)
    if good:
        return result
    raise result


def pickle_safe(e):
    try:
        pickle.loads(pickle.dumps(e))
        return True
    except Exception:
        return False


def loopback_up():
    """In a network namespace of one's own, in which it is down."""
    with socket.socket() as lo:                 # SIOCSIFFLAGS, IFF_UP of linux/sockios.h and linux/if.h
        fcntl.ioctl(lo, 0x8914, struct.pack('16sH22x', b'lo', 1))


def run(*args, **options):
    """`python -I capdrop.py ARGS...`: an object with returncode, stdout and stderr (text)."""
    command = [sys.executable, '-I', SCRIPT] + list(args)
    return run_command(command, **options)


def run_command(command, stdin=b'', **options):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(stdin)
    return subprocess.CompletedProcess(command, process.returncode, out.decode(), err.decode())
