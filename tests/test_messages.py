"""What an operator typed, and what he is told: through the real command line, as root and as an ordinary user.

A message names the thing, the call where there is one, the reason and the remedy.  A guess never turns a meaning round
and never grants more than was written.
"""
import os
import re
import shutil
import sys
import tempfile

import pytest

import capdrop
from conftest import SCRIPT, in_child, need, need_accounts_of_debian, need_root, run, run_command

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

# every row: what was typed after capdrop (or stands in the file); what the line says (...: anything)

COMMAND_LINES = [
    # which command, and what belongs where
    ('', 'a command is needed; capdrop -h shows how'),
    ('run web.conf -- id', 'there is no command "run"; there are check, plan, exec, status, audit; ...'),
    ('web.conf', 'there is no command "web.conf"; there are check, ...'),
    ('check', 'check takes one FILE; ...'),
    ('check web.conf more.conf', 'check takes one FILE; ...'),
    ('check web.conf -- id', '-- is for exec; ...'),
    ('check --exec web.conf', '--exec is not for check; ...'),
    ('plan --cgroup /x web.conf', '--cgroup is for audit; ...'),
    ('exec web.conf', 'exec needs -- and the command after it; ...'),
    ('exec --user daemon id', 'exec needs -- and the command after it; ...'),
    ('exec web.conf ls -l', 'there is no option -l; what belongs to the command stands after --; ...'),
    ('exec -- web.conf id', 'exec takes one FILE before --, and the command stands after it; ...'),
    ('exec web.conf id -- id', 'exec takes one FILE before --, and the command stands after it; ...'),
    ('exec --user -- id', '--user needs a value; ...'),
    ('plan --chroot', '--chroot needs a value; ...'),
    ('exec --json web.conf -- id', '--json is not for exec; ...'),
    ('plan --json=yes web.conf', 'there is no option --json=yes; ...'),
    # options: guesses are for those that take a value only
    ('exec --groups mail --user daemon -- id', 'there is no option --groups (did you mean --supplemental-groups?); ...'),
    ('exec --caps cap_kill+ep -- id', 'there is no option --caps (did you mean --capabilities?); ...'),
    ('exec --chrot=/srv -- id', 'there is no option --chrot=/srv (did you mean --chroot?); ...'),
    ('exec --allow-new-priv web.conf -- id', 'there is no option --allow-new-priv; what belongs to the command ...'),
    ('exec --no-new-privs web.conf -- id', 'there is no option --no-new-privs; what belongs to the command ...'),
    ('exec -u daemon -- id', 'there is no option -u; what belongs to the command stands after --; ...'),
    ('check --init-group web.conf', 'there is no option --init-group; ...'),
    # files
    ('plan no-such.conf', 'no-such.conf: No such file or directory'),
    ('plan /etc', '/etc: not a regular file'),
    ('plan /dev/zero', '/dev/zero: not a regular file'),
    # accounts and groups
    ('plan --user no-such', '--user: there is no account "no-such"'),
    ('plan --user Daemon', '--user: there is no account "Daemon"'),
    ('plan --user daemon:mail', '--user: there is no account "daemon:mail"; a group is named by itself: '
     'group = mail (--group mail)'),
    ('plan --user EXAMPLE\\svc', "--user: user holds '\\\\', which is not allowed: give the number instead of the name"),
    ('plan --user daemon --group no-such', '--group: there is no group "no-such"'),
    ('plan --user 4711', '--user: "4711" has no account, so no primary group: name a group'),
    ('plan --user 4294967295 --group 1', '--user: "4294967295" is not an id from 0 to 4294967294'),
    ('plan --user -1', '--user: there is no account "-1"'),
    ("plan --user ''", '--user: user is empty'),
    ('plan --user ecuser:', '--user: there is no account "ecuser:"...'),
    ("plan --user daemon --supplemental-groups 'mail adm'", '--supplemental-groups: ... write the list as mail,adm ...'),
    ("plan --user daemon --supplemental-groups '( mail adm )'", '--supplemental-groups: ... write the list as mail,adm ...'),
    ("plan --user daemon --supplemental-groups 'mail,,adm'", '--supplemental-groups: supplemental_groups has an empty name in it'),
    ('plan --user daemon --supplemental-groups mail,no-such', '--supplemental-groups: there is no group "no-such"'),
    ('plan --user daemon --init-groups --supplemental-groups mail', '--init-groups: all groups of the account, and those '
     'of supplemental_groups besides: name one of the two'),
    ('plan --user 4711 --group 1 --init-groups', '--user: init_groups gives all groups of an account: name a user that has one'),
    # capabilities: nothing is guessed behind a sign that takes away
    ('plan --user daemon --capabilities ~CAP_SYS_ADMIN', '--capabilities: "~" means "all but" elsewhere, and nothing here: '
     'name what to keep; what is not named is given up'),
    ('plan --user daemon --capabilities !cap_net_raw', '--capabilities: "!" means "all but" elsewhere, ...'),
    ('plan --user daemon --capabilities all,!cap_sys_admin+ep', '--capabilities: "!" means "all but" elsewhere, ...'),
    ('plan --user daemon --capabilities -cap_net_raw', '--capabilities: "-" has no names before it: ...'),
    ('plan --user daemon --capabilities cap_net_bind_service', '--capabilities: "cap_net_bind_service" has no flags behind '
     'it: write "cap_net_bind_service+ep"'),
    ('plan --user daemon --capabilities net_bind_service', '--capabilities: "net_bind_service" is not a capability: '
     'write "cap_net_bind_service+ep"'),
    ('plan --user daemon --capabilities cap_net_bind_servise+ep', '... did you mean "cap_net_bind_service+ep"?'),
    ('plan --user daemon --capabilities CAP_NET_RAW+EP', '... "EP" is not a flag, ...: write "cap_net_raw+ep"'),
    ('plan --user daemon --capabilities cap_net_raw+epx', '... "x" is not a flag, and only a blank ends a clause: flags are '
     'e (effective), i (inheritable) and p (permitted)'),
    ("plan --user daemon --capabilities 'cap_net_raw, cap_kill+ep'", '... "," may only stand between two names, without '
     'blanks: write "cap_net_raw,cap_kill+ep"'),
    ('plan --user daemon --capabilities cap_net_raw+ep,cap_kill+ep', '...: write "cap_net_raw+ep cap_kill+ep"'),
    ('plan --user daemon --capabilities cap_net_raw+=ep', '...: write "cap_net_raw+ep"'),
    ('plan --user daemon --capabilities "\'cap_net_raw+ep\'"', '--capabilities: a quotation mark cannot stand in the text: '
     'write "cap_net_raw+ep"'),
    ("plan --user daemon --capabilities 'cap_net_raw +ep'", '...: write "cap_net_raw+ep"'),
    ('plan --user daemon --capabilities cap_bind', '--capabilities: "cap_bind" is not a capability: capabilities(7) lists '
     'them; ...'),
    ('plan --user daemon --capabilities cap_root', '--capabilities: "cap_root" is not a capability: ...'),
    ('plan --user daemon --capabilities file_read', '--capabilities: "file_read" is not a capability: ...'),
    ('plan --user daemon --capabilities none', '--capabilities: "none" is not a capability: ... and "" to keep none'),
    ('plan --user daemon --capabilities cap_%s+ep', '--capabilities: "%" cannot stand in the text: ...'),
    ('plan --user daemon --capabilities 64+ep', '--capabilities: "64" is not a number from 0 to 63: ...'),
    ('plan --user daemon --capabilities 63+ep', '--capabilities: this kernel has no capability 63; its last is ...'),
    ('plan --user daemon --capabilities cap_net_raw+e', '--capabilities: cap_net_raw cannot be effective without being '
     'permitted: add p'),
    # the jail
    ('plan --user daemon --chroot srv/jail', '--chroot: chroot is not an absolute path'),
    # watching
    ('status no-such', 'no-such is not the number of a process; ...'),
    ('status 1 2', 'status takes one PID, or nothing; ...'),
    ('status --user daemon', 'status takes one PID, or nothing; ...'),
    ('status 4194305', 'there is no process 4194305, or it has ended, or /proc does not show it to this user (hidepid) '
     'or is not mounted'),
    ('audit web.conf', 'audit takes FILE and PID; ...'),
    ('audit --user daemon', 'audit takes FILE and PID; ...'),
    ('audit web.conf web.conf', 'web.conf is not the number of a process; ...'),
    ('audit --cgroup /no-such web.conf', '/no-such: no process is in this control group, or there is none'),
]

