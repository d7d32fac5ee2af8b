"""Every command and program in README.md and docs/ runs as it is written there, in a copy of the tree, or says why not.

A block that this does not run has a comment on the line before it: <!-- not run by test_docs: REASON -->.  The reason
names the test that does, tests/FILE.py::NAME, or a file of tests that finds the block by its heading, or it is one.
"""
import ast
import collections
import ctypes
import glob
import os
import re
import shutil
import socket
import sys
import tarfile
import time
import zipfile

import pytest

import capdrop
from conftest import TOP, in_child, loopback_up, need, need_accounts_of_debian, need_root, run_command

PAGES = ['README.md'] + sorted(os.path.relpath(path, TOP) for path in glob.glob(os.path.join(TOP, 'docs', '*.md')))


Block = collections.namedtuple('Block', 'page heading language text mark number')
MARK = re.compile(r'<!-- not run by test_docs: (.*) -->$')


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as file:
        return file.read()


def blocks_of(page, text):
    """Every block of a page, fenced or (language None) indented; mark is its reason, number counts those alike."""
    found, counted, heading, above, mark, inside = [], collections.Counter(), '', '', None, None
    for line in text.splitlines(True) + ['']:
        fence, indented = line.startswith('```'), line.startswith('    ')
        if inside == 'fence':
            assert line, '%s: a block without an end below %s' % (page, heading)
            inside = None if fence else inside
        elif fence or indented and (mark or not above) and not inside:
            language = line[3:].strip() if fence else None
            counted[language] += 1
            found.append(Block(page, heading, language, [], mark and mark.group(1), counted[language]))
            inside = 'fence' if fence else 'indented'
        elif inside and not indented and line.strip():
            inside = None
        if inside and not (fence and inside == 'fence'):
            found[-1].text.append(line)
        elif line.startswith('#'):
            heading = line.strip('# \n')
        mark, above = MARK.match(line) if line.strip() else mark, line.strip()
    return [block._replace(text=''.join(block.text).rstrip() + '\n') for block in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page, read(page))]


def named(block):
    return pytest.param(block, id='%s-%s-%d' % (block.page, block.language or 'text', block.number))


LISTEN = 'python3 -Es listen.py\n'
TESTS = 'sh tests/run.sh\n'


def blocks(language):
    """Those that a test here runs.  Two have their own: LISTEN below, TESTS in .ci/run."""
    return [pytest.param(block.text, id='%s-%d' % (block.page, block.number)) for block in BLOCKS
            if block.language == language and not block.mark and block.text not in (LISTEN, TESTS)]


@pytest.fixture
def tree(tmp_path):
    """A copy of what a clone holds; what the documents keep in /etc is in its etc."""
    os.mkdir(str(tmp_path / 'tests'))
    os.mkdir(str(tmp_path / 'etc'))
    for name in 'capdrop.py', 'docs', 'tests/selftest.py':
        source = os.path.join(TOP, name)
        (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, str(tmp_path / name))
    return str(tmp_path)


@pytest.mark.parametrize('block', blocks('sh'))
def test_command_in_the_documents_runs(block, tree):
    need_root()
    need('install ' not in block or shutil.which('install'), 'needs install')
    for line in block.splitlines():             # it is root who runs them, on this machine
        allowed = 'python3 ', 'install -m 644 -o root docs/example.conf /etc/myd.conf'
        assert line.startswith(allowed), 'needs <!-- not run by test_docs: REASON --> on the line before it'
    if '/etc/myd.conf' in block and 'install' not in block:
        shutil.copy(os.path.join(tree, 'docs', 'example.conf'), os.path.join(tree, 'etc', 'myd.conf'))
    for line in block.splitlines():
        command = line.replace('/etc/myd.conf', tree + '/etc/myd.conf')
        done = run_command(['timeout', '100', 'sh', '-ec', command], cwd=tree)
        assert done.returncode == 0, (line, done.stderr)
        assert 'Traceback' not in done.stderr
        says_nothing = re.search('^install | (check|audit) ', line)         # where nothing is wrong
        assert done.stdout or says_nothing, line


