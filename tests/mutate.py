#!/usr/bin/env python3
"""Delete any one step, read-back or refusal from a copy of capdrop.py: does a test fail?  Run by hand, as root, on Linux.

usage: python3 mutate.py [--list] [--python PYTHON] [--jobs N] [word of the labels...]

PYTHON runs the tests (it needs pytest).  What to delete is found by parsing the source:
  - the rows of the lists in before, after, _steps, _attempts, regain and fit;
  - each field of the State that read returns, from what is compared in _read_back;
  - every raise, and every statement that calls refuse, adds to a list of findings, or reads back.
The copy is tested in a mount namespace in which nothing of the system but temporary directories can be written: a mutant
keeps rights that the tests expect to be gone.  Prints the mutants that survive; the exit status is their number.
"""
import ast
import concurrent.futures
import ctypes
import os
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WITH_ROWS = 'before', 'after', '_steps', '_attempts', 'regain', 'fit'
READS = 'read',
ADDS = 'refuse', 'append', '_read_back'
TESTS = [['test_faults.py', '-k', 'not whatever and not table'], ['test_linux.py', '-k', 'not half_way'],
         ['test_audit.py'], ['test_surroundings.py'], ['test_regain.py'], ['test_config.py'], ['test_cli.py', 'test_vendoring.py'],
         ['test_faults.py', '-k', 'whatever']]      # the quick ones first; test_config.py for what reads configurations

# What no test can see, and why.
EXCUSED = {
    "os.chdir, '/'": 'fchdir has made it the current directory; the comparison after it tells if that ever changes',
    'cap_from_text(3) does not take it': 'no text is known that it refuses as a whole and not in one of its clauses',
    'this libcap writes sets in another form': 'there is no such libcap yet; the comparison is for one that comes',
}


def mutants(source):
    """(label, the source without it)."""
    lines = [0]
    for line in source.encode().splitlines(True):
        lines.append(lines[-1] + len(line))
    data = source.encode()

    def span(node):
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    def without(node, replacement, label, end=None):
        start, stop = span(node)
        stop = end or stop
        text = ' '.join(data[start:stop].decode().split())
        return '%s, line %d: %s' % (label, node.lineno, text[:90]), (data[:start] + replacement + data[stop:]).decode()

    functions, seen = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)], set()
    compared, = [node.body[0].value for node in functions if node.name == '_read_back']
    for function in functions:
        for node in ast.walk(function):
            place = getattr(node, 'lineno', 0), getattr(node, 'col_offset', 0), type(node)
            if place in seen:
                continue                        # in a function inside another one
            if isinstance(node, ast.List) and function.name in WITH_ROWS:
                for row in node.elts:
                    if not isinstance(row, ast.Constant):
                        yield without(row, b'None', 'row of ' + function.name)
            elif isinstance(node, ast.ListComp) and function.name == '_attempts' and 'platform' in ast.dump(node.elt):
                yield without(node, b'[]', 'row of ' + function.name)
            elif isinstance(node, ast.Dict) and function.name in READS and len(node.keys) > 5:
                for key in node.keys:
                    start, stop = span(compared)
                    others = '[one for one in (%s) if one[0] != %r]' % (data[start:stop].decode(), key.value)
                    yield 'field %s of what is read back' % key.value, (data[:start] + others.encode() + data[stop:]).decode()
            elif isinstance(node, ast.Raise) and node.exc is not None:
                yield without(node, b'pass', 'raise in ' + function.name)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = node.value.func
                if getattr(called, 'attr', getattr(called, 'id', '')) in ADDS:
                    yield without(node, b'pass', 'call in ' + function.name)
            else:
                continue
            seen.add(place)