FILES = [
    # no stanza, or one that is not taken for it
    ('', 'there is no Security { } stanza: write Security { user = NAME }'),
    ('[Security]\nuser = daemon\n', 'F:2:1: error: there is no Security { } stanza: write Security { user = NAME } (user is not '
     'in Security { }: ignored)'),
    ('{ "Security": { "user": "daemon" } }', 'there is no Security { } stanza: write Security { user = NAME }'),
    ('user = daemon\n', 'F:1:1: error: there is no Security { } stanza: ...'),
    ('Securty { user = daemon capabilities = "" }', 'F:1:25: error: there is no Security { } stanza: ... (capabilities is not in '
     'Security { }: ignored)'),
    ('"Security" { user = daemon }', 'F:1:1: error: there is no Security { } stanza: ... (this only looks like ...)'),
    ('x { Security { user = daemon } }', 'F:1:14: error: ... (a Security inside another stanza is not the global one: ignored)'),
    ('mumble\nSecurity { user = daemon }', 'F:1:1: error: a word before Security makes the stanza its own: remove it, or begin a '
     'comment with #'),
    ('; a comment\nSecurity { user = daemon }', 'F:1:5: error: a word before Security ... begin a comment with #'),
    ('Security main { user = daemon }', 'F:1:10: error: the Security stanza has no name and no =: write Security {'),
    ('Security = { user = daemon }', 'F:1:10: error: the Security stanza has no name and no =: write Security {'),
    # beside another stanza
    (b'Security { user = daemon }\n\xef\xbb\xbfSecurity { group = mail }\n', 'F:2:1: warning: this only looks like the Security ...'),
    (b'Security { user = daemon }\nSecurity\xc2\xa0{ group = mail }\n', 'F:2:1: warning: this only looks like the Security ...'),
    ('Security { user = daemon }\nSecurity: { group = mail }\n', 'F:2:1: warning: this only looks like the Security ...'),
    ('Security { user = daemon }\nSecurty { capabilities = "" }\n', 'F:2:11: warning: capabilities is not in Security { }: ignored'),
    ('Security { user = daemon }\ngroup = mail\n', 'F:2:1: warning: group is not in Security { }: ignored'),
    ('Security { user = daemon }\n# x\rSecurity { user = root }\n', 'F:2:4: error: a carriage return alone ends no line: ...'),
    # brackets and marks
    ('Security {\n  user = daemon\n', 'F:1:10: error: missing }: this { is never closed'),
    ('Security { user = "daemon }', 'F:1:19: error: this string is never closed'),
    ('Security { user = daemon } }', 'F:1:28: error: stray }: no stanza is open here'),
    ('/* x\nSecurity { user = daemon }', 'F:1:1: error: this comment is never closed'),
    ("Security { user = 'daemon' }", 'F:1:19: error: a single quote: use " for strings'),
    ('Security { user = \u201cdaemon\u201d }', 'F:1:19: error: a typographic quotation mark: use "'),
    ('Security { user = daemon; }', 'F:1:25: error: stray ;: nothing but blanks stands between options'),
    ('Security { user = daemon, group = mail }', 'F:1:19: error: stray comma: nothing but blanks stands between options'),
    ('Security { user daemon }', 'F:1:17: error: expected = after user'),
    ('Security { user = }', 'F:1:19: error: user takes one word or string'),
    # options
    ('Security { usr = daemon }', 'F:1:12: error: Security has no option "usr" (did you mean user?); it has user, group, ...'),
    ('Security { user: daemon }', 'F:1:12: error: Security has no option "user:" (did you mean user?); ...'),
    ('Security { capabilites = "" }', '... "capabilites" (did you mean capabilities?); ...'),
    ('Security { groups = mail }', '... "groups" (did you mean supplemental_groups?); ...'),
    ('Security { enabled = no }', 'F:1:12: error: Security has no option "enabled"; it has user, group, ...'),
    ('Security { no_new_privs = no }', 'F:1:12: error: Security has no option "no_new_privs"; it has ...'),
    ('Security { include "x.conf" }', 'F:1:12: error: include does not work inside Security: give the file a Security { } of '
     'its own'),
    # values
    ('Security { user = daemon capabilities = cap_net_raw=ep }', 'F:1:52: error: a value with = in it is put in quotation marks'),
    ('Security { user = daemon capabilities = ~CAP_SYS_ADMIN }', 'F:1:41: error: capabilities: "~" means "all but" elsewhere, '
     'and nothing here: ...'),
    ('Security { user = daemon capabilities = "cap_%s+ep" }', 'F:1:46: error: capabilities: "%" cannot stand in the text: ...'),
    ('Security { user = daemon supplemental_groups = mail, adm }', 'F:1:48: error: stray comma: a list of groups is in brackets: '
     '( "mail" "adm" )'),
    ('Security { user = daemon supplemental_groups = mail adm }', '... "adm" (a list of groups is in brackets: ( "mail" "adm" )); '
     '...'),
    ('Security { user = daemon supplemental_groups = "mail adm" }', '... write the list as ( "mail" "adm" ) ...'),
    ('Security { user = daemon supplemental_groups = ( mail, adm ) }', '... expected a group or ), not "mail,"; blanks stand '
     'between groups'),
    ('Security { user = "EXAMPLE\\\\svc" }', "... user holds '\\\\', which is not allowed: give the number instead of the name"),
    ('Security { user = daemon chroot = srv }', 'F:1:35: error: chroot is not an absolute path'),
    ('Security { user = daemon user = mail }', 'F:1:33: warning: user overrides F:1:19'),
    # other files
    ('include "no-such.conf"', 'F:1:9: error: "no-such.conf" is neither beside this file nor on the search path'),
    ('include "http://x/y"', 'F:1:9: error: only file:// can be included'),
    # allowed, yet worth a line
    ('Security { capabilities = "" }', 'F: warning: no user is named, and the default, ecuser, has no account: name one'),
    ('Security { user = root }', 'F:1:19: warning: user is root and capabilities is absent: root keeps everything'),
    ('Security { user = nobody }', 'F:1:19: warning: nobody is shared by many: ...'),
    ('Security { user = daemon capabilities = cap_sys_admin+ep }', 'F:1:41: warning: amounts to root: cap_sys_admin'),
    ('Security { user = daemon capabilities = cap_kill+p }', 'F: warning: cap_kill: permitted but not effective, which cannot '
     'survive exec; write +ep'),
]

