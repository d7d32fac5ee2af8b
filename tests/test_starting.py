"""The ways to start that docs/performance.md documents: its wrapper, and what happens to the
module that is compiled beside it.  Nothing here depends on a time."""
import glob
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys

import pytest

from conftest import SCRIPT, TOP, ends, fields, need, need_root, run_command
from test_docs import blocks_of, read

PLACE = '/usr/lib/myd'
BLOCKS = [block for block in blocks_of('docs/performance.md', read('docs', 'performance.md'))
          if block.heading == 'The fastest start, for appliances']
WRAPPER, = [block.text for block in BLOCKS if block.language == 'python']
BUILD, = [block.text for block in BLOCKS if block.language == 'sh']
CACHED = re.compile(r'^# code object from .*capdrop\.cpython-\d+\.pyc', re.M)
COMPILED = re.compile(r"^# code object from '?[^\n]*capdrop\.py'?$", re.M)


class Appliance:
    """What the page says to put into an image, below a directory."""

    def __init__(self, top):
        self.top = str(top)
        self.library = self.top + PLACE
        self.module = self.library + '/capdrop.py'
        self.cache = self.library + '/__pycache__'
        self.wrapper = self.top + '/myd'
        with open(self.wrapper, 'w') as file:
            file.write(self.placed(WRAPPER).replace('/usr/bin/python3', sys.executable))
        os.chmod(self.wrapper, 0o755)

    def placed(self, text):
        assert PLACE in text
        return text.replace(PLACE, self.library)

    def build(self, umask=0o022):
        """The commands of the page."""
        need(shutil.which('install'), 'needs install')
        script = 'umask %o\n%s' % (umask, self.placed(BUILD).replace(
            'python3', sys.executable))
        if sys.version_info < (3, 7):                   # as the page says, it has no such option
            script = script.replace(' --invalidation-mode checked-hash', '')
        done = run_command(['sh', '-ec', script], cwd=TOP)
        assert done.returncode == 0, done.stderr
        return self

    def start(self, *args, how=(), **options):
        return run_command(list(how) + [self.wrapper] + list(args), **options)

    def how_imported(self, *args, python=sys.executable):
        """'cached' or 'compiled', as -v tells it."""
        done = run_command([python, '-v', '-B', '-I', '-S', self.wrapper, '--version'] + list(args))
        assert (done.returncode, done.stdout) == (0, 'capdrop 1.0\n'), done.stderr
        assert bool(CACHED.search(done.stderr)) != bool(COMPILED.search(done.stderr))
        return 'cached' if CACHED.search(done.stderr) else 'compiled'

    def edit(self):
        """Another version, of the same size."""
        with open(self.module) as file:
            text = file.read()
        assert text.count("__version__ = '1.0'") == 1
        with open(self.module, 'w') as file:
            file.write(text.replace("__version__ = '1.0'", "__version__ = '7.7'"))

    def writable_by_others(self):
        found = []
        for path in [self.library] + glob.glob(self.library + '/**', recursive=True):
            if os.lstat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                found.append(path)
        return found


@pytest.fixture
def appliance(tmp_path):
    os.chmod(str(tmp_path), 0o755)
    return Appliance(tmp_path).build()


def other_pythons():
    """Interpreters that cannot use this one's bytecode."""
    paths = [shutil.which('python3.%d' % minor) for minor in range(6, 16)]
    paths += glob.glob(os.path.expanduser('~/.pyenv/versions/3.*/bin/python3'))
    code = 'import sys; print(sys.implementation.cache_tag)'
    found = {}
    for path in filter(None, paths):
        done = run_command([path, '-I', '-S', '-c', code])
        if done.returncode == 0:                # a shim of pyenv may stand for none
            found[done.stdout.strip()] = path
    found.pop(sys.implementation.cache_tag, None)
    return list(found.values())


def test_wrapper_drops_and_runs_its_command(appliance):
    need_root()
    done = appliance.start('exec', '-q', '--user', '1111', '--group', '4321', '--',
                           '/bin/cat', '/proc/self/status')
    assert done.returncode == 0, done.stderr
    assert fields(done.stdout) == ends(1111, 4321)


def test_wrapper_uses_what_was_compiled(appliance):
    assert appliance.how_imported() == 'cached'


def test_wrapper_is_isolated(appliance, tmp_path):
    """Nothing planted beside it, where it is started or in PYTHONPATH runs."""
    for name in 'capdrop', 'ctypes', 'gc':
        with open('%s/%s.py' % (appliance.top, name), 'w') as file:
            file.write('raise SystemExit("planted")')
    done = appliance.start('status', '-q', cwd=appliance.top, env={'PYTHONPATH': appliance.top})
    assert done.returncode == 0, done.stderr


def test_a_module_beside_capdrop_stands_behind_the_standard_library(appliance):
    with open(appliance.library + '/ctypes.py', 'w') as file:
        file.write('raise SystemExit("planted")')
    assert appliance.start('status', '-q').returncode == 0


