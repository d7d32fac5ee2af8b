"""capdrop.py as it is vendored: one file, alone, on any Python from 3.6, that imports late and nothing of it during a drop."""
import ast
import os
import re
import shutil
import sys
import warnings

import pytest

from conftest import BIND, SCRIPT, TOP, ends, fields, need, need_root, run_command

NEVER = ('re', 'argparse', 'enum', 'dataclasses', 'typing', 'json', 'traceback', 'ctypes.util', 'subprocess', 'difflib',
         'solaris_priv', 'logging', 'collections', 'inspect', 'contextlib', 'functools', 'getopt', 'optparse', 'pathlib')
linux = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')


@pytest.fixture
def alone(tmp_path):
    directory = tmp_path / 'empty'
    directory.mkdir()
    shutil.copy(SCRIPT, str(directory / 'capdrop.py'))
    return str(directory)


def python(program, *args, **options):
    """A program run with neither site-packages nor environment; %r in it is the directory of capdrop.py."""
    return run_command([sys.executable, '-I', '-S', '-c', program] + list(args), **options)


@linux
def test_alone_in_an_empty_directory_it_does_its_job(alone):
    need_root()
    done = run_command([sys.executable, '-I', '-S', alone + '/capdrop.py', 'exec', '-q', '--user', '1111', '--group', '4321',
                        '--capabilities', 'cap_net_bind_service+ep', '--', '/bin/cat', '/proc/self/status'], cwd=alone, env={})
    assert (done.returncode, done.stderr) == (0, '')
    assert fields(done.stdout) == ends(1111, 4321, caps=BIND, CapInh=BIND, CapAmb=BIND)


@linux
def test_beside_a_program_it_does_its_job(alone):
    need_root()
    done = python('import os, sys; sys.path.insert(0, %r); import capdrop; capdrop.drop(capdrop.Security(user="1111", '
                  'group="4321", capabilities="cap_net_bind_service+ep")); '
                  'os.write(1, os.read(os.open("/proc/self/status", os.O_RDONLY), 8192))' % alone)
    assert (done.returncode, done.stderr) == (0, '')
    assert fields(done.stdout) == ends(1111, 4321, caps=BIND)


def test_it_is_one_program_however_it_is_started(alone):
    wanted = run_command([sys.executable, '-I', '-S', alone + '/capdrop.py', '-h'])
    assert wanted.returncode == 0 and wanted.stdout.startswith('Give up root')
    for command in [sys.executable, 'capdrop.py', '-h'], [sys.executable, '-m', 'capdrop', '-h'], [
            sys.executable, '-c', 'import capdrop, sys; sys.exit(capdrop.main(["-h"]))']:
        done = run_command(command, cwd=alone)
        assert (done.returncode, done.stdout, done.stderr) == (0, wanted.stdout, '')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """`pip install .` into a directory of its own."""
    top, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('target')
    for name in 'pyproject.toml', 'README.md', 'capdrop.py', 'solaris_priv.py':
        shutil.copy(os.path.join(TOP, name), str(top))
    shutil.copytree(os.path.join(TOP, 'docs'), str(top / 'docs'))
    done = run_command([sys.executable, '-m', 'pip', 'install', '--quiet', '--target', str(target), str(top)])
    need(done.returncode == 0, 'needs pip, and what pip gets: ' + done.stderr.strip().rpartition('\n')[2])
    return str(target)


with_pip = pytest.mark.skipif(sys.version_info < (3, 7), reason='setuptools that reads pyproject.toml needs Python 3.7')