# as root: what `exec` or `plan` refuses, or the command cannot do
REFUSED = [
    ('exec --user daemon --chroot /no-such -- id', 125, 'chroot: /no-such: No such file or directory'),
    ('exec --user daemon --chroot /etc/passwd -- id', 125, 'chroot: /etc/passwd: Not a directory'),
    ('exec --user daemon --chroot /tmp -- id', 125, 'chroot: /tmp: only root may be able to write or replace it, not everyone'),
    ('exec --user daemon --chroot /usr/../usr -- id', 125, 'chroot: /usr/../usr: write it without ..'),
    ('exec -q --user daemon --capabilities cap_kill+p -- id', 125, 'cap_kill: permitted but not effective, which cannot survive '
     'exec; write +ep'),
    ('exec -q --user daemon -- /no-such', 127, '/no-such: No such file or directory'),
    ('exec -q --user daemon -- /etc/passwd', 126, '/etc/passwd: Permission denied: user 1 may not execute it, or enter its '
     'directory'),
    ('exec -q --user daemon --chroot JAIL -- /ls', 127, '/ls: No such file or directory: the file is there; its interpreter or '
     'loader is missing (in the jail JAIL)'),
    ('exec -q --user daemon --chroot JAIL -- /script', 127, '/script: No such file or directory: the file is there; its '
     'interpreter ...'),
    ('exec -q --user daemon --chroot JAIL -- /x', 127, '/x: No such file or directory (in the jail JAIL)'),
    ('exec -q HOME/web.conf -- id', 125, "HOME/web.conf can be rewritten by user 1000..., through HOME: only root, or the user it "
     "names, may be able to; copy it to where that is so (install -m 644 -o root FILE /etc), or give options instead of a file"),
]

