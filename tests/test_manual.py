"""docs/capdrop.8: clean for both formatters, of one mind with `capdrop -h` and with the program, its examples run."""
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import capdrop
from conftest import SCRIPT, TOP, need, need_accounts_of_debian, need_root, run, run_command

MANUAL = os.path.join(TOP, 'docs', 'capdrop.8')
CHANGES = os.path.join(TOP, 'docs', 'changes.md')
MONTHS = 'January February March April May June July August September October November December'.split()


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def section(name, level='Sh'):
    text = re.split(r'^\.%s %s$' % (level, name), read(MANUAL), flags=re.M)[1]
    return re.split(r'^\.S[hs] ', text, flags=re.M)[0]


def plain(text):
    """Source of the page as it is printed, where it stands for itself."""
    for escape, character in (r'\-', '-'), (r'\(aq', '\''), (r'\(dq', '"'), (r'\&', ''):
        text = text.replace(escape, character)
    assert '\\' not in text, text
    return text


def synopsis():
    """command: the options that the page says it takes, '' for the line without a command."""
    found = {}
    for text in section('SYNOPSIS').split('.Nm\n')[1:]:
        command = re.findall(r'^\.Cm (\w+)$', text, re.M)
        found[command[0] if command else ''] = {
            '--' + long if long else '-' + short
            for long, short in re.findall(r'Fl (?:Fl ([a-z-]+)|(\w)\b)', text)}
    return found


def options_of(text):
    """--name and -x in running text."""
    return set(re.findall(r'(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z])\b', text))


def page_options():
    """Every option with a list item of its own."""
    items = re.findall(r'^\.It (Fl .*)$', section('Options', 'Ss'), re.M)
    return {'--' + long if long else '-' + short
            for item in items for long, short in re.findall(r'Fl (?:Fl )?(?:([a-z-]{2,})|(\w))', item)}


def mandoc(*args):
    need(shutil.which('mandoc'), 'needs mandoc')
    return run_command(['mandoc'] + list(args) + [MANUAL])


def test_mandoc_finds_nothing_to_remark_on():
    done = mandoc('-T', 'lint')
    # whether a manual that is referred to is installed is about this machine
    about_the_page = [line for line in (done.stdout + done.stderr).splitlines()
                      if 'referenced manual not found' not in line and 'outdated mandoc.db' not in line]
    assert about_the_page == []


@pytest.mark.parametrize('macros', ['-mdoc', '-man', '-mandoc'])
def test_groff_warns_of_nothing(macros):
    need(shutil.which('groff'), 'needs groff')
    done = run_command(['groff', macros, '-ww', '-Tutf8', MANUAL])
    assert (done.returncode, done.stderr) == (0, '')
    assert 'Security stanza' in done.stdout


def test_lines_of_the_page_are_short_enough_and_every_example_fits_its_line():
    for line in read(MANUAL).splitlines():
        assert len(line) <= 80 and line == line.rstrip() and line
        assert not line.startswith('.Dl ') or len(plain(line)) <= 4 + 78 - 11, line


def test_sections_stand_in_the_order_of_mdoc():
    order = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'ENVIRONMENT', 'FILES', 'EXIT STATUS', 'EXAMPLES', 'DIAGNOSTICS',
             'SEE ALSO', 'STANDARDS', 'CAVEATS', 'SECURITY CONSIDERATIONS']
    assert re.findall(r'^\.Sh (.*)$', read(MANUAL), re.M) == order


def test_date_of_the_page_and_version_are_those_of_the_last_change():
    version, year, month, day = re.search(r'^## (\S+), (\d{4})-(\d\d)-(\d\d)$', read(CHANGES), re.M).groups()
    assert read(MANUAL).splitlines()[1:4] == [
        '.Dd %s %d, %s' % (MONTHS[int(month) - 1], int(day), year), '.Dt CAPDROP 8', '.Os']
    assert version == capdrop.__version__
    assert run('--version').stdout == 'capdrop %s\n' % version


def test_page_and_help_text_have_the_same_commands_and_the_program_takes_them():
    in_help = re.findall(r'^(?:usage:)? +capdrop (\w+)', capdrop.__doc__, re.M)
    described = re.findall(r'^\.It Cm (\w+)$', section('Commands', 'Ss'), re.M)
    assert in_help == described == [command for command in synopsis() if command] and len(in_help) >= 4
    assert sorted(described) == sorted(capdrop.VERBS)


def test_first_line_of_page_and_help_text_are_the_same():
    description = plain(section('NAME')).split('.Nd ')[1].strip()
    assert description == capdrop.__doc__.splitlines()[0].rstrip('.').lower().replace('security', 'Security')


