#!/usr/bin/env python3
"""Take any one step, check, read-back or refusal out of a copy of capdrop.py: does a test fail?  Run by hand, as root, on Linux.

usage: python3 mutate.py [--list] [--quick] [--python PYTHON] [--jobs N] [--labels FILE] [word of the labels...]

--quick leaves out the slow half of the tests: what survives is to be run again without it.
--labels takes only the mutants whose labels are lines of FILE, as --list prints them.

PYTHON (3.8 or later) runs the tests (it needs pytest).  What to change is found by parsing the source:
  - each row that the generators of steps and of attempts yield is left out;
  - each function is taken out of the tuples of checks and warnings;
  - each condition in those functions, and in those that they rest on, is turned round, and loses each of its parts;
  - each field of the State is left out of what is compared with what was read back;
  - every raise is left out, and every statement that verifies, compares, or reports an error.
The copy is tested in a mount namespace in which nothing of the system but temporary directories (and an empty /srv) can be written: a mutant
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
ROWS = 'before', 'after', 'regain', 'rows_of_drop', 'rows_to_regain', 'calls_without_effect'
TUPLES = 'CHECKS', 'WARNINGS', 'DOUBTS', 'WARNINGS_OF_CHECK', 'checks', 'warnings', 'doubts'
# Functions whose conditions decide as those of the checks do, and are no checks.
RESTS_ON = """
    ids_clear_capabilities capabilities_to_raise is_another sets_capabilities sets_keepcaps clears_keepcaps
    inheritable_early ambient_to_lower ambient_to_raise missing_of is_mapped maps_every_id is_mapped_by_trial
    can_stay descriptors_that_matter is_memory_of_another steps_and_attempts is_what_the_last_drop_left unshare_and_look
    rights why_not securebits goal keeps_everything fields_asked account_for changes_root forbids_dumps already_held find_writers
    allowed_writers beyond_account powerful may_rewrite is_rewritable strangers overridden_root gifts rewritable
    waypoint_of writers_on writers_of_jail has_own_group list_descriptors possible_descriptors path_of_descriptor type_of_descriptor opens_files close_verified
    verify must_fail compare settle become carry_out set_mask handlers_are_blocked wait_for_one_thread unshare threads
    may_set_groups capability_sets asked_bit_by_bit filesystem_id ids_are_clear pids_of_cgroup names_an_unclear_id may_have_been_put_there is_shared read wanted_fields as_wanted mark places_to_expect