# as the user daemon, without any right
ORDINARY = [
    ('exec --user mail -- id', 'cannot change user to 8: cap_setuid is not in this process\'s permitted set; start it as root, or '
     'with this capability ...'),
    ('exec --user daemon --supplemental-groups mail -- id', 'cannot change the supplementary groups, none, to 8: cap_setgid is '
     'not in ...; start it as root, ...'),
    ('exec --user daemon --capabilities cap_kill+ep -- id', "cap_kill: not in this process's permitted set; start it as root, "
     '...'),
    ('exec --user daemon --chroot /usr -- id', 'cannot change the root directory: cap_sys_chroot is not in ...; start it as '
     'root, ...'),
    ('audit --user root --capabilities cap_kill+ep 1', 'process 1: its root directory and namespaces cannot be seen: run the '
     'audit as root'),
]


def words(line):
    """As a shell takes them."""
    import shlex
    return shlex.split(line.replace('\\', '\\\\'))


def says(message, text, prefix):
    """Is it one of the lines?  ... stands for anything."""
    pattern = '.*'.join(re.escape(part) for part in message.split('...'))
    return any(re.match(re.escape(prefix) + pattern + r'\Z', line) for line in text.splitlines())


@pytest.fixture
def place(tmp_path):
    tmp_path.joinpath('web.conf').write_text('Security { user = daemon }\n')
    return str(tmp_path)