def test_page_and_help_text_have_the_same_options():
    in_help = options_of(capdrop.__doc__.partition('In a program')[0].replace('python3 -I', 'python3'))
    in_page = page_options()
    assert in_page - in_help == {'--help'} and in_help - in_page == set()
    in_synopsis = set().union(*synopsis().values())
    overrides = {'--' + option.replace('_', '-') for option in capdrop.OPTIONS}
    assert in_synopsis == in_page - overrides and overrides <= in_page


def test_options_in_running_text_of_the_page_exist():
    written = {'--' + name for name in re.findall(r'^\.?.*\bFl Fl ([a-z-]+)', read(MANUAL), re.M)}
    written |= options_of(plain('\n'.join(re.findall(r'^\.Dl # capdrop (.*?)(?: \\-\\- .*)?$', read(MANUAL), re.M))))
    assert len(written) > 8
    assert written <= page_options()


@pytest.mark.parametrize('command', sorted(capdrop.VERBS))
def test_each_command_takes_the_options_of_its_synopsis_and_no_others(command):
    for option in sorted(page_options() - {'-h', '--help', '--version'}):
        override = option[2:].replace('-', '_') in capdrop.OPTIONS
        done = run(command, option, *['daemon'] * (override or option == '--cgroup'))
        is_for = '%s is for' % option in done.stderr
        refused = is_for or '%s is not for %s' % (option, command) in done.stderr
        if override:
            takes = 'Ar override' in section('SYNOPSIS').split('.Cm %s\n' % command)[1].split('.Nm')[0]
            assert ('status takes' in done.stderr) == (not takes), done.stderr
        else:
            assert refused == (option not in synopsis()[command]), (option, done.stderr)
        assert 'there is no option' not in done.stderr


def test_help_and_version_are_taken_as_the_page_says():
    assert synopsis()[''] == {'-h', '--help', '--version'}
    for option in '-h', '--help':
        done = run(option)
        assert (done.returncode, done.stdout, done.stderr) == (0, capdrop.__doc__, '')


def test_page_and_help_text_have_the_same_exit_statuses():
    in_help = re.findall(r'\b(\d+)\b', re.search(r'Exit status:(.*?)\n\n', capdrop.__doc__, re.S).group(1))
    in_page = re.findall(r'^\.It (\d+)$', section('EXIT STATUS'), re.M)
    assert in_page == in_help                   # a test below interrupts it


def test_exit_statuses_are_as_the_page_says(tmp_path):
    wrong = tmp_path / 'wrong.conf'
    wrong.write_text('Security { user = no-such-account }\n')
    assert run('check', '--user', 'daemon').returncode == 0
    assert run('check', str(wrong)).returncode == 1
    assert run('check').returncode == run('no-such-command').returncode == 2
    assert run('exec').returncode == run('plan', str(wrong)).returncode == 125
    assert run('exec', str(wrong), '--', 'true').returncode == 125
    need_root()
    assert run('exec', '--user', 'daemon', '--', '/etc').returncode == 126
    assert run('exec', '--user', 'daemon', '--', '/no-such-command').returncode == 127
    assert run('exec', '--user', 'daemon', '--', '/bin/sh', '-c', 'exit 77').returncode == 77


def test_interrupted_it_exits_with_130():
    process = subprocess.Popen([sys.executable, '-I', SCRIPT, 'check', '-'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))     # not as in the background
    try:
        process.stdin.write(b' ' * 200000)      # more than a pipe holds: it has begun to read
        process.stdin.flush()
        for _ in range(100):                    # Python does not see one that arrives just before it reads again
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
        assert process.poll() == 130
        assert process.stdout.read() == b''
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_environment_of_the_page_is_what_the_program_reads_and_sets():
    in_page = set(re.findall(r'[A-Z_]+', ' '.join(re.findall(r'^\.It Ev (.*)$', section('ENVIRONMENT'), re.M))))
    source = read(SCRIPT)
    read_ones = set(re.findall(r'env(?:iron)?\.get\(b?\'([A-Z_]+)\'', source))
    set_ones = set(re.findall(r'b\'(HOME|LOGNAME|SHELL|USER)\'', source))
    assert in_page == read_ones | set_ones and {'EC_CONF_SEARCH_PATH', 'EC_NODE_NAME', 'PATH', 'HOME'} <= in_page


def test_options_of_the_stanza_are_all_in_the_page():
    assert re.findall(r'^\.It Ic (\w+)$', section('The stanza', 'Ss'), re.M) == list(capdrop.OPTIONS)