""".split()
CALLS = ('verify', 'must_fail', 'compare', 'close_verified', 'wrong', 'report', 'set_user', 'reset_signals', 'raise_refusals', 'refuse_unseen', 'unshare', 'disable')
# The quick ones first.
TESTS = [
    ['test_warnings.py', 'test_steps.py'],
    ['test_linux.py', '-k', 'not half_way'],
    ['test_faults.py', '-k', 'for_good'],
    ['test_messages.py'],
    ['test_reach.py'],
    ['test_capability_text.py', '-k', 'not thousand and not proposals'],
    ['test_start_states.py'],
    ['test_held.py'],
    ['test_audit.py'],
    ['test_names.py'],
    ['test_regain.py', 'test_without_libcap.py'],
    ['test_cli.py'],
    ['test_config.py'],
    ['test_vendoring.py'],
    ['test_solaris.py'],
    ['test_later.py'],
    ['test_surroundings.py', '-k', 'not memory'],
    ['test_faults.py', '-k', 'not whatever and not table and not for_good'],
    ['test_faults.py', '-k', 'whatever'],
]
OF_READING = 'test_config.py', 'test_messages.py', 'test_cli.py', 'test_linux.py', 'test_audit.py'
SLOW = 'test_faults.py', 'test_surroundings.py', 'test_later.py', 'test_vendoring.py', 'test_solaris.py'
# The first to try, by the name of what is changed.
FIRST = [
    ('test_faults.py', 'verify must_fail carry_out read capability_sets asked_bit_by_bit strange_answer filesystem_id '
     'capabilities_of_kernel close_verified must_be_at_root compare threads'),
    ('test_capability_text.py', 'clause change flags names name read_capabilities strange_character'),
    ('test_audit.py', 'audit_process refuse_unseen asked_of_another what_is_unseen places_to_expect wanted_fields '
     'audit_verb answer_of_audits pids_to_audit pids_of_cgroup pids_in_cgroup pids_listed_in raise_unless_gone look '
     'look_or_refuse every_task is_complete opens_files descriptors_of mark as_wanted differences'),
    ('test_vendoring.py', 'make_solaris this_platform'),
    ('test_cli.py', 'take main run run_verb exec_verb status_verb plan_verb check_verb hint pid_of file_of'),
    ('test_surroundings.py', 'present_mask set_mask raise_if_of_a_handler restore end_process'),
]


QUICK = '--quick' in sys.argv

# What no test can see, and why: (the beginning of the label, its end).
EXCUSED = {
    ('row in rows_of_drop', "posix.chdir, '/'"):
        'fchdir has made it the current directory; the comparison after it tells if that ever changes',
    ('raise in file_contents_of', 'raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))'):
        'only a file of tracefs answers so, which few systems mount; without it the next line raises TypeError',
    ('part of a condition in may_rewrite', 'own_group is not None'):
        'no Writer is of the group None, so one more identity changes nothing',
    ('part of a condition in calls_blocked', 'not platform.may_be_filtered()'):
        'without a filter the kernel answers, and the calls are only spared',
    ('part of a condition in io_uring_registered', 'OTHER_CALL_NUMBERS)'):
        'of machines that are not at hand: alpha and mips',
    ('part of a condition in command_may_shed_the_set', 'case.security.chroot is None'):
        'then command_sheds_the_set refuses',
    ('part of a condition in rows_to_regain', '0 not in goal.uid'):
        'the stand-in refuses what is not tried then; whether every release of SunOS does is not known',
    ('part of a condition in list_descriptors', 'kind in TYPES_TO_LOOK_AT'):
        'it spares a look at sockets, pipes and devices, which no check asks about',
    ('part of a condition in become', 'command is None'):
        'it spares modules that a command does not need',
}


class Source:
    """A text that is parsed, and copies of it with one thing changed."""

    def __init__(self, text):
        self.data = text.encode()
        self.tree = ast.parse(text)
        self.starts = [0]
        for line in self.data.splitlines(True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node):
        return (self.starts[node.lineno - 1] + node.col_offset,
                self.starts[node.end_lineno - 1] + node.end_col_offset)

    def text_of(self, node):
        start, stop = self.span(node)
        return self.data[start:stop].decode()

    def replaced(self, node, text):
        start, stop = self.span(node)
        return (self.data[:start] + text.encode() + self.data[stop:]).decode()

    def inserted_before(self, statement, text):
        start, _ = self.span(statement)
        indent = ' ' * statement.col_offset
        return (self.data[:start] + (text + '\n' + indent).encode() + self.data[start:]).decode()

    def label(self, node, kind):
        return '%s, line %d: %s' % (kind, node.lineno, ' '.join(self.text_of(node).split())[:90])


def mutants(text):
    """(label, the source with one thing changed)"""
    source = Source(text)
    listed = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and name_of(node.targets[0]) in TUPLES:
            for function in node.value.elts:
                listed.add(function.id)
                yield from of_tuple(source, node, function)
    for function in ast.walk(source.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in own_nodes(function):
            yield from of_statement(source, function, node)
            if function.name in listed or function.name in ROWS or function.name in RESTS_ON:
                yield from of_condition(source, function, node)
        if function.name == 'verify':
            yield from of_fields(source, function)


def name_of(target):
    return getattr(target, 'id', getattr(target, 'attr', ''))


def own_nodes(function):
    """Of a function, but not of those inside it, which come by themselves."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))


def of_tuple(source, assignment, function):
    rest = [source.text_of(one) for one in assignment.value.elts if one is not function]
    yield (source.label(function, 'entry of %s' % name_of(assignment.targets[0])),
           source.replaced(assignment.value, '(%s)' % ''.join(one + ', ' for one in rest)))


def of_statement(source, function, node):
    where = ' in ' + function.name
    if isinstance(node, ast.Raise) and node.exc is not None:
        yield source.label(node, 'raise' + where), source.replaced(node, 'pass')
    elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Yield, ast.YieldFrom)):
        if function.name in ROWS:
            yield source.label(node, 'row' + where), source.replaced(node, 'yield from ()')
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if name_of(node.value.func) in CALLS or node.value.args and name_of(node.value.args[0]) in CALLS:
            yield source.label(node, 'call' + where), source.replaced(node, 'pass')


def of_condition(source, function, node):
    """Turned round, and without each of its parts."""
    where = ' in ' + function.name
    if isinstance(node, (ast.If, ast.IfExp)):
        yield (source.label(node.test, 'condition turned round' + where),
               source.replaced(node.test, 'not (%s)' % source.text_of(node.test)))
    if isinstance(node, ast.BoolOp):
        operator = ' and ' if isinstance(node.op, ast.And) else ' or '
        for part in node.values:
            rest = [source.text_of(one) for one in node.values if one is not part]
            yield (source.label(part, 'part of a condition' + where),
                   source.replaced(node, '(%s)' % operator.join('(%s)' % one for one in rest)))


def of_fields(source, verify):
    """The loop over the differences passes over one."""
    loop, = [node for node in verify.body if isinstance(node, ast.For)]
    name = loop.target.elts[0].id
    for field in fields_of(source.tree):
        yield ('field %s of what is read back' % field,
               source.inserted_before(loop.body[0], 'if %s == %r:\n%scontinue' % (name, field, ' ' * 12)))


def fields_of(tree):
    """Those of Linux."""
    calls, = [node for node in tree.body if getattr(node, 'name', '') == 'LinuxCalls']
    for node in calls.body:
        if isinstance(node, ast.Assign) and name_of(node.targets[0]) == 'fields':
            return [one.value for one in node.value.elts]