@linux
@with_pip
def test_installed_command_does_its_job_and_imports_no_more_than_that(installed):
    need_root()
    planted = os.path.join(installed, 'bin', 'capdrop.py')
    with open(planted, 'w') as file:
        file.write('raise SystemExit("the module beside the command ran")')
    command = [os.path.join(installed, 'bin', 'capdrop'), 'exec', '-q', '--user', '1111', '--group', '4321',
               '--capabilities', 'cap_net_bind_service+ep', '--', '/bin/cat', '/proc/self/status']
    try:
        for how in [], [sys.executable, '-S', '-X', 'importtime']:
            done = run_command(how + command, env={'PYTHONPATH': installed})
            assert done.returncode == 0, done.stderr
            assert fields(done.stdout) == ends(1111, 4321, caps=BIND, CapInh=BIND, CapAmb=BIND)
            imported = set(re.findall(r'^import time: .*\| +(\S+)$', done.stderr, re.M))
            assert ('capdrop' in imported) == bool(how) and not imported & set(NEVER)
    finally:
        os.remove(planted)


@with_pip
def test_installing_brings_both_modules_the_command_and_its_page(installed):
    for name in 'capdrop.py', 'solaris_priv.py', 'share/man/man8/capdrop.8':
        assert os.path.getsize(os.path.join(installed, name))
    with open(os.path.join(installed, 'bin', 'capdrop')) as file:
        assert file.readline() == '#!%s\n' % sys.executable
    done = run_command([os.path.join(installed, 'bin', 'capdrop'), '--version'], env={'PYTHONPATH': installed})
    assert (done.returncode, done.stdout) == (0, 'capdrop 1.0\n')


LOADED = """
import os, sys
sys.path.insert(0, %r)
bare = set(sys.modules)
import capdrop
def tell(*_):
    os.write(1, ' '.join(sorted(set(sys.modules) - bare)).encode())
    os._exit(0)
"""
BY_EXEC = LOADED + """
import posix
posix.execve = tell
capdrop.main(['exec', '-q', '--group=4321', sys.argv[1], '--', '/bin/true'])
"""
BY_DROP = LOADED + """
capdrop.drop(capdrop.load(sys.argv[1]))
tell()
"""
BY_HAND = LOADED + """
capdrop.drop(capdrop.Security(user='1111', group='4321', supplemental_groups=['8'], capabilities='cap_net_bind_service+ep'))
tell()
"""
BY_CHECK = LOADED + """
assert capdrop.main(['check', '-q', '--group=4321', sys.argv[1]]) == 0
tell()
"""


@linux
@pytest.mark.parametrize('program', [BY_EXEC, BY_DROP, BY_HAND, BY_CHECK], ids=['exec', 'drop of a file', 'drop', 'check'])
def test_what_goes_well_needs_few_modules(program, alone, tmp_path):
    need_root()
    conf = tmp_path / 'my.conf'
    conf.write_text('# one\nSecurity {\n user = 1111\n group = 4321\n supplemental_groups = ( "8" )\n'
                    ' capabilities = "cap_net_bind_service+ep"\n}\nThreads { size = 4 }\n')
    done = python(program % alone, str(conf))
    assert (done.returncode, done.stderr) == (0, '')
    loaded = set(done.stdout.split())
    assert 'capdrop' in loaded and 'ctypes' in loaded
    assert not loaded & set(NEVER)


# Every import shows in the trace as an access to /IMPORT/NAME, the end of a drop as one to /END.
SPY = """
import os, sys
sys.path.insert(0, %r)
import capdrop
class Spy:
    def find_spec(self, name, *_):
        os.access('/IMPORT/' + name, 0)
    find_module = find_spec
sys.meta_path.insert(0, Spy())
sys.argv.pop(0)
security = capdrop.Security(user='1111', group='4321', supplemental_groups=['8'], capabilities='cap_net_bind_service+ep',
                            chroot=sys.argv[1] if sys.argv[1:] else None)
if sys.argv[0] == 'drop':
    capdrop.drop(security)
    os.access('/END', 0)
else:
    capdrop.launch(security, ['cat'], env={'PATH': '/nowhere:/usr/bin:/bin'})
"""
STEP = re.compile(r'(setgroups|setresgid|setresuid|capset|chroot|fchdir|prctl\((PR_SET_|PR_CAPBSET_DROP|'
                  r'PR_CAP_AMBIENT, PR_CAP_AMBIENT_(CLEAR|RAISE)))')