def confine():
    """A mount namespace of its own, read-only but for temporary directories."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(*args):
        if libc.mount(*args):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(args))
    if libc.unshare(0x20000):
        raise OSError(ctypes.get_errno(), 'unshare')
    mount(b'none', b'/', None, 16384 | 1 << 18, None)       # MS_REC | MS_PRIVATE
    for place in b'/tmp', b'/var/tmp':
        mount(b'tmpfs', place, b'tmpfs', 0, b'mode=1777')
    mount(b'none', b'/', None, 32 | 4096 | 1, None)         # MS_REMOUNT | MS_BIND | MS_RDONLY


def first_of_state(source):
    return next(node.lineno for node in ast.parse(source).body if getattr(node, 'name', '') == 'State')


def verdict(python, number, label, source):
    """(label, the test file that kills it, or '')."""
    place = '/tmp/mutant%d' % number
    shutil.copytree('/tmp/original', place)
    try:
        with open(place + '/capdrop.py', 'w') as file:
            file.write(source)
        config = int(label.partition(', line ')[2].partition(':')[0] or 10 ** 6) < first_of_state(source)
        first = 'test_config.py' if config else 'test_linux.py' if label.startswith(('call', 'raise', 'row of fit')) else TESTS[0][0]
        for words in sorted(TESTS, key=lambda words: words[0] != first):
            files = ['tests/' + word if word.endswith('.py') else word for word in words]
            command = [python, '-B', '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', '--tb=line',
                       '--basetemp=%s/t' % place]
            known = [word for path in BROKEN for word in ('--deselect', path)]
            done = subprocess.Popen(command + files + known, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    start_new_session=True)
            try:
                out = done.communicate(timeout=180)[0].decode('utf-8', 'replace')
            except subprocess.TimeoutExpired:
                os.killpg(done.pid, 9)
                return label, 'did not end'
            if done.returncode:
                lines = [line for line in out.splitlines() if line.startswith(('FAILED', 'ERROR'))]
                return label, (lines or [words[0]])[-1][:120]
        return label, ''
    finally:
        shutil.rmtree(place, ignore_errors=True)


BROKEN = []     # tests that fail without any mutation


def main(words):
    if {'-h', '--help'} & set(words):
        return print(__doc__)
    jobs = int(words.pop(words.index('--jobs') + 1)) if '--jobs' in words else os.cpu_count() or 1
    python = words.pop(words.index('--python') + 1) if '--python' in words else sys.executable
    with open(os.path.join(TOP, 'capdrop.py'), encoding='utf-8') as file:
        found = list(mutants(file.read()))
    chosen = [word for word in words if not word.startswith('--')]
    found = [one for one in found if not chosen or any(word in one[0] for word in chosen)]
    if '--list' in words:
        print('\n'.join(label for label, _ in found))
        return 0
    confine_and_copy()
    sound = subprocess.run([python, '-B', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--tb=no', '-rf',
                            '--basetemp=/tmp/t', 'tests'],
                           cwd='/tmp/original', stdout=subprocess.PIPE).stdout.decode('utf-8', 'replace')
    BROKEN.extend(line.partition(' ')[2].partition(' - ')[0] for line in sound.splitlines() if line.startswith('FAILED'))
    print('%d mutants; without any: %s' % (len(found), sound.splitlines()[-1]))
    for path in BROKEN:
        print('left out, it fails anyway: %s' % path)
    start, survivors = time.time(), []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(verdict, python, number, *one) for number, one in enumerate(found)]
        for one in concurrent.futures.as_completed(running):
            label, killer = one.result()
            reason = next((why for part, why in EXCUSED.items() if part in label), '')
            if not killer and not reason:
                survivors.append(label)
            print('%s %s <- %s' % ('killed  ' if killer else 'excused ' if reason else 'SURVIVES', label, killer or reason))
            sys.stdout.flush()
    print('%d mutants, %d survive, %d s' % (len(found), len(survivors), time.time() - start))
    return min(len(survivors), 100)


def confine_and_copy():
    copy = '/dev/shm/mutate%d' % os.getpid()
    ignore = shutil.ignore_patterns('.git', '__pycache__', '.venv', '.benchmarks')
    shutil.copytree(TOP, copy, ignore=ignore)
    confine()
    shutil.copytree(copy, '/tmp/original')
    shutil.rmtree(copy)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
