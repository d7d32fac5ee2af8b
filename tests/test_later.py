"""What a daemon needs after the drop, and what a command has when it starts."""
import os
import shutil
import struct
import subprocess
import sys

import pytest

from conftest import (
    AS_1111, BIND, RAW, SCRIPT, ends, fields, in_child, launched, need, need_root, run_command)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
TOP = os.path.dirname(SCRIPT)
KEEPS = dict(AS_1111, capabilities='cap_net_raw+ep')


def in_jail(jail, program, first='', env=None, flags=('-I',)):
    """What a program of this Python prints that has dropped into a jail where there is no Python."""
    text = 'import sys\nsys.path.insert(0, %r)\n%s\nimport capdrop\ncapdrop.drop(capdrop.Security(user="1111", group="4321", ' \
        'chroot=%r))\n%s\n' % (TOP, first, str(jail), program)
    done = run_command([sys.executable] + list(flags) + ['-c', text], env=env)
    return done.returncode, done.stdout, done.stderr


def test_a_thread_that_still_runs_at_exit_ends_with_it(jail):
    """glibc loads libgcc_s when a thread ends so: pthread_exit(3)."""
    program = '''
import threading
def run():
    while True:
        pass
for _ in range(4):
    threading.Thread(target=run, daemon=True).start()
print('done', flush=True)
'''
    need_root()
    for _ in range(5):
        assert in_jail(jail, program) == (0, 'done\n', '')


CODECS = '''
import codecs, io, os, socket
for name in 'utf-8', 'UTF8', 'utf_8', 'latin-1', 'iso-8859-1', 'ascii', 'us-ascii', 'utf-8-sig', 'utf-16', 'idna', 'punycode':
    assert 'abc'.encode(name).decode(name) == 'abc', name
assert 'b\\xfccher'.encode('idna') == b'xn--bcher-kva'
open('/bin/cat', encoding='utf-8').close()
open('/bin/cat', encoding='latin-1').close()
open('/bin/cat').close()
io.TextIOWrapper(io.BytesIO(b'x'), encoding='utf-8').read()
os.fsdecode(b'\\xff')
sys.stdout.write('done\\n')
sys.stdout.flush()
'''