OPENS = re.compile(r'open|creat|.*"/IMPORT/|.*readlink|getdents|socket|clone|fork|vfork|mmap\(.*PROT_EXEC')


@linux
@pytest.mark.parametrize('where', ['', 'in a jail'])
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_nothing_is_imported_or_opened_from_the_first_step_to_the_last_check(verb, where, alone, jail, tmp_path):   # noqa: F811
    need_root()
    need(shutil.which('strace'), 'needs strace')
    trace = str(tmp_path / 'trace')
    args = [verb] + [str(jail)] * bool(where)
    done = run_command(['strace', '-qq', '-o', trace, '-e', 'signal=none', sys.executable, '-I', '-S', '-c', SPY % alone] + args)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    lines = open(trace, errors='replace').read().splitlines()
    # the first step; calls before it ask beforehand, and change nothing
    first = next(n for n, line in enumerate(lines) if line.startswith('prctl(PR_SET_KEEPCAPS, 1'))
    end = next(n for n, line in enumerate(lines) if n > first and (line.startswith('execve(') or '"/END"' in line))
    assert [line for line in lines[:first] if '"/IMPORT/' in line]      # the spy is seen where it may be
    during = lines[first:end]
    assert len([line for line in during if STEP.match(line)]) > 10
    assert not [line for line in during if OPENS.match(line)]
    reads = [line for line in during if line.startswith(('getresuid', 'getresgid', 'getgroups', 'capget'))]
    assert len(reads) >= 8                      # all of it twice
    assert max(n for n, line in enumerate(during) if STEP.match(line) and line.endswith(' = 0')) < during.index(reads[0])


@linux
def test_nothing_is_run_by_it_as_root(alone, tmp_path):
    need_root()
    need(shutil.which('strace'), 'needs strace')
    trace = str(tmp_path / 'trace')
    run_command(['strace', '-f', '-qq', '-o', trace, '-e', 'trace=execve,execveat', sys.executable, '-I', '-S',
                 alone + '/capdrop.py', 'exec', '-q', '--user', '1111', '--group', '4321', '--', '/bin/true'])
    with open(trace) as file:
        assert re.findall(r'execve\("([^"]*)"', file.read()) == [sys.executable, '/bin/true']


IMPORT = """
import gc, os, signal, sys
sys.path.insert(0, %r)
def everything():
    handlers = [signal.getsignal(n) for n in range(1, signal.NSIG)]
    fds = [fd for fd in range(64) if not isinstance(fstat(fd), OSError)]
    return (list(sys.path), sys.meta_path[:], dict(os.environ), os.getcwd(), gc.isenabled(), gc.get_threshold(), handlers, fds,
            sys.excepthook, signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getpid())
def fstat(fd):
    try: return os.fstat(fd)
    except OSError as e: return e
before = everything()
import capdrop
assert everything() == before
assert '_ctypes' not in sys.modules and 'ctypes' not in sys.modules
sys.stdout.write(open('/proc/self/maps').read() if os.path.exists('/proc/self/maps') else 'no maps')
"""


def test_importing_has_no_effect_and_loads_no_library(alone):
    done = python(IMPORT % alone)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout and 'libcap' not in done.stdout and 'libffi' not in done.stdout


def test_reading_a_configuration_loads_no_library(alone, tmp_path):
    (tmp_path / 'my.conf').write_text('Security { user = nobody capabilities = "cap_kill+ep" }')
    done = python('import sys; sys.path.insert(0, %r); import capdrop; s = capdrop.load(%r); assert "ctypes" not in sys.modules; '
                  'print(s.user)' % (alone, str(tmp_path / 'my.conf')))
    assert (done.returncode, done.stdout, done.stderr) == (0, 'nobody\n', '')