def test_diagnostics_of_the_page_are_messages_of_the_program():
    value = 's' if sys.version_info < (3, 8) else 'value'
    constants = [getattr(node, value, None) for node in ast.walk(ast.parse(read(SCRIPT)))]
    messages = [text for text in constants if isinstance(text, str)]
    listed = re.findall(r'^\.It "(.*)"$', section('DIAGNOSTICS'), re.M)
    assert len(listed) == 5
    for text in listed:
        text = text.replace('...', '').strip().rstrip(':')
        assert any(text in message for message in messages), text


def examples():
    return [plain(line) for line in re.findall(r'^\.Dl (.*)$', section('EXAMPLES'), re.M)]


@pytest.fixture
def place():
    """Where anybody may read: capdrop, the stanza of the page as myd.conf, and a daemon that writes its number."""
    need_root()
    need_accounts_of_debian()
    path = tempfile.mkdtemp(prefix='capdrop-manual-', dir='/tmp')
    os.chmod(path, 0o755)
    shutil.copy(SCRIPT, path)
    os.chmod(path + '/capdrop.py', 0o644)       # it may be of a clone that is private
    stanza = re.search(r'^\.Bd .*?\n(.*?)^\.Ed', section('The stanza', 'Ss'), re.M | re.S).group(1)
    for name, text in (('capdrop', '#!/bin/sh\nexec %s -I %s/capdrop.py "$@"\n' % (sys.executable, path)),
                       ('myd', '#!/bin/sh\necho "serving as $(id -u)"\n'), ('myd.conf', plain(stanza))):
        with open(os.path.join(path, name), 'w') as file:
            file.write(text)
        os.chmod(os.path.join(path, name), 0o644 if name == 'myd.conf' else 0o755)
    yield path
    shutil.rmtree(path)


def there(place, text):
    for name in '/etc/myd.conf', '/usr/sbin/myd', '/run/myd.pid':
        text = text.replace(name, place + '/' + os.path.basename(name))
    return text


EXPECTED = {'capdrop check /etc': r'\A\Z', 'capdrop plan': r'(?m)^ +\d+  setresuid\(1, 1, 1\)$',
            'capdrop exec /etc/myd.conf': r'\Aserving as 1\n\Z', 'capdrop status': r'(?m)^uid +1 1 1 1\b',
            'capdrop audit': r'\A\Z', '+ep -- id': r'\Auid=1\(', '-- id -G': r'\A1 8\n\Z', '-- id -u': r'\A1\n\Z', 'echo': r'\A\Z'}


@pytest.mark.parametrize('example', examples())
def test_example_of_the_page_does_what_the_page_says(place, example):
    prompt, command = example.split(' ', 1)
    wanted, = [pattern for part, pattern in EXPECTED.items() if part in command]
    environment = {'PATH': place + ':/usr/sbin:/usr/bin:/sbin:/bin'}
    daemon = None
    try:
        if 'myd.pid' in command:
            daemon = subprocess.Popen([place + '/capdrop', 'exec', place + '/myd.conf', '--', '/bin/sleep', '60'],
                                      env=environment, stderr=subprocess.DEVNULL)
            until = time.time() + 20
            while 'sleep' not in read('/proc/%d/comm' % daemon.pid):
                assert time.time() < until and daemon.poll() is None
                time.sleep(0.02)
            with open(place + '/myd.pid', 'w') as file:
                file.write('%d\n' % daemon.pid)
        change = None if prompt == '#' else lambda: (os.setgroups([]), os.setgid(2), os.setuid(2))
        if prompt == '$':                       # an ordinary user cannot enter every directory an interpreter is in
            text = read(place + '/capdrop').replace(sys.executable, '/usr/bin/python3')
            with open(place + '/capdrop', 'w') as file:
                file.write(text)
        done = run_command(['sh', '-c', there(place, command)], env=environment, cwd=place, preexec_fn=change)
    finally:
        if daemon:
            daemon.kill()
            daemon.wait()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(wanted, done.stdout), done.stdout


def test_prompts_of_the_examples_are_those_of_root_and_of_an_ordinary_user():
    assert len(examples()) == len(EXPECTED) == 9
    assert {example.split(' ')[0] for example in examples()} == {'#', '$'}


def test_program_of_the_page_runs(place):
    program = re.search(r'^\.Bd .*?\n(.*?)^\.Ed', section('EXAMPLES'), re.M | re.S).group(1)
    tell = 'import os\nprint(os.getresuid(), os.getgroups())\n'
    done = run_command([sys.executable, '-B', '-c', there(place, plain(program)) + tell],
                       env={'PYTHONPATH': place}, cwd=place)
    assert (done.returncode, done.stdout) == (0, '(1, 1, 1) [4, 8]\n'), done.stderr
