"""Every command and program in README.md and docs/ runs as it is written there, in a copy of the tree."""
import glob
import os
import re
import shutil
import socket
import sys
import time

import pytest

import capdrop
from conftest import TOP, need_root, run_command

PAGES = ['README.md'] + sorted(os.path.relpath(path, TOP) for path in glob.glob(os.path.join(TOP, 'docs', '*.md')))


def blocks(language):
    for page in PAGES:
        with open(os.path.join(TOP, page), encoding='utf-8') as file:
            for number, block in enumerate(re.findall(r'^```%s\n(.*?)^```' % language, file.read(), re.M | re.S), 1):
                if 'tests/run.sh' not in block:     # this is how the tests are run; .ci/run runs it
                    yield pytest.param(block, id='%s-%d' % (page, number))


@pytest.fixture
def tree(tmp_path):
    """A copy of what a clone holds, where anybody may read it."""
    os.mkdir(str(tmp_path / 'tests'))
    for name in 'capdrop.py', 'docs', 'tests/selftest.py':
        source = os.path.join(TOP, name)
        (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, str(tmp_path / name))
    return str(tmp_path)


@pytest.mark.parametrize('block', blocks('sh'))
def test_command_in_the_documents_runs(block, tree):
    need_root()
    for line in block.splitlines():
        done = run_command(['sh', '-ec', line], cwd=tree)
        assert done.returncode == 0, (line, done.stderr)
        assert 'Traceback' not in done.stderr
        assert done.stdout or ' check ' in line, line       # which says nothing where nothing is wrong


def test_first_command_of_the_readme_shows_one_capability_and_nothing_of_root(tree):
    need_root()
    command = [block.values[0] for block in blocks('sh')][0]
    shown = dict(line.split(':\t') for line in run_command(['sh', '-c', command], cwd=tree).stdout.splitlines())
    assert shown['Uid'].split() == shown['Gid'].split() == ['1'] * 4
    assert shown['Groups'].strip() == ''
    assert {shown['Cap' + name] for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {'%016x' % (1 << 10)}
    assert shown['NoNewPrivs'] == '1'


def test_listener_of_the_readme_serves_port_25_as_an_ordinary_user(tree):
    need_root()
    program = [block.values[0] for block in blocks('python')][0]
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(tree)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.modules.pop('socketserver', None)
            exec(compile(program, 'README.md', 'exec'), {})
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
        assert list(now.permitted) == ['cap_net_bind_service'] and not now.groups and now.no_new_privs
        socket.create_connection(('127.0.0.1', 25), 5).close()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize('page', PAGES)
def test_links_between_the_documents_lead_somewhere(page):
    with open(os.path.join(TOP, page), encoding='utf-8') as file:
        for target in re.findall(r'\]\(([^)#:]+)\)', file.read()):
            assert os.path.exists(os.path.join(TOP, os.path.dirname(page), target)), target


def test_stanza_in_the_readme_is_the_example():
    with open(os.path.join(TOP, 'README.md'), encoding='utf-8') as file:
        stanza = re.search(r'^    Security \{.*?^    \}', file.read(), re.M | re.S).group()
    shown, example = capdrop.loads(stanza), capdrop.load(os.path.join(TOP, 'docs', 'example.conf'))
    assert [getattr(shown, o) for o in capdrop.OPTIONS] == [getattr(example, o) for o in capdrop.OPTIONS]


def test_every_option_of_the_command_line_is_in_the_help_text_and_in_the_readme():
    with open(os.path.join(TOP, 'README.md'), encoding='utf-8') as file:
        readme = file.read()
    for option in capdrop.OPTIONS:
        assert '--' + option.replace('_', '-') in capdrop.__doc__ and '--' + option.replace('_', '-') in readme
    for verb in capdrop.VERBS:
        assert 'capdrop %s' % verb in capdrop.__doc__ and 'capdrop %s' % verb in readme