def test_there_are_enough_rows():
    assert len(COMMAND_LINES) + len(FILES) + len(REFUSED) + len(ORDINARY) >= 60


@pytest.mark.parametrize('line, message', COMMAND_LINES, ids=[line or 'nothing' for line, _ in COMMAND_LINES])
def test_what_was_typed_is_answered_in_one_line(place, line, message):
    done = run(*words(line), cwd=place)
    assert done.returncode in (2, 125) and not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert says(message, done.stderr, 'capdrop: '), done.stderr


@pytest.mark.parametrize('text, message', FILES, ids=[ascii(text)[:60] for text, _ in FILES])
def test_what_stands_in_a_file_is_answered_with_its_place(place, text, message):
    with open(os.path.join(place, 'web.conf'), 'wb') as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    done = run('check', 'web.conf', cwd=place)
    is_error = ' warning: ' not in message
    lines = [line for line in done.stdout.splitlines() if 'can be rewritten' not in line]   # where the tests lie
    assert done.returncode == is_error and len(lines) == 1 and not done.stderr, done.stdout
    prefix = '' if message.startswith(('F', '...')) else 'web.conf: error: '
    assert says(message.replace('F:', 'web.conf:'), lines[0], prefix), done.stdout


@pytest.fixture
def places():
    """A jail with a program without its loader and a script without its interpreter, and somebody's home."""
    need_root()
    need_accounts_of_debian()
    top = tempfile.mkdtemp(prefix='capdrop-messages-', dir='/srv')
    os.chmod(top, 0o755)
    jail, home = os.path.join(top, 'jail'), os.path.join(top, 'home')
    os.mkdir(jail)
    os.mkdir(home)
    shutil.copy('/bin/ls', jail)
    for name, text in ('jail/script', '#!/no/such\n'), ('home/web.conf', 'Security { user = daemon }\n'):
        with open(os.path.join(top, name), 'w') as file:
            file.write(text)
    os.chmod(os.path.join(jail, 'script'), 0o755)
    os.chown(home, 1000, 1000)
    yield jail, home
    shutil.rmtree(top)