@pytest.mark.skipif(sys.version_info < (3, 7), reason='Python 3.6 goes by time and size')
def test_a_changed_module_is_noticed(appliance):
    """Also where size and time of the file are as before: by its contents."""
    status = os.stat(appliance.module)
    appliance.edit()
    os.utime(appliance.module, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert appliance.start('--version').stdout == 'capdrop 7.7\n' or sys.version_info < (3, 7)
    os.utime(appliance.module)                  # Python 3.6 goes by time and size
    assert appliance.start('--version').stdout == 'capdrop 7.7\n'


@pytest.mark.skipif(sys.version_info < (3, 7), reason='Python 3.6 goes by the time')
def test_times_that_an_image_sets_anew_do_not_matter(appliance):
    """Layers of images, ostree and SOURCE_DATE_EPOCH give every file another time."""
    os.utime(appliance.module, (1, 1))
    assert appliance.how_imported() == 'cached'


def test_a_cache_that_goes_by_the_time_is_stale_then(appliance):
    """What the page says of the default."""
    py_compile.compile(appliance.module, doraise=True)
    assert appliance.how_imported() == 'cached'
    os.utime(appliance.module, (1, 1))
    assert appliance.how_imported() == 'compiled'


def test_starting_writes_nothing(appliance):
    """With what was compiled or without it, under any umask."""
    def listing():
        return sorted(glob.glob(appliance.library + '/**', recursive=True))
    before = listing()
    assert appliance.start('--version', how=['sh', '-c', 'umask 0; exec "$@"', 'sh']).returncode == 0
    assert listing() == before
    shutil.rmtree(appliance.cache)
    before = listing()
    assert appliance.start('--version', how=['sh', '-c', 'umask 0; exec "$@"', 'sh']).returncode == 0
    assert listing() == before


@pytest.mark.parametrize('umask', [0o022, 0o002, 0])
def test_only_root_may_write_what_was_built(umask, tmp_path):
    appliance = Appliance(tmp_path).build(umask)
    assert os.listdir(appliance.cache)
    assert appliance.writable_by_others() == []
    for path in appliance.library, appliance.cache:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_without_b_a_start_under_umask_0_makes_a_cache_for_everyone(appliance):
    """What the page warns of, and why -B stands in the wrapper."""
    shutil.rmtree(appliance.cache)
    command = ['sh', '-c', 'umask 0; exec "$@"', 'sh', sys.executable, '-I', '-S']
    env = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    code = 'import sys; sys.path.append(%r); import capdrop' % appliance.library
    subprocess.check_call(command + ['-c', code], env=env)
    assert stat.S_IMODE(os.stat(appliance.cache).st_mode) == 0o777
    assert appliance.cache in appliance.writable_by_others()


@pytest.mark.parametrize('compiled', [True, False], ids=['compiled', 'not compiled'])
def test_read_only_image(compiled, appliance):
    need_root()
    need(shutil.which('unshare') and shutil.which('mount'), 'needs unshare and mount')
    if not compiled:
        shutil.rmtree(appliance.cache)
    script = ('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && '
              '! touch "$0/x" 2>/dev/null && exec "$@"')
    command = ['unshare', '-m', 'sh', '-c', script, appliance.top]
    done = run_command(command + ['true'])
    need(done.returncode == 0, 'needs mounts: ' + done.stderr)
    done = run_command(command + [appliance.wrapper, 'exec', '-q', '--user', '1111', '--group',
                                  '4321', '--', '/bin/cat', '/proc/self/status'])
    assert done.returncode == 0, done.stderr
    assert fields(done.stdout) == ends(1111, 4321)


def test_another_python_compiles_at_every_start_and_is_right(appliance):
    """An upgrade of Python in place; until the image is built again."""
    pythons = other_pythons()
    need(pythons, 'needs another Python')
    before = os.listdir(appliance.cache)
    for python in pythons:
        assert appliance.how_imported(python=python) == 'compiled'
    assert os.listdir(appliance.cache) == before


def test_bytecode_alone_is_for_one_python(appliance, tmp_path):
    """What the page says of starting a .pyc."""
    target = str(tmp_path / 'capdrop.pyc')
    py_compile.compile(appliance.module, cfile=target, doraise=True)
    done = run_command([sys.executable, '-I', '-S', target, '--version'])
    assert (done.returncode, done.stdout) == (0, 'capdrop 1.0\n')
    appliance.edit()
    assert run_command([sys.executable, '-I', '-S', target, '--version']).stdout == 'capdrop 1.0\n'
    pythons = other_pythons()
    need(pythons, 'needs another Python')
    done = run_command([pythons[0], '-I', '-S', target, '--version'])
    assert done.returncode == 1
    assert 'Bad magic number' in done.stderr


def test_zipapp_and_m_work_as_well(tmp_path):
    directory = tmp_path / 'zip'
    directory.mkdir()
    shutil.copy(SCRIPT, str(directory))
    (directory / '__main__.py').write_text('import sys, capdrop\nsys.exit(capdrop.main())\n')
    target = str(tmp_path / 'capdrop.pyz')
    subprocess.check_call([sys.executable, '-m', 'zipapp', str(directory), '-o', target])
    for command in [target], ['-m', 'capdrop']:
        done = run_command([sys.executable] + command + ['--version'], cwd=str(directory))
        assert (done.returncode, done.stdout) == (0, 'capdrop 1.0\n'), done.stderr
        done = run_command([sys.executable] + command + ['exec'], cwd=str(directory))
        assert done.returncode == 125