def locales(tmp_path):
    """[environment] with locales that are not UTF-8."""
    found = [{'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}, {'LC_ALL': 'POSIX'}, {'LC_ALL': 'C.UTF-8'}]
    if shutil.which('localedef'):
        made = tmp_path / 'locales'
        made.mkdir()
        for name, charmap in ('C.ISO-8859-1', 'ISO-8859-1'), ('C.ISO-8859-15', 'ISO-8859-15'), ('C.KOI8-R', 'KOI8-R'):
            run_command(['localedef', '-c', '-i', 'POSIX', '-f', charmap, str(made / name)])
            if (made / name).exists():
                found.append({'LC_ALL': name, 'LOCPATH': str(made), 'PYTHONUTF8': '0'})
    return found


def test_codecs_are_there_whatever_the_locale(jail, tmp_path):
    need_root()
    for environment in locales(tmp_path):
        assert in_jail(jail, CODECS, env=environment, flags=['-s']) == (0, 'done\n', ''), environment


HALVES = {      # what is imported before; what is used afterwards
    'concurrent.futures': ('import concurrent.futures', '''
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert pool.submit(int, '7').result() == 7
assert concurrent.futures.ProcessPoolExecutor'''),
    'multiprocessing': ('import multiprocessing', '''
context = multiprocessing.get_context('fork')
here, there = context.Pipe()
process = context.Process(target=there.send, args=(7,))
process.start()
assert here.recv() == 7
process.join()
import multiprocessing.pool, multiprocessing.synchronize      # which work where there is a /dev/shm
context.Event, context.Pool, context.Manager, context.Value'''),
    'asyncio': ('import asyncio', '''
loop = asyncio.new_event_loop()
assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
assert loop.run_until_complete(loop.run_in_executor(None, int, '7')) == 7
loop.close()'''),
    'logging': ('import logging, logging.handlers', '''
logging.getLogger('x').warning('a warning')
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger('x').addHandler(logging.NullHandler())
    logging.getLogger('x').exception('an exception')
sys.stderr = None'''),
    'http.server': ('import http.server', 'http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler).server_close()'),
    'datetime': ('import datetime', 'assert datetime.datetime.strptime("2025-01-02", "%Y-%m-%d").year == 2025'),
    'subprocess': ('import subprocess', 'assert subprocess.Popen(["/bin/cat", "/bin/cat"], stdout=-1).communicate()[0]'),
    'ssl': ('import ssl', 'ssl.create_default_context'),
    'email': ('import email, email.message', '''
message = email.message.EmailMessage()
message['Subject'] = 'b\\xfccher'
message.set_content('text')
assert b'text' in bytes(message)'''),
    'json': ('import json', 'assert json.loads("[1]") == [1] and json.dumps("x")'),
    'socket': ('import socket', '''
try: socket.create_connection(('localhost', 1), timeout=1)
except OSError: pass'''),
}


@pytest.mark.parametrize('name', HALVES)
def test_the_other_half_of_a_module_is_there(name, jail):
    need_root()
    first, program = HALVES[name]
    need(run_command([sys.executable, '-c', first]).returncode == 0, 'needs the module %s of %s' % (name, sys.executable))
    status, out, errors = in_jail(jail, program + '\nsys.stdout.write("done\\n")\nsys.stdout.flush()', first)
    assert (status, out) == (0, 'done\n') and 'Error' not in errors.replace('ZeroDivisionError', ''), errors


# ---------------------------------------------------------------------------- a command that has rights of its own

RAW_XATTR = struct.pack('<IIIII', 0x02000001, RAW, 0, 0, 0)     # cap_net_raw=ep: linux/capability.h
ADVICE = ['file capabilities', 'setcap -r']


def file_capabilities(path, value=RAW_XATTR):
    need(hasattr(os, 'setxattr'), 'needs os.setxattr')
    try:
        os.setxattr(path, 'security.capability', value)
    except OSError as e:
        need(False, 'needs file capabilities: %s' % e)


@pytest.fixture
def programs(jail):
    """Directory of copies of cat: plain, with file capabilities, set-group-ID, set-user-ID, and scripts of theirs."""
    directory = str(jail / 'bin')
    for name, mode in ('plain', 0o755), ('capable', 0o755), ('group', 0o2755), ('user', 0o4755):
        shutil.copy(directory + '/cat', directory + '/' + name)
        os.chmod(directory + '/' + name, mode)
        with open(directory + '/script-' + name, 'w') as file:
            file.write('#! %s/%s -u\n' % (directory, name))
        os.chmod(directory + '/script-' + name, 0o755)
    file_capabilities(directory + '/capable')
    for parent in jail.parents:
        mode = os.stat(str(parent)).st_mode
        if not mode & 1:
            os.chmod(str(parent), mode & 0o7777 | 0o055)
    return directory


def test_a_command_with_file_capabilities_is_refused(programs):
    """The kernel would clear its ambient set: execve(2)."""
    for path in programs + '/capable', programs + '/script-capable', 'capable':
        message = None
        for allow in False, True:
            def launch():
                capdrop.launch(capdrop.Security(**KEEPS), [path], no_new_privs=not allow, env={'PATH': programs})
            with pytest.raises(capdrop.RefusedError) as e:
                in_child(launch)
            message = str(e.value)
            assert 'capable' in message and all(word in message for word in ADVICE)
    done = run_command([sys.executable, '-I', SCRIPT, 'exec', '-q', '--user', '1111', '--group', '4321', '--capabilities',
                        'cap_net_raw+ep', '--', programs + '/capable', '/proc/self/status'])
    assert done.returncode == 125 and done.stdout == '' and 'file capabilities' in done.stderr


def test_a_command_with_file_capabilities_that_is_to_have_none_is_started_without(programs):
    out, status, errors = launched(lambda: None, capdrop.Security(**AS_1111), [programs + '/capable'])
    assert status == 126 or fields(out)['CapPrm'] == 0


def test_a_set_group_id_command_is_refused_where_new_privileges_are_allowed(programs):
    for path in programs + '/group', programs + '/script-group':
        def launch():
            capdrop.launch(capdrop.Security(**KEEPS), [path], no_new_privs=False)
        with pytest.raises(capdrop.RefusedError) as e:
            in_child(launch)
        assert 'set-group-ID' in str(e.value) and 'group' in str(e.value)
    out, status, errors = launched(lambda: None, capdrop.Security(**KEEPS), [programs + '/group'])
    assert (status, errors) == (0, '') and fields(out) == ends(1111, 4321, caps=RAW, CapInh=RAW, CapAmb=RAW)


def test_a_plain_command_and_its_script_are_started_with_the_set(programs):
    out, status, errors = launched(lambda: None, capdrop.Security(**KEEPS), [programs + '/plain'], no_new_privs=False)
    assert (status, errors) == (0, '') and fields(out)['CapAmb'] == RAW


def test_in_a_jail_a_command_with_file_capabilities_is_a_warning(programs, jail):
    """It may be another one by then."""
    done = run_command([sys.executable, '-I', SCRIPT, 'exec', '--user', '1111', '--group', '4321', '--capabilities',
                        'cap_net_raw+ep', '--chroot', str(jail), '--', '/bin/capable', '/bin/script-plain'])
    assert 'file capabilities' in done.stderr and 'warning' in done.stderr
    assert done.returncode in (0, 126)
    done = run_command([sys.executable, '-I', SCRIPT, 'exec', '--user', '1111', '--group', '4321', '--chroot', str(jail),
                        '--', '/bin/capable', '/bin/script-plain'])
    assert 'file capabilities' not in done.stderr       # it is to have none


def test_in_a_jail_what_has_the_name_of_the_command_outside_does_not_matter(programs, jail):
    outside = programs + '/capable'
    inside = str(jail) + outside
    os.makedirs(os.path.dirname(inside))
    shutil.copy(programs + '/plain', inside)
    out, status, errors = launched(lambda: None, capdrop.Security(chroot=str(jail), **KEEPS), [outside])
    assert (status, errors) == (0, '') and fields(out)['CapAmb'] == RAW


def test_a_command_that_is_no_file_is_no_reason_for_another_answer(programs):
    for path, status in (programs, 126), (programs + '/nothing', 127), ('/dev/null', 126):
        assert launched(lambda: None, capdrop.Security(**KEEPS), [path])[1] == status


# ---------------------------------------------------------------------------- another Python

def test_with_pypy_every_verb_does_its_job(tmp_path):
    """It has neither O_PATH nor waitid."""
    need_root()
    pypy = shutil.which('pypy3')
    need(pypy, 'needs pypy3')
    conf = tmp_path / 'my.conf'
    conf.write_text('Security { user = 1111 group = 4321 supplemental_groups = ( "8" ) capabilities = "cap_net_bind_service+ep" }')
    conf.chmod(0o644)
    command = [pypy, '-I', SCRIPT]
    wanted = ends(1111, 4321, '8', BIND, CapInh=BIND, CapAmb=BIND)
    done = run_command(command + ['exec', '-q', str(conf), '--', '/bin/cat', '/proc/self/status'])
    assert (done.returncode, done.stderr) == (0, '') and fields(done.stdout) == wanted
    for words in ['check', str(conf)], ['plan', str(conf)], ['plan', '--exec', str(conf)], ['status'], ['status', '1']:
        done = run_command(command + words)
        assert done.returncode == 0 and 'Traceback' not in done.stderr, done
    process = subprocess.Popen(command + ['exec', '-q', str(conf), '--', '/bin/cat'], stdin=subprocess.PIPE)
    try:
        while not os.readlink('/proc/%d/exe' % process.pid).endswith('cat'):
            assert process.poll() is None
        done = run_command(command + ['audit', '-q', str(conf), str(process.pid)])
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    finally:
        process.stdin.close()
        process.wait()
    program = ('import os, sys; sys.path.insert(0, %r); import capdrop; state = capdrop.drop(capdrop.load(%r)); '
               'assert state == capdrop.state(); sys.stdout.write(open("/proc/self/status").read())' % (TOP, str(conf)))
    done = run_command([pypy, '-I', '-c', program])
    assert (done.returncode, done.stderr) == (0, '') and fields(done.stdout) == ends(1111, 4321, '8', BIND)
    done = run_command([pypy, '-I', os.path.join(TOP, 'tests', 'selftest.py')])
    assert done.returncode == 0 and 'FAILED' not in done.stdout, done.stdout + done.stderr