def is_dynamic(path):
    with open(path, 'rb') as file:
        return b'/ld-' in file.read(4096)


@pytest.mark.parametrize('line, status, message', REFUSED, ids=[row[0] for row in REFUSED])
def test_what_root_is_refused_says_why_and_what_to_do(places, line, status, message):
    need('/ls' not in line or is_dynamic('/bin/ls'), 'needs an ls that has a loader')

    def put(text):
        return text.replace('JAIL', places[0]).replace('HOME', places[1])
    done = run(*put(line).split())
    assert (done.returncode, done.stdout) == (status, '')
    assert says(put(message), done.stderr, 'capdrop: '), done.stderr


@pytest.mark.parametrize('line, message', ORDINARY, ids=[row[0] for row in ORDINARY])
def test_who_is_not_root_is_told_what_is_missing_and_to_start_as_root(tmp_path, line, message):
    need_root()
    need_accounts_of_debian()
    need(os.path.exists('/usr/bin/python3'), 'needs a Python that anybody may run')
    path = tempfile.mkdtemp(prefix='capdrop-messages-', dir='/tmp')
    os.chmod(path, 0o755)
    shutil.copy(SCRIPT, path)
    os.chmod(path + '/capdrop.py', 0o644)       # it may be of a clone that is private

    def become():
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)
    try:
        done = run_command(['/usr/bin/python3', '-I', path + '/capdrop.py'] + line.split(), preexec_fn=become, cwd='/')
    finally:
        shutil.rmtree(path)
    assert (done.returncode, done.stdout) == (125, '')
    assert says(message, done.stderr, 'capdrop: '), done.stderr


# ---------------------------------------------------------------------------- guesses

def proposals(text):
    """The texts that a message about this one proposes."""
    try:
        capdrop.this_platform().parse(text)
    except ValueError as error:
        return re.findall(r'(?:write|did you mean) "(.*?)"', error.args[0])
    return []


def named(sets):
    return set(sets['permitted'] | sets['effective'] | sets['inheritable'])


@pytest.mark.parametrize('sign', '~!-^')
def test_nothing_is_guessed_where_something_is_taken_away(sign):
    for name in capdrop.CAPABILITY_NAMES:
        for text in sign + name, 'all,' + sign + name, '%s+ep %s%s' % (name, sign, name[4:]), sign + name.upper() + '=ep':
            assert not [one for one in proposals(text) if name in one.lower()] or sign == '^', text


def test_a_guess_names_nothing_that_amounts_to_root_unless_that_was_written():
    """Every capability with one letter left out, doubled or changed, and its parts."""
    powerful = set(capdrop.CapSet(capdrop.ROOT_EQUIVALENT))
    guesses = 0
    for name in capdrop.CAPABILITY_NAMES:
        bare = name[4:]
        slips = {bare[:at] + letter + bare[at + cut:] for at in range(len(bare)) for letter in ('', 'x', bare[at] * 2)
                 for cut in (0, 1)} | set(bare.split('_'))
        for slip in slips:
            for guess in proposals('cap_' + slip):
                got = named(capdrop.this_platform().parse(guess))
                guesses += 1
                near = [one for one in got if one[4:].replace('_', '') != slip.replace('_', '')]
                assert len(got) == 1 and (not near or abs(len(near[0]) - 4 - len(slip)) <= 1), (slip, guess)
                if got & powerful:              # one slip away from what was written, and from nothing else
                    assert name in got, (slip, guess)
    assert guesses > 500