def test_first_command_of_the_readme_shows_one_capability_and_nothing_of_root(tree):
    need_root()
    need_accounts_of_debian()
    command = [block.values[0] for block in blocks('sh')][0]
    output = run_command(['sh', '-c', command], cwd=tree).stdout
    pictured = [block.text for block in BLOCKS if block.page == 'README.md' and block.language is None][0]
    assert [line.split() for line in output.splitlines()] == [line.split() for line in pictured.splitlines()]
    shown = dict(line.split(':\t') for line in output.splitlines())
    assert shown['Uid'].split() == shown['Gid'].split() == ['1'] * 4
    assert shown['Groups'].strip() == ''
    assert {shown['Cap' + name] for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {'%016x' % (1 << 10)}
    assert shown['NoNewPrivs'] == '1'


def test_first_command_of_the_readme_runs_in_a_clone_of_another_user(tree):
    need_root()
    for directory, names, files in os.walk(tree):
        for name in [directory] + [os.path.join(directory, name) for name in names + files]:
            os.chown(name, 1000, 1000)
    os.chmod(tree, 0o700)
    command = [block.values[0] for block in blocks('sh')][0]
    done = run_command(['sh', '-c', command], cwd=tree)
    assert done.returncode == 0 and 'Uid:\t' in done.stdout, done.stderr
    done = run_command(['sh', '-c', 'python3 -I capdrop.py exec docs/example.conf -- id'], cwd=tree)
    assert done.returncode == 125 and 'install -m 644 -o root' in done.stderr      # as it goes on to say


def network_of_its_own():
    if not ctypes.CDLL(None).unshare(0x40000000):       # CLONE_NEWNET of linux/sched.h; a container may forbid it
        loopback_up()


def test_listener_of_the_readme_serves_port_25_as_an_ordinary_user(tree):
    need_root()
    need_accounts_of_debian()
    program, = [block.text for block in BLOCKS if (block.page, block.language) == ('README.md', 'python')]
    with open(os.path.join(tree, 'listen.py'), 'w') as file:
        file.write(program)
    assert [block.page for block in BLOCKS if block.text == LISTEN] == ['README.md']
    in_child(serves_port_25, tree)


def serves_port_25(tree):
    network_of_its_own()                        # where no connection of an earlier run still holds the port
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(tree)
            os.setgroups([24])                  # which it will warn of
            os.dup2(os.open('errors', os.O_WRONLY | os.O_CREAT), 2)
            os.execvp('python3', LISTEN.split())
        finally:
            os._exit(1)
    try:
        until = time.time() + 20
        while True:
            try:
                socket.create_connection(('127.0.0.1', 25), 5).close()
                break
            except OSError:
                assert time.time() < until and os.waitpid(pid, os.WNOHANG) == (0, 0)
                time.sleep(0.05)
        while capdrop.state(pid).uid != (1, 1, 1, 1):       # it listens before it drops
            assert time.time() < until and os.waitpid(pid, os.WNOHANG) == (0, 0)
            time.sleep(0.05)
        now = capdrop.state(pid)
        assert not now.permitted and not now.groups and now.no_new_privs
        socket.create_connection(('127.0.0.1', 25), 5).close()
        assert re.search('^listen.py: warning: .*supplementary groups that this process has, 24', read(tree, 'errors'), re.M)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_process_is_dumpable_again_as_safety_says(tree):
    need_root()
    program, = [block.text for block in BLOCKS if (block.page, block.language) == ('docs/safety.md', 'python')]
    *start, last = program.strip().splitlines()
    for lines, wanted in (start, 1), (start + [last], 0):
        with open(os.path.join(tree, 'dump.py'), 'w') as file:
            file.write('\n'.join(lines + ['open("/proc/self/environ").read()']))
        done = run_command(['python3', '-Es', 'dump.py'], cwd=tree)
        assert done.returncode == wanted and ('PermissionError' in done.stderr) == bool(wanted), done.stderr


def test_every_text_for_capabilities_in_linux_md_is_taken():
    texts = re.findall(r'^\| `"(.*?)"` \|', read('docs', 'linux.md'), re.M)
    assert len(texts) == 5
    for text in texts:
        capdrop.this_platform().parse(text)


@pytest.mark.parametrize('page', PAGES)
def test_links_between_the_documents_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#:]+)\)', read(page)):
        assert os.path.exists(os.path.join(TOP, os.path.dirname(page), target)), target


def test_every_page_is_reached_from_the_readme():
    reached, new = set(), {'README.md'}
    while new:
        reached |= new
        links = {os.path.normpath(os.path.join(os.path.dirname(page), target)) for page in new if page.endswith('.md')
                 for target in re.findall(r'\]\(([^)#:]+)', read(page))}
        new = links - reached
    assert set(PAGES) | {'docs/capdrop.8', 'docs/LICENSE'} <= reached


def test_stanza_in_the_readme_is_the_example():
    stanza = re.search(r'^    Security \{.*?^    \}', read('README.md'), re.M | re.S).group()
    shown, example = capdrop.loads(stanza), capdrop.load(os.path.join(TOP, 'docs', 'example.conf'))
    assert [getattr(shown, o) for o in capdrop.OPTIONS] == [getattr(example, o) for o in capdrop.OPTIONS]


def test_every_option_of_the_command_line_is_in_the_help_text_and_in_the_readme():
    readme = read('README.md')
    for option in capdrop.OPTIONS:
        assert '--' + option.replace('_', '-') in capdrop.__doc__ and '--' + option.replace('_', '-') in readme
    for verb in capdrop.VERBS:
        assert 'capdrop %s' % verb in capdrop.__doc__ and 'capdrop %s' % verb in readme


# ---------------------------------------------------------------------------- nothing escapes

def test_a_page_is_cut_into_its_blocks():
    text = '''# One

```sh
a

# b
```

## Two
<!-- not run by test_docs: because -->
```
    c
```
words
    go on

    d

      e

```sh
f
```
<!-- not run by test_docs: so -->

    g
- a list
'''
    assert [tuple(block)[1:] for block in blocks_of('page', text)] == [
        ('One', 'sh', 'a\n\n# b\n', None, 1), ('Two', '', '    c\n', 'because', 1),
        ('Two', None, '    d\n\n      e\n', None, 1), ('Two', 'sh', 'f\n', None, 2), ('Two', None, '    g\n', 'so', 2)]


@pytest.mark.parametrize('block', [named(block) for block in BLOCKS if block.language is not None])
def test_fenced_block_is_run_here_or_says_why_not(block):
    if block.mark is None:
        assert block.language in ('sh', 'python'), 'needs <!-- not run by test_docs: REASON --> on the line before it'
        if block.language == 'python':          # two that tests above start
            assert (block.page, block.number) in (('README.md', 1), ('docs/safety.md', 1)), (
                'no test runs it, or it does not say which')
    else:
        check_reason(block)


def check_reason(block):
    tests = re.findall(r'(tests/\w+\.py)(?:::(\w+))?', block.mark)
    assert tests or len(block.mark.split()) > 4, 'neither names a test nor says why: %s' % block.mark
    for file, name in tests:
        source = read(file)
        functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        assert os.path.basename(block.page) in source, '%s does not read %s' % (file, block.page)
        if name:
            assert name.startswith('test_') and name in functions, '%s has no test %s' % (file, name)
        else:
            assert re.search('[\'"]%s[\'"]' % re.escape(block.heading), source), (
                '%s has nothing to do with "%s"' % (file, block.heading))


def test_the_command_that_runs_the_tests_is_run_by_ci():
    assert [block.page for block in BLOCKS if block.text == TESTS] == ['README.md']
    assert 'sh tests/run.sh' in read('.ci', 'run')


BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))
"""


def test_packages_hold_the_licence_and_the_sdist_what_its_documents_need(tmp_path):
    """Built in a copy, by the setuptools that is there; what it calls deprecated it will refuse later."""
    setuptools = pytest.importorskip('setuptools')
    if int(setuptools.__version__.split('.')[0]) < 61:
        pytest.skip('needs setuptools from version 61 on, which reads pyproject.toml')
    place = str(tmp_path / 'copy')
    shutil.copytree(TOP, place, ignore=shutil.ignore_patterns('.git', '.venv', '__pycache__', '*.egg-info', 'build', 'dist'))
    for kind in 'sdist', 'wheel':
        done = run_command([sys.executable, '-c', BUILD, kind, str(tmp_path)], cwd=place)
        if re.search("No module named '(setuptools|wheel)'|invalid command 'bdist_wheel'|'setup.py'", done.stderr):
            pytest.skip('needs the modules setuptools, from version 61 on, and, before its version 70.1, wheel')
        assert done.returncode == 0 and 'SetuptoolsDeprecationWarning' not in done.stderr, done.stderr
    wheel, = glob.glob(str(tmp_path / '*.whl'))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licence, = [name for name in names if name.endswith('/LICENSE')]
        assert archive.read(licence).decode() == read('docs', 'LICENSE')
        assert {'capdrop.py', 'solaris_priv.py'} < set(names) and len(names) == 9
    sdist, = glob.glob(str(tmp_path / '*.tar.gz'))
    with tarfile.open(sdist) as archive:
        packed = {name.partition('/')[2] for name in archive.getnames()}
    needed = {os.path.relpath(os.path.join(directory, name), TOP) for top in ('docs', 'tests', '.ci')
              for directory, _, names in os.walk(os.path.join(TOP, top)) if '__pycache__' not in directory for name in names}
    assert needed | {'README.md', 'pyproject.toml', 'capdrop.py', 'solaris_priv.py'} <= packed


USAGES = re.findall(r'^(?:usage:)? +(capdrop \w+ .*?)   ', capdrop.__doc__, re.M)
SHELL = set('capdrop python python3 pip sh bash sudo docker podman systemctl systemd-run cd export cp install'.split())


def is_command(line):
    """Whether it is one for a shell, rather than configuration or a picture."""
    line = re.sub(r'^[$#] ', '', line.strip())
    words, table = line.split(), re.match(r'\S+  ', line)       # a name and what it is: configuration, or output
    if not words or len(words) > 1 and words[1][0] in '={':
        return False
    return bool(words[0] in SHELL or shutil.which(words[0]) and not table or
                re.search(r'\b(capdrop(\.py)?|python3?) ', line))


def is_synopsis(line):
    return any(' '.join(line.split()).startswith(usage + ' ') for usage in USAGES)


def test_commands_are_told_from_configuration():
    for line in 'ls -l', '$ ls', '# capdrop exec x -- y', 'python3 -I x', 'PATH=/ python3 -I x', 'cd /x':
        assert is_command(line), line
    for line in 'Security {', '  chroot = "/x"', '}', '# to the end', 'include "x"', '', '"mail" )', 'groups       8':
        assert not is_command(line), line
    assert len(USAGES) == len(capdrop.VERBS) and is_synopsis('    capdrop plan  FILE [--exec]        the system calls')
    assert not any(map(is_synopsis, ['capdrop plan x.conf --exec', 'capdrop exec FILE -- ls', 'capdrop status 17']))


@pytest.mark.parametrize('block', [named(block) for block in BLOCKS if block.language is None])
def test_indented_block_holds_no_command_but_a_synopsis_or_says_why(block):
    if block.mark is not None:
        return check_reason(block)
    for line in block.text.splitlines():
        assert not is_command(line) or is_synopsis(line), (
            'a command that no test runs; <!-- not run by test_docs: REASON --> on a line before it: ' + line)


@pytest.mark.parametrize('page', PAGES)
def test_command_within_a_sentence_has_a_command_and_options_that_exist(page):
    text = re.sub(r'^```.*?^```', '', read(page), flags=re.M | re.S)
    for code in re.findall(r'`(?:# |\$ )?(capdrop [^`]+)`', text):
        words = code.partition(' -- ')[0].split()[1:]
        assert words[0] in capdrop.VERBS or words[0].startswith('-'), code
        for option in [word.partition('=')[0] for word in words if word.startswith('--')]:
            assert re.search(option + r'\b(?!-)', capdrop.__doc__), code