def confine():
    """A mount namespace of its own, read-only but for temporary directories."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(*args):
        if libc.mount(*args):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(args))
    if libc.unshare(0x20000):
        raise OSError(ctypes.get_errno(), 'unshare')
    mount(b'none', b'/', None, 16384 | 1 << 18, None)       # MS_REC | MS_PRIVATE
    for place, mode in (b'/tmp', b'mode=1777'), (b'/var/tmp', b'mode=1777'), (b'/srv', b'mode=755'):
        mount(b'tmpfs', place, b'tmpfs', 0, mode)
    mount(b'none', b'/', None, 32 | 4096 | 1, None)         # MS_REMOUNT | MS_BIND | MS_RDONLY


def first_of_state(source):
    return next(node.lineno for node in ast.parse(source).body if getattr(node, 'name', '') == 'State')


def tests_for(is_reading, label):
    """TESTS in the order in which they are likely to see it: what is read before there is a State is not seen by all."""
    first = 'test_config.py' if is_reading else TESTS[0][0]
    if label.startswith(('row', 'field')) and not QUICK:
        first = 'test_faults.py'
    changed = label.partition(', line ')[0].rpartition(' ')[2]
    for file, names in FIRST:
        if changed in names.split() and not is_reading and not (QUICK and file in SLOW):
            first = file
    for words in sorted(TESTS, key=lambda words: (words[0] != first or words[-1] in ('whatever', 'for_good'))):
        is_slow = words[0] in SLOW and words[-1] != 'for_good'
        if QUICK and is_slow or is_reading and words[0] not in OF_READING:
            continue
        if not is_reading and words[0] == 'test_config.py':
            continue
        yield words


def verdict(python, number, label, source):
    """(label, the test file that kills it, or '')."""
    place = '/tmp/mutant%d' % number
    shutil.copytree('/tmp/original', place)
    try:
        with open(place + '/capdrop.py', 'w') as file:
            file.write(source)
        line = int(label.partition(', line ')[2].partition(':')[0] or 10 ** 6)
        for words in tests_for(is_reading=line < first_of_state(source), label=label):
            files = ['tests/' + word if word.endswith('.py') else word for word in words]
            command = [python, '-B', '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', '--tb=line',
                       '--basetemp=%s/t' % place]
            known = [word for path in BROKEN for word in ('--deselect', path)]
            done = subprocess.Popen(command + files + known, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    start_new_session=True)
            try:
                out = done.communicate(timeout=400)[0].decode('utf-8', 'replace')
            except subprocess.TimeoutExpired:
                os.killpg(done.pid, 9)
                return label, 'did not end'
            if done.returncode:
                lines = [line for line in out.splitlines() if line.startswith(('FAILED', 'ERROR'))]
                return label, (lines or [words[0]])[-1][:120]
        return label, ''
    finally:
        shutil.rmtree(place, ignore_errors=True)


def excuse_for(label):
    for (first, last), reason in EXCUSED.items():
        if label.startswith(first) and label.endswith(last):
            return reason
    return ''


BROKEN = []     # tests that fail without any mutation


def main(words):
    if {'-h', '--help'} & set(words):
        return print(__doc__)
    jobs = int(words.pop(words.index('--jobs') + 1)) if '--jobs' in words else os.cpu_count() or 1
    python = words.pop(words.index('--python') + 1) if '--python' in words else sys.executable
    labels = words.pop(words.index('--labels') + 1) if '--labels' in words else ''
    with open(os.path.join(TOP, 'capdrop.py'), encoding='utf-8') as file:
        found = list(mutants(file.read()))
    if labels:
        with open(labels, encoding='utf-8') as file:
            wanted = file.read().splitlines()
        found = [one for one in found if one[0] in wanted]
    chosen = [word for word in words if not word.startswith('--')]
    found = [one for one in found if not chosen or any(word in one[0] for word in chosen)]
    if '--list' in words:
        print('\n'.join(label for label, _ in found))
        return 0
    confine_and_copy()
    files = sorted({'tests/' + words[0] for words in TESTS if not QUICK or words[0] not in SLOW})
    sound = subprocess.run([python, '-B', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--tb=no', '-rfE',
                            '--basetemp=/tmp/t'] + files,
                           cwd='/tmp/original', stdout=subprocess.PIPE).stdout.decode('utf-8', 'replace')
    BROKEN.extend(line.partition(' ')[2].partition(' - ')[0] for line in sound.splitlines() if line.startswith(('FAILED', 'ERROR')))
    print('%d mutants; without any: %s' % (len(found), sound.splitlines()[-1]))
    for path in BROKEN:
        print('left out, it fails anyway: %s' % path)
    start, survivors = time.time(), []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(verdict, python, number, *one) for number, one in enumerate(found)]
        for one in concurrent.futures.as_completed(running):
            label, killer = one.result()
            reason = excuse_for(label)
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
