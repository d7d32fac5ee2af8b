"""The command line as scripts use it: exit codes, streams, and what a command is started with."""
import json
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tempfile

import pytest

from conftest import RAW, SCRIPT, fields, hidden_libcap, in_child, need, need_root, run, run_command, watch
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

ME = [sys.executable, '-I', SCRIPT]
COMPILED = [sys.executable, '-I', '-S', '-c', 'import sys; sys.path.insert(0, %r); import capdrop; sys.exit(capdrop.main())'
            % os.path.dirname(SCRIPT)]
AS_1111 = ('--user', '1111', '--group', '4321')


@pytest.fixture
def conf(tmp_path):
    def write(text, name='my.conf'):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o644)
        return str(path)
    return write


def execute(*args, command=('/bin/true',), **options):
    need_root()
    return run('exec', '-q', *(args + ('--',) + tuple(command)), **options)


def quickly(command, **options):
    """run_command that fails where it would wait for ever: what it wrote to stdout and stderr, if they are pipes."""
    process = subprocess.Popen(command, **options)
    try:
        out, err = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError('it hangs')
    return process.returncode, (out or b'').decode(), (err or b'').decode()


def in_process(args, prepare=lambda: None):
    """(exit status, stdout, stderr) of main() in a child, and whether that left the child's rights alone."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        def child():
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            capdrop.state()                     # what this Python loads, while it can still be read
            __import__('difflib')
            prepare()
            status = watch()
            before = status()
            return capdrop.main(args), status() == before
        code, unchanged = in_child(child)
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return code, texts[0], texts[1], unchanged


# ---------------------------------------------------------------------------- exit codes and messages

def test_the_exit_status_is_the_commands_own():
    for status in 0, 1, 2, 7, 125, 126, 127, 255:
        assert execute(*AS_1111, command=['/bin/sh', '-c', 'exit %d' % status]).returncode == status
    assert execute(*AS_1111, command=['/bin/sh', '-c', 'kill -15 $$']).returncode == -15


@pytest.mark.parametrize('command, status, message', [
    ('/no/such/command', 127, '/no/such/command: No such file or directory'),
    ('no-such-command', 127, 'no-such-command: No such file or directory'),
    ('', 127, 'No such file or directory'),
    ('/etc/passwd/x', 127, '/etc/passwd/x: '),
    ('/etc/passwd', 126, '/etc/passwd: Permission denied'),
    ('/etc', 126, '/etc: Permission denied'),
    ('BADFORMAT', 126, 'BADFORMAT: Exec format error'),
])
def test_a_command_that_cannot_run_is_126_or_127(command, status, message, tmp_path):
    bad = tempfile.NamedTemporaryFile(dir='/tmp', delete=False)
    try:
        with bad:
            bad.write(b'\0not a program')
        os.chmod(bad.name, 0o755)
        done = execute(*AS_1111, command=[command.replace('BADFORMAT', bad.name)], env=CLEAN)
    finally:
        os.unlink(bad.name)
    assert (done.returncode, done.stdout) == (status, '')
    assert done.stderr.startswith('capdrop: ') and done.stderr.count('\n') == 1
    assert message.replace('BADFORMAT', bad.name) in done.stderr


def test_help_is_the_docstring():
    for flag in '-h', '--help':
        done = run(flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, capdrop.__doc__, '')


def test_version():
    done = run('--version')
    assert (done.returncode, done.stdout, done.stderr) == (0, 'capdrop %s\n' % capdrop.__version__, '')


BAD = [(), ('',), ('-',), ('--',), ('-x',), ('bogus',), ('bogus', '-h '), ('CHECK', 'x'), ('check',), ('plan',), ('exec',),
       ('check', '-q'), ('check', 'a', 'b'), ('check', '/nonexistent'), ('check', '/'), ('check', '/dev/null'),
       ('check', '/dev/zero'), ('check', '/proc/self/mem'), ('check', ''), ('check', '-', '-'), ('check', '-', '--', 'true'),
       ('check', b'\xff\xfe'), ('check', 'a\nb'), ('check', '\x1b[31m'), ('check', 'x' * 5000),
       ('plan', '/nonexistent'), ('plan', '/'), ('plan', 'a', 'b'), ('plan', '-'), ('plan', '/etc/passwd'),
       ('status', 'x'), ('status', '1', '2'), ('status', '-1'), ('status', '0'), ('status', '4194305'),
       ('status', '99999999999999999999999'), ('status', '\uff11'.encode()), ('status', ''), ('status', '--', '1'),
       ('exec', '--', 'echo'), ('exec', 'x', 'y', '--', 'echo'), ('exec', '/nonexistent', '--', 'echo'),
       ('exec', '--user', 'nobody'), ('exec', '--user', 'nobody', '--'), ('exec', '--user', 'nobody', 'echo'),
       ('exec', '--user', '--', 'echo'), ('exec', '/dev/full', '--', 'echo'), ('exec', '-', '--', 'echo')]
WRONG = ['--bogus', '--user', '--user=', '--user=no-such-user-here', '--user=-1', '--user=4294967295', '--user=4294967296',
         '--user=0x0', '--user=\uff11'.encode(), b'--user=\xff', '--user=\x1b[31m', '--user=a\nb', '--user=987654321',
         '--group=no-such-group-here', '--group=', '--capabilities=cap_kil+ep', '--capabilities=\u0665'.encode(),
         '--capabilities=cap_net_raw', b'--capabilities=\xff', '--capabilities=%s' % ('x' * 5000), '--chroot=relative',
         '--chroot=', '--privileges=\x07', '--supplemental-groups=,', '--supplemental-groups=no-such-group-here',
         '--supplemental-groups=a b', '--supplemental_groups=0', '--User=nobody', '--us=nobody', '-u', '--json=1', '-qq']
for number, wrong in enumerate(WRONG):
    for verb in 'exec', ('check', 'plan', 'status')[number % 3]:
        words = (verb, wrong) if verb == 'status' else (verb, '--user', 'nobody', wrong)
        BAD.append(words + (('--', 'echo', 'it ran') if verb == 'exec' else ()))
BAD += [('check', '--user', '0', '--exec'), ('exec', '--user', '0', '--json', '--', 'echo', 'it ran'), ('status', '--exec'),
        ('exec', '--user', '0', '--exec', '--', 'echo', 'it ran'), ('status', '--allow-new-privs')]

STATUSES = {'check': (1, 2), 'plan': (2, 125), 'exec': (125,), 'status': (2, 125)}


def test_no_command_line_ends_in_a_traceback():
    assert len(BAD) > 100
    todo = list(BAD)
    while todo:
        batch, todo = todo[:8], todo[8:]
        started = [(args, subprocess.Popen(COMPILED + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE)) for args in batch]
        for args, process in started:
            out, err = (text.decode() for text in process.communicate(timeout=20))
            verb = args[0] if args and args[0] in STATUSES else ''
            assert 'Traceback' not in err and 'Traceback' not in out, (args, err)
            assert process.returncode in STATUSES.get(verb, (2,)), (args, process.returncode, err)
            assert '\x1b' not in out + err and 'it ran' not in out, args
            lines = err.splitlines()
            if process.returncode == 1:
                assert out and not err, args
            else:
                assert lines and not out or verb == 'plan' and process.returncode == 125, (args, out, err)
            assert all(line.startswith('capdrop: ') for line in lines), (args, err)


def test_an_error_in_an_option_names_the_option():
    for option, value in [('--user', 'no-such-user-here'), ('--group', 'no-such-group-here'), ('--capabilities', 'cap_kil+ep'),
                          ('--supplemental-groups', 'no-such-group-here'), ('--chroot', 'relative')]:
        done = run('plan', '--user', '0', option, value)
        assert done.returncode == 125
        assert done.stderr.startswith('capdrop: %s: ' % option), done.stderr


# ---------------------------------------------------------------------------- check

def test_check_writes_its_findings_to_standard_output_place_first(conf):
    path = conf('Security {\n  user = no-such-user-here\n  group = no-such-group-here\n'
                '  capabilities = "cap_chown+ep cap_kil+ep"\n  capabilities = "cap_chown+ep cap_kil+ep"\n}\nuser = nobody\n')
    done = run('check', path)
    assert (done.returncode, done.stderr) == (1, '')
    lines = done.stdout.splitlines()
    assert all(re.match(re.escape(path) + r':\d+:\d+: (error|warning): .', line) for line in lines), lines
    for start in ':2:10: error: ', ':3:11: error: ', ':5:32: error: ', ':5:19: warning: ', ':7:1: warning: ':
        assert [line for line in lines if line.startswith(path + start)], (start, lines)
    assert 'warning' not in run('check', '-q', path).stdout


def test_check_of_a_good_file_is_silent(conf):
    done = run('check', '-q', conf('Security { user = 1111 group = 4321 capabilities = "cap_net_bind_service+ep" }'))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_check_of_a_syntax_error_names_line_and_column(conf):
    path = conf('# one\nSecurity {\n  usr = nobody\n}\n')
    done = run('check', path)
    assert done.returncode == 1
    assert done.stdout.startswith('%s:3:3: error: ' % path) and 'user' in done.stdout


@pytest.mark.parametrize('path, why', [('/no/such/file', 'No such file or directory'), ('/etc', 'not a regular file'),
                                       ('', 'the name of the configuration file is empty')])
def test_a_file_that_cannot_be_read_is_named_once(path, why):
    prefix = path + ': ' if path else ''
    assert run('check', path).stdout == '%serror: %s\n' % (prefix, why)
    assert run('plan', path).stderr == 'capdrop: %s%s\n' % (prefix, why)


def test_every_verb_but_check_writes_errors_to_standard_error(conf):
    path = conf('Security {\n  usr = nobody\n}\n')
    for args in ('plan', path), ('plan', path, '--json'), ('exec', path, '--', 'echo'):
        done = run(*args)
        assert (done.returncode, done.stdout) == (125, '')
        assert done.stderr.startswith('capdrop: %s:2:3: ' % path)


# ---------------------------------------------------------------------------- --json

def test_the_json_of_check_holds_what_its_text_holds(conf):
    for text in ('Security {\n user = no-such-user-here\n capabilities = "cap_kil+ep"\n}\n user = x',
                 'Security { user = 1111 group = 0 group = 1 }', 'Security { user = 1111\n'):
        path = conf(text)
        plain, done = run('check', path), run('check', path, '--json')
        answer = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (plain.returncode, '')
        for finding in answer['findings']:
            finding['place'] = ':'.join(str(finding[key]) for key in ('file', 'line', 'column') if finding[key] is not None)
        lines = ['%(place)s: %(severity)s: %(message)s' % finding for finding in answer['findings']]
        assert lines == plain.stdout.splitlines() and lines


def test_the_json_of_plan_holds_what_its_text_holds(conf):
    path = conf('Security {\n user = 1111\n group = 4321\n capabilities = "cap_net_bind_service+ep"\n}\n')
    for extra in (), ('--exec',), ('--allow-new-privs',), ('--user', 'root', '--exec'), ('--chroot', '/no/such'):
        plain, done = run('plan', path, *extra), run('plan', path, '--json', *extra)
        answer = json.loads(done.stdout)
        assert done.returncode == plain.returncode == (125 if answer['refusals'] else 0)
        assert done.stderr == ''
        place = 0
        for step in answer['steps'] + answer['must_fail']:
            assert step in plain.stdout[place:]
            place = plain.stdout.index(step, place)
        rows = [line.split() for line in plain.stdout[place:].splitlines()]
        for name, value in answer['ends_as'].items():
            shown = [row[1:] for row in rows if row[:1] == [name]]
            assert len(shown) == 1
            if name == 'permitted' and len(value) < 20:
                assert shown[0] == (value or ['none'])
        for option, value in answer['options'].items():
            assert value['from']['file'] in plain.stdout
        errors = plain.stderr.splitlines()
        assert errors == (['capdrop: warning: %s' % text for text in answer['warnings']] +
                          ['capdrop: refused: %s' % text for text in answer['refusals']])


def test_the_json_of_status_holds_what_its_text_holds():
    for pid in (), (str(os.getpid()),):
        plain, done = run('status', *pid), run('status', '--json', *pid)
        answer = json.loads(done.stdout)
        assert (plain.returncode, done.returncode, plain.stderr, done.stderr) == (0, 0, '', '')
        lines = [line.partition(': ' if line.startswith('note: ') else ' ') for line in plain.stdout.splitlines()]
        assert [text for key, _, text in lines if key == 'note'] == answer.pop('notes')
        shown = {key: text.split() for key, _, text in lines if key != 'note'}
        assert set(shown) == set(answer)
        assert shown['uid'][:4] == [str(n) for n in answer['uid']] == [str(os.getuid())] * 4
        assert shown['uid'][4:] == ['(%s)' % pwd.getpwuid(os.getuid()).pw_name]
        assert answer['ambient'] == [] and shown['ambient'] == ['none']


def test_the_status_of_a_process_is_what_proc_says():
    state = capdrop.state(os.getpid())
    found = fields(open('/proc/self/status').read())
    assert (state.permitted, state.bounding, state.ambient) == (found['CapPrm'], found['CapBnd'], found['CapAmb'])
    assert ' '.join(map(str, state.uid)) == found['Uid'] and ' '.join(map(str, state.gid)) == found['Gid']
    own = capdrop.state()
    assert (own.permitted, own.effective, own.inheritable, own.bounding) == (
        state.permitted, state.effective, state.inheritable, state.bounding)


# ---------------------------------------------------------------------------- options and FILE

def planned(*args, **options):
    return json.loads(run('plan', '--json', *args, **options).stdout)


def test_options_override_the_file(conf):
    path = conf('Security { user = 1111 group = 4321 supplemental_groups = ( "8" "4" ) capabilities = "cap_net_raw+ep" }')
    assert planned(path)['ends_as']['permitted'] == ['cap_net_raw']
    for args, field, expected in [
            (('--user', '1112'), 'uid', [1112] * 4), (('--group=4322',), 'gid', [4322] * 4),
            (('--supplemental-groups', ''), 'groups', []), (('--supplemental-groups=7,9',), 'groups', [7, 9]),
            (('--supplemental-groups', '7'), 'groups', [7]), (('--capabilities', ''), 'permitted', []),
            (('--capabilities=cap_chown+ep',), 'permitted', ['cap_chown'])]:
        answer = planned(path, *args)
        assert answer['ends_as'][field] == expected
        option = answer['options'][args[0].partition('=')[0][2:].replace('-', '_')]
        assert option['from']['file'].startswith('--') and option['overrode'][0]['file'] == path
    assert planned(path, '--allow-new-privs')['ends_as']['no_new_privs'] == 0


def test_options_alone_replace_the_file():
    answer = planned('--user', '1111', '--group', '4321')
    assert answer['ends_as']['uid'] == [1111] * 4 and answer['ends_as']['permitted'] == []


def test_a_dash_is_standard_input(tmp_path):
    text = b'Security {\n  user = 1111\n  group = 4321\n  usr = 1\n}\n'
    done = run('check', '-', stdin=text)
    assert done.returncode == 1 and done.stdout.startswith('-:4:3: error: ')
    done = run('plan', '-', '--json', stdin=text.replace(b'usr = 1', b''))
    assert json.loads(done.stdout)['ends_as']['gid'] == [4321] * 4
    (tmp_path / 'x.conf').write_text('Security { user = 1111 }')
    done = run('check', '-', stdin=b'include "x.conf"', cwd=str(tmp_path))
    assert done.returncode == 1 and 'x.conf' in done.stdout     # never from the current directory


def test_an_option_may_override_what_an_untrusted_file_may_not_grant(conf):
    need_root()
    path = conf('Security { user = nobody capabilities = "cap_sys_admin+ep" }')
    os.chown(path, 65534, 0)
    nobody = ('--user', 'nobody', '--group', '65534')
    refused = run('exec', path, *(nobody + ('--', '/bin/echo', 'it ran')))
    assert (refused.returncode, refused.stdout) == (125, '')
    assert 'cap_sys_admin' in refused.stderr
    allowed = run('exec', path, '--capabilities', 'cap_net_raw+ep', *(nobody + ('--', '/bin/echo', 'it ran')))
    assert (allowed.returncode, allowed.stdout) == (0, 'it ran\n')


# ---------------------------------------------------------------------------- plan

def test_plan_changes_nothing(jail):       # noqa: F811
    code, out, errors, unchanged = in_process(['plan', '--chroot', str(jail), '--capabilities', 'cap_net_raw+ep'] + list(AS_1111))
    assert (code, errors, unchanged) == (0, '', True)
    assert 'setresuid(1111, 1111, 1111)' in out


def unprivileged():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def test_check_plan_and_status_need_no_rights():
    code, out, errors, unchanged = in_process(['plan', '--capabilities', 'cap_net_raw+ep'] + list(AS_1111), unprivileged)
    assert (code, unchanged) == (125, True)
    assert 'setresuid(1111, 1111, 1111)' in out and 'cap_net_raw' in out
    assert 'cap_setuid' in errors and 'capdrop: refused: ' in errors
    code, out, errors, unchanged = in_process(['check', '-q', '--capabilities', 'cap_net_raw+ep'] + list(AS_1111), unprivileged)
    assert (code, out, errors, unchanged) == (0, '', '', True)
    code, out, errors, unchanged = in_process(['status'], unprivileged)
    assert (code, errors, unchanged) == (0, '', True) and 'permitted    none' in out
    code, out, errors, unchanged = in_process(['plan', '--capabilities', ''], unprivileged)
    assert (code, unchanged) == (0, True)


TRACED = 'unshare,setgroups,setresgid,setresuid,setreuid,setregid,setuid,setgid,capset,prctl,chroot,fchdir,chdir'
READS = re.compile('PR_GET_|PR_CAPBSET_READ|PR_CAP_AMBIENT_IS_SET|CLONE_VM')
BITS = {'SECBIT_NOROOT': 1, 'SECBIT_NOROOT_LOCKED': 2, 'SUID_DUMP_DISABLE': 0}


def every():
    with open('/proc/sys/kernel/cap_last_cap') as file:
        count = int(file.read()) + 1
    return list(capdrop.CAPABILITY_NAMES[:count]) + [str(number) for number in range(len(capdrop.CAPABILITY_NAMES), count)]


def names(text):
    """The capability names that a list of them in a plan stands for."""
    words = text.replace('none', '').split()
    return set(every()) if words == ['all'] else set(every()) - set(words[2:]) if words[:2] == ['all', 'but'] else set(words)


def calls_of_plan(row, jail):       # noqa: F811
    """The calls that a printed step stands for."""
    if row.startswith(('cap_set_proc: ', 'capset: ')):
        found = dict(part.split(None, 1) for part in row.partition(': ')[2].split('; '))
        return [('capset',) + tuple(frozenset(names(found[which])) for which in ('effective', 'permitted', 'inheritable'))]
    name, args = re.match(r'(\w+)\((.*?)\)', row).groups()
    if name == 'stat':
        return []
    if name == 'unshare':
        return [(name,) + tuple(args.split(' | '))]
    if name == 'setgroups':
        return [(name,) + tuple(sorted(args.strip('[]').split(', ')))]
    if name == 'fchdir':
        return [(name, jail)]
    if ', each of ' in args:
        args, _, caps = args.partition(', each of ')
        return [(name,) + tuple(args.split(', ')) + (cap,) for cap in sorted(names(caps), key=every().index)]
    return [(name,) + tuple(str(int(arg, 16)) if arg.startswith('0x') else arg for arg in args.split(', '))]


def call_of_trace(line):
    """(the call, its result), or None for one that only reads."""
    name, args, result = re.match(r'(\w+?)(?:32)?\((.*)\) += (-?\d+)', line).groups()      # setgroups32 on i386 and arm
    if READS.search(args):
        return None
    if name == 'capset':
        found = dict(re.findall(r'(effective|permitted|inheritable)=([^,}]*)', args))
        args = [frozenset(cap.lower() for cap in re.findall(r'CAP_\w+', found[which]))
                for which in ('effective', 'permitted', 'inheritable')]
    elif name == 'setgroups':
        args = sorted(args.partition(', ')[2].replace('NULL', '').strip('[]').split(', '))
    elif name == 'unshare':
        args = sorted(args.split('|'), reverse=True)
    elif name == 'fchdir':
        args = [re.search('<(.*)>', args).group(1)]
    elif name == 'prctl':
        args = args.split(', ')
        while len(args) > 2 and args[-1] == '0':
            args.pop()
        if set(args[1].split('|')) <= set(BITS):
            args[1] = str(sum(BITS[word] for word in args[1].split('|')))
        args = [arg.lower() if arg.startswith('CAP_') else arg for arg in args]
    else:
        args = args.split(', ')
    return (name,) + tuple(args), int(result)


PROGRAM = """import grp, os, pwd, select, sys
sys.path.insert(0, %r)
import capdrop
capdrop.state()
%s
security = capdrop.Security(**%r)
%s"""
PLAN_AS_IN_LAUNCH = """import difflib, grp, json, os, pwd, select, sys
sys.path.insert(0, %r)
import capdrop
capdrop.state()
os.setresuid(1111, 1111, 0)
sys.exit(capdrop.main(%r))"""
DROP, LAUNCH = 'capdrop.drop(security)', 'capdrop.launch(security, ["/bin/cat"])'
EVERYTHING = dict(supplemental_groups='8,4', capabilities='cap_net_bind_service,cap_net_raw+ep', chroot='JAIL')
PLANS = {       # options besides user and group; what a program does with them, or None for the command line
    'user': ({}, None), 'everything': (EVERYTHING, None), 'root': (dict(user='0'), None),
    'root with capabilities': (dict(user='0', capabilities='cap_net_raw+ep'), None),
    'in process': ({}, DROP), 'in process, everything': (EVERYTHING, DROP),
    'nothing effective': (dict(capabilities='cap_net_raw+ep'), LAUNCH),
}


@pytest.mark.parametrize('case', PLANS)
def test_the_printed_steps_are_the_calls_that_are_made(case, tmp_path, jail):     # noqa: F811
    need_root()
    see_that_the_printed_steps_are_the_calls(case, tmp_path, jail)


@pytest.mark.parametrize('case', PLANS)
def test_without_libcap_the_printed_steps_are_the_calls_that_are_made(case, tmp_path, jail):     # noqa: F811
    plan = see_that_the_printed_steps_are_the_calls(case, tmp_path, jail, preexec_fn=hidden_libcap(tmp_path))
    assert not [row for row in plan['steps'] + plan['must_fail'] if 'cap_set_proc' in row]


def see_that_the_printed_steps_are_the_calls(case, tmp_path, jail, **started):     # noqa: F811
    need(shutil.which('strace'), 'needs strace')
    options, program = PLANS[case]
    options = {key: value.replace('JAIL', str(jail)) for key, value in dict(dict(user='1111', group='4321'), **options).items()}
    args = ['--%s=%s' % (key.replace('_', '-'), value) for key, value in options.items()]
    command = ME + ['exec', '-q'] + args + ['--', '/bin/cat']
    flags = [] if program == DROP else ['--exec']
    if program:
        if 'supplemental_groups' in options:
            options['supplemental_groups'] = options['supplemental_groups'].split(',')
        prepare = 'os.setresuid(1111, 1111, 0)' if program == LAUNCH else 'pass'
        command = [sys.executable, '-I', '-c', PROGRAM % (os.path.dirname(SCRIPT), prepare, options, program)]
    if program == LAUNCH:
        plan_it = PLAN_AS_IN_LAUNCH % (os.path.dirname(SCRIPT), ['plan', '--json'] + args + flags)
        plan = json.loads(run_command([sys.executable, '-I', '-c', plan_it], **started).stdout)
    else:
        plan = planned(*(args + flags), **started)
    trace = str(tmp_path / 'trace')
    done = run_command(['strace', '-qq', '-y', '-o', trace, '-e', 'signal=none', '-e', 'trace=' + TRACED + ',?setgroups32,?setresgid32,?setresuid32'] + command, **started)
    assert (done.returncode, done.stderr) == (0, '')
    calls = [call for call in map(call_of_trace, open(trace)) if call is not None]
    if program == LAUNCH:
        calls.pop(0)                            # its own setresuid
    steps, attempts = ([call for row in rows for call in calls_of_plan(row, str(jail))]
                       for rows in (plan['steps'], plan['must_fail']))
    first = calls.index((steps.pop(0), 0))
    made = [call for call, result in calls if result == 0][1:]
    failed = [call for call, result in calls if result != 0]
    assert first == 0 and made[len(made) - len(steps):] == steps and failed[len(failed) - len(attempts):] == attempts
    # what comes between asks whether it will be allowed, once each, and changes nothing
    asked = made[:len(made) - len(steps)] + failed[:len(failed) - len(attempts)]
    assert sorted(map(str, asked)) == sorted(str(call) for call, _ in calls[1:len(asked) + 1])
    assert len(asked) == len(set(asked)) and not [call for call in asked if not is_without_effect(call)]
    return plan


def is_without_effect(call):
    """With these arguments, or as long as they are what is so already."""
    return call[1:] == ('-1', '-1', '-1') or call == ('chroot', '""') or call[0] in ('setgroups', 'capset') or call in (
        ('prctl', 'PR_SET_NO_NEW_PRIVS', '0'), ('prctl', 'PR_SET_KEEPCAPS', '0'), ('prctl', 'PR_CAPBSET_DROP', '0x40 /* CAP_??? */'),
        ('prctl', 'PR_CAP_AMBIENT', 'PR_CAP_AMBIENT_RAISE', '0x40 /* CAP_??? */'))


# ---------------------------------------------------------------------------- what a command is started with

CLEAN = {'PATH': '/usr/bin:/bin', 'HOME': '/home/me', 'USER': 'me', 'LOGNAME': 'me', 'SHELL': '/bin/mysh', 'OTHER': 'kept'}


def environment(*args):
    done = execute(*args, command=['env'], env=CLEAN)
    assert done.returncode == 0, done.stderr
    found = {line.partition('=')[0]: line.partition('=')[2] for line in done.stdout.splitlines()}
    found.pop('LC_CTYPE', None)                 # Python sets it itself where the locale is C: PEP 538
    return found


def test_the_environment_is_that_of_the_new_user():
    import pwd
    need_root()
    entry = pwd.getpwnam('nobody')
    assert environment('--user', 'nobody') == dict(
        CLEAN, HOME=entry.pw_dir, USER='nobody', LOGNAME='nobody', SHELL=entry.pw_shell)


def test_without_an_account_home_is_the_root_directory_and_the_rest_unset():
    assert environment(*AS_1111) == {'PATH': CLEAN['PATH'], 'OTHER': 'kept', 'HOME': '/'}


def test_the_environment_is_left_alone_where_the_user_is():
    assert environment('--user', 'root') == CLEAN


@pytest.mark.parametrize('signal', [13, 25], ids=['SIGPIPE', 'SIGXFSZ'])
def test_the_signals_that_python_ignores_are_restored(signal):
    done = execute(*AS_1111, command=['/bin/cat', '/proc/self/status'])
    ignored = int(re.search(r'SigIgn:\s*(\w+)', done.stdout).group(1), 16)
    blocked = int(re.search(r'SigBlk:\s*(\w+)', done.stdout).group(1), 16)
    assert not ignored >> signal - 1 & 1 and not blocked


def test_signals_that_the_caller_ignores_or_blocks_stay_so():
    import signal

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    done = execute(*AS_1111, command=['/bin/cat', '/proc/self/status'], preexec_fn=prepare)
    assert int(re.search(r'SigIgn:\s*(\w+)', done.stdout).group(1), 16) & 1
    assert int(re.search(r'SigBlk:\s*(\w+)', done.stdout).group(1), 16) == 1 << signal.SIGUSR1 - 1


def test_descriptors_and_the_current_directory_are_left_as_they_are(tmp_path):
    need_root()
    read, write = os.pipe()
    command = ['/bin/sh', '-c', 'pwd; ls /proc/self/fd; echo passed >&9']
    options = dict(cwd='/usr', close_fds=False, preexec_fn=lambda: os.dup2(write, 9))
    wanted = run_command(command, **options)
    done = execute(*AS_1111, command=command, **options)
    os.close(write)
    assert wanted.stdout.startswith('/usr\n') and done.stdout == wanted.stdout
    assert os.read(read, 100) == b'passed\n' * 2
    os.close(read)


@pytest.fixture
def directories():
    """Two directories that anyone may search, with a command called `mine` in each that says where it is."""
    need_root()
    top = tempfile.mkdtemp(dir='/tmp')
    for name in 'a', 'b':
        os.mkdir('%s/%s' % (top, name))
        path = '%s/%s/mine' % (top, name)
        with open(path, 'w') as file:
            file.write('#!/bin/sh\necho %s\n' % name)
        for path in path, os.path.dirname(path), top:
            os.chmod(path, 0o755)
    yield top
    shutil.rmtree(top)


def test_a_command_is_looked_for_on_path_in_order(directories):
    found = lambda path, **options: execute(*AS_1111, command=['mine'], env={'PATH': path.replace('@', directories)}, **options)
    assert found('@/b:@/a').stdout == 'b\n'
    assert found('/nonexistent:/etc/passwd:@/a:@/b').stdout == 'a\n'
    os.chmod(directories + '/a/mine', 0o644)
    assert found('@/a:@/b').stdout == 'b\n'
    assert found('@/a:/nonexistent').returncode == 126
    assert found('/nonexistent').returncode == 127


def test_empty_elements_of_path_are_never_searched(directories):
    for path in '', ':', ':/nonexistent', '/nonexistent:', '/nonexistent::/nonexistent':
        done = execute(*AS_1111, command=['mine'], env={'PATH': path}, cwd=directories + '/a')
        assert (done.returncode, done.stdout) == (127, ''), path
    assert execute(*AS_1111, command=['mine'], env={}, cwd=directories + '/a').returncode == 127
    assert execute(*AS_1111, command=['./mine'], env={}, cwd=directories + '/a').stdout == 'a\n'


def test_in_a_jail_path_means_the_jails_own(jail, directories):     # noqa: F811
    args = AS_1111 + ('--chroot', str(jail))
    done = execute(*args, command=['mine'], env={'PATH': directories + '/a:/bin'})
    assert done.returncode == 127
    done = execute(*args, command=['cat'], env={'PATH': directories + '/a:/bin'}, stdin=b'in the jail')
    assert (done.returncode, done.stdout) == (0, 'in the jail')


def test_too_many_processes_of_the_user_names_the_limit():
    need_root()
    limit = lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    other = subprocess.Popen(['/bin/sleep', '60'], preexec_fn=lambda: os.setuid(1113))
    try:
        done = execute('--user', '1113', '--group', '4321', preexec_fn=limit)
    finally:
        other.kill()
        other.wait()
    assert done.returncode == 126
    assert 'RLIMIT_NPROC' in done.stderr and '1113' in done.stderr


def test_the_main_example():
    need_root()
    done = run('exec', '--user', 'nobody', '--capabilities', 'cap_net_raw+ep', '--', 'sh', '-c', 'id -u; cat /proc/self/status')
    uid, _, status = done.stdout.partition('\n')
    found = fields(status)
    assert uid == '65534' and found['Uid'] == '65534 65534 65534 65534' and found['Groups'] == ''
    assert {found[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')} == {RAW} and found['NoNewPrivs'] == '1'
    assert done.stderr.startswith('capdrop: warning: ') and 'nobody' in done.stderr


# ---------------------------------------------------------------------------- hostile descriptors

STREAMS = [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]
LINES = {('exec', '-q') + AS_1111 + ('--', '/bin/sh', '-c', 'exit 7'): (7,), ('exec',) + AS_1111 + ('--', '/no/such'): (127,),
         ('exec', '--user', 'no-such-user-here', '--', '/bin/true'): (125,), ('exec',): (125,), ('bogus',): (2,),
         ('check', '--user', 'no-such-user-here'): (1, 125), ('check', '-'): (1, 125), ('plan',) + AS_1111: (0, 125),
         ('status',): (0, 125)}


@pytest.mark.parametrize('closed', STREAMS, ids=str)
def test_closed_streams_harm_nothing(closed):
    need_root()

    def close():
        for fd in closed:
            os.close(fd)
    for args, statuses in LINES.items():
        status, out, err = quickly(ME + list(args), preexec_fn=close, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        assert status in statuses, (args, status, err)
        assert 'Traceback' not in out + err and 'Exception' not in err


@pytest.mark.parametrize('args', LINES, ids=' '.join)
def test_a_full_or_broken_pipe_harms_nothing(args):
    need_root()
    statuses = LINES[args] + (125,)
    broken, write = os.pipe()
    os.close(broken)
    for stream in 'stdout', 'stderr':
        streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        streams[stream] = write
        status, out, err = quickly(ME + list(args), **streams)
        assert status in statuses and 'Traceback' not in out + err and 'Exception' not in err, (status, err)
    os.close(write)
    full, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b'x' * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)
    status, out, err = quickly(ME + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=write)
    assert status in statuses and 'Traceback' not in out
    os.close(write)
    os.close(full)


def test_a_full_device_harms_nothing():
    with open('/dev/full', 'wb') as full:
        for args in ('status',), ('plan', '--user', '0'), ('-h',), ('check', '--user', 'no-such-user-here'):
            status, out, err = quickly(ME + list(args), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
            assert status in (1, 125) and err.startswith('capdrop: ') and 'Traceback' not in err