def test_no_switch_is_ever_guessed():
    for word in '--allow-new-priv', '--allow', '--no-allow-new-privs', '--no-new-privs', '--at-mos', '--exe', '--init-group':
        for verb in 'exec', 'plan', 'audit':
            assert 'did you mean' not in run(verb, word, 'web.conf').stderr, word


# ---------------------------------------------------------------------------- in a program

def of(exec):
    return capdrop.plan(capdrop.Security(user='daemon'), exec=exec)


CALLS = [
    (lambda: capdrop.drop('web.conf'), TypeError, 'drop takes a Security, not str: capdrop.load(FILE) makes one'),
    (lambda: capdrop.plan({'user': 'daemon'}), TypeError, 'plan takes a Security, not dict: capdrop.load(FILE) makes one'),
    (lambda: capdrop.launch('web.conf', ['id']), TypeError, 'launch takes a Security, not str: ...'),
    (lambda: capdrop.audit('web.conf', 1), TypeError, 'audit takes a Security, not str: ...'),
    (lambda: capdrop.drop(of(exec=True)), ValueError, 'drop needs a plan(..., exec=False)'),
    (lambda: capdrop.launch(of(exec=False), ['id']), ValueError, 'launch needs a plan(..., exec=True)'),
    (lambda: capdrop.drop(of(exec=False), no_new_privs=False), ValueError, 'no_new_privs has been decided by the plan'),
    (lambda: capdrop.launch(capdrop.Security(user='daemon'), []), ValueError, 'launch needs a command'),
    (lambda: capdrop.Security(supplemental_groups='mail adm'), capdrop.ConfigError, "supplemental_groups=: ... write the list as "
     "('mail', 'adm') ..."),
    (lambda: capdrop.Security(usr='daemon'), TypeError, "...unexpected keyword argument 'usr'..."),
    (lambda: capdrop.load('no-such.conf'), capdrop.ConfigError, 'no-such.conf: No such file or directory'),
    (lambda: capdrop.state(4194305), capdrop.RefusedError, 'there is no process 4194305, ...'),
]


def outcome(number):
    """(its text, whether all is as before); in a child, should there be none."""
    call, kind, _ = CALLS[number]
    before = capdrop.state()
    try:
        call()
    except kind as error:
        return str(error), capdrop.state() == before


@pytest.mark.parametrize('number', range(len(CALLS)))
def test_what_a_program_gets_wrong_is_said_before_anything_changes(number):
    text, unchanged = in_child(outcome, number)
    assert unchanged and says(CALLS[number][2], text, ''), text


def test_more_groups_than_the_system_takes_are_an_error_of_the_file_with_its_place(tmp_path):
    most = capdrop.this_platform().most_groups()
    path = tmp_path / 'f'
    path.write_text('Security { user = 1111 group = 4321\n  supplemental_groups = ( %s ) }' % ' '.join(map(str, range(1, most + 2))))
    errors, _ = capdrop.check(capdrop.load(str(path)), True)
    assert [str(error) for error in errors] == ['%s:2:25: supplemental_groups: %d groups: this system takes %d' % (path, most + 1, most)]


def test_check_answers_with_125_where_it_cannot_answer():
    def child():
        def broken():
            raise OSError(38, 'Function not implemented', 'prctl')
        capdrop.PLATFORMS[sys.platform] = broken
        del capdrop.platforms_in_use[:]
        return capdrop.main(['check', '--user', '1111', '--group', '4321'])
    assert in_child(child) == 125