def test_another_system_is_told_what_is_possible(alone):
    done = python('import sys; sys.path.insert(0, %r); sys.platform = "darwin"; import capdrop\n'
                  'assert capdrop.loads("Security { user = x }").user == "x"\n'
                  's = capdrop.Security(user="0")\n'
                  'for call in lambda: capdrop.plan(s), lambda: capdrop.drop(s), capdrop.state:\n'
                  '  try: call()\n'
                  '  except capdrop.RefusedError as e: assert "darwin" in str(e) and "Linux" in str(e)\n'
                  '  else: assert 0\n'
                  'sys.exit(capdrop.main(["check", "--user", "x"]))' % alone)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'darwin' in done.stdout


NEWER = {       # what Python 3.6 does not have, and a compiler does not see
    '.isascii', '.removeprefix', '.removesuffix', '.fromisoformat', '.bit_count', '.add_note', '.is_relative_to', '.hardlink_to',
    'time.time_ns', 'time.monotonic_ns', 'time.perf_counter_ns', 'contextlib.nullcontext', 'os.pidfd_open', 'os.memfd_create',
    'os.waitstatus_to_exitcode', 'os.posix_spawn', 'os.unshare', 'os.setns', 'os.eventfd', 'os.close_range', 'sys.addaudithook',
    'sys.audit', 'sys.orig_argv', 'sys.stdlib_module_names', 'functools.cache', 'functools.cached_property', 'math.prod',
    'itertools.pairwise', 'itertools.batched', 'gc.freeze', 'signal.valid_signals', 'signal.pidfd_send_signal'}


def source():
    with open(SCRIPT, encoding='utf-8') as file:
        return file.read()


def test_the_source_compiles_here_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        compile(source(), SCRIPT, 'exec', dont_inherit=True)


def test_the_source_uses_nothing_newer_than_python_36():
    options = {'feature_version': (3, 6)} if sys.version_info >= (3, 8) else {}
    tree = ast.parse(source(), **options)
    nodes = list(ast.walk(tree))
    assert not [node for node in nodes if type(node).__name__ in ('NamedExpr', 'Match', 'TryStar', 'TypeAlias', 'TemplateStr')]
    assert not [node.lineno for node in nodes if isinstance(node, ast.FunctionDef) and getattr(node.args, 'posonlyargs', ())]
    used = [(name, node.lineno) for node in nodes if isinstance(node, ast.Attribute)
            for name in ('.' + node.attr, '%s.%s' % (getattr(node.value, 'id', '').lstrip('_'), node.attr)) if name in NEWER]
    assert not used
    imported = [alias.name for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]
    assert not set(imported) & {'annotations', 'dataclasses', 'contextvars', 'importlib.metadata', 'importlib.resources',
                                'graphlib', 'zoneinfo', 'tomllib', 'tomli'}


def test_the_source_needs_no_library_but_the_standard_one():
    own = {'capdrop', 'solaris_priv'}
    names = set()
    for node in ast.walk(ast.parse(source())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.partition('.')[0])
    where = os.path.dirname(os.path.realpath(os.__file__))
    for name in names - own - set(sys.builtin_module_names):
        module = __import__(name)
        path = os.path.realpath(getattr(module, '__file__', where))
        assert path.startswith(where) and 'site-packages' not in path or 'lib-dynload' in path, name


def test_it_says_its_licence():
    assert 'SPDX-License-Identifier: MIT' in source()[:200]


def test_on_sunos_the_file_that_is_missing_is_named(tmp_path):
    shutil.copy(SCRIPT, str(tmp_path / 'capdrop.py'))
    program = ('import sys; sys.platform = "sunos5"; sys.path.insert(0, %r); import capdrop; '
               'sys.exit(capdrop.main(["check", "--user", "1111", "--group", "4321"]))' % str(tmp_path))
    done = run_command([sys.executable, '-I', '-c', program])
    assert (done.returncode, done.stderr) == (125, 'capdrop: on SunOS solaris_priv.py is needed beside capdrop.py\n')
