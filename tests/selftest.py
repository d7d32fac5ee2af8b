#!/usr/bin/env python3
"""Does capdrop keep its promise here?  Run as root, where no pytest is; nothing but this file and capdrop.py is needed.

usage: python3 selftest.py [--user NAME] [path of capdrop.py]

Each line is a drop, for real, in a child of this process, looked at from outside: 'ok ...' or 'FAILED ...'.
The exit status is 0 if all held.  --user: the account to drop to, default daemon, nobody or number 65534.
"""
import ctypes
import json
import os
import posix
import pwd
import sys

BIND, RAW = 1 << 10, 1 << 13
FIELDS = 'Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs'


def status(pid):
    """What /proc says of a process."""
    with open('/proc/%s/status' % pid) as file:
        lines = dict(line.rstrip('\n').split(':', 1) for line in file if ':' in line)
    return {name: int(lines[name], 16) if name.startswith('Cap') else [int(n) for n in lines[name].split()] for name in FIELDS}


def asked(libc=ctypes.CDLL(None)):
    """The same where there is no /proc, asked by the process itself, with calls that are not capdrop's."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    is_set = lambda *args: libc.prctl(args[0], *[ctypes.c_ulong(n) for n in (args[1:] + (0, 0, 0, 0))[:4]]) == 1
    bits = lambda *args: sum(1 << n for n in range(64) if is_set(*args + (n,)))
    return {'Uid': list(os.getresuid()) + [libc.setfsuid(-1)], 'Gid': list(os.getresgid()) + [libc.setfsgid(-1)],
            'Groups': os.getgroups(), 'CapEff': data[0] | data[3] << 32, 'CapPrm': data[1] | data[4] << 32,
            'CapInh': data[2] | data[5] << 32, 'CapBnd': bits(23), 'CapAmb': bits(47, 1), 'NoNewPrivs': [int(is_set(39))]}


def child(function, audit=lambda pid: []):
    """(what is seen of a child that has run the function and waits, its exit status, what it said)."""
    pipes = [os.pipe() for _ in range(3)]       # it tells, it is let go, it says
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.dup2(pipes[2][1], 2)
            function()
            os.write(pipes[0][1], b'0' if os.path.exists('/proc/self/status') else json.dumps(asked()).encode())
            os.close(pipes[1][1])
            os.read(pipes[1][0], 1)
            code = 0
        except BaseException as e:
            os.write(2, ('%s: %s' % (type(e).__name__, e)).encode())
        finally:
            os._exit(code)
    for fd in pipes[0][1], pipes[1][0], pipes[2][1]:
        os.close(fd)
    told = os.read(pipes[0][0], 4096)
    seen = dict(status(pid), audit=audit(pid)) if told == b'0' else json.loads(told.decode()) if told else None
    os.close(pipes[1][1])
    said = os.read(pipes[2][0], 4096).decode('utf-8', 'replace').strip()
    code = os.waitpid(pid, 0)[1]
    for fd in pipes[0][0], pipes[2][0]:
        os.close(fd)
    return seen, code >> 8 if not code & 127 else -(code & 127), said


def main(words):
    user = ''
    if '--user' in words[:-1]:
        at = words.index('--user')
        user = words.pop(at + 1)
        words.pop(at)
    here = os.path.dirname(os.path.abspath(__file__))
    path = words or [here + '/capdrop.py', here + '/../capdrop.py']
    found = [file for file in path if os.path.isfile(file)]
    if not found or len(words) > 1:
        sys.exit('no capdrop.py: %s\n\n%s' % (' '.join(path), __doc__))
    sys.path.insert(0, os.path.dirname(os.path.abspath(found[0])))
    import capdrop
    failed, names = [], {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    user = user or next((name for name in ('daemon', 'nobody') if name in names), '65534')
    uid = int(names.get(user, user))
    options, gid, state = dict(user=user, group='1'), 1, capdrop.state()
    bound = lambda caps: caps if state.permitted >> 8 & 1 else int(state.bounding)      # cap_setpcap

    def report(good, line, *why):
        print('%s %s%s' % ('ok' if good else 'FAILED', line, '' if good else ': ' + ' '.join(map(str, why))))
        sys.stdout.flush()
        failed.extend([line] * (not good))

    def ends(line, function, caps, others=(), security=None):
        def audit(pid):
            return [str(one) for one in capdrop.audit(security, pid) if one.field != 'bounding' or state.permitted >> 8 & 1]
        seen, code, said = child(function, audit)
        wanted = dict(Uid=[uid] * 4, Gid=[gid] * 4, Groups=list(others), CapInh=0, CapPrm=caps, CapEff=caps, CapBnd=bound(caps),
                      CapAmb=0, NoNewPrivs=[1], audit=[]) if seen else {}
        wrong = {name: seen[name] for name in wanted if seen.get(name, wanted[name]) != wanted[name]}
        report(seen and not wrong, line, wrong or 'exit %d, %s' % (code, said))

    print('capdrop %s, Python %s, %s' % (capdrop.__version__, sys.version.split()[0], ' '.join(os.uname()[i] for i in (0, 2, 4))))
    for line, start, caps, more in (
            ('%s, no capability' % user, [], 0, {}), ('%s, one capability' % user, [], BIND, {'capabilities': 'cap_net_bind_service+ep'}),
            ('%s, two groups' % user, [lambda: os.setgroups([0, 7])], 0, {'supplemental_groups': ('4', '5')}),
            ('%s, chroot to /' % user, [], 0, {'chroot': '/'})):
        security = capdrop.Security(**dict(options, **more))
        ends(line, lambda: [call() for call in start] + [capdrop.drop(security)], caps,
             [int(group) for group in more.get('supplemental_groups', ())], security)
    with_bind = capdrop.Security(capabilities='cap_net_bind_service+ep', **options)
    ends('and again to the same', lambda: (capdrop.drop(with_bind), capdrop.drop(with_bind)), BIND, (), with_bind)
    seen, code, said = child(lambda: capdrop.drop(with_bind), lambda pid: [one.field for one in capdrop.audit(
        capdrop.Security(supplemental_groups=('4',), **options), pid) if one.field != 'bounding'])
    report(seen and seen.get('audit', ['groups', 'permitted', 'effective']) == ['groups', 'permitted', 'effective'],
           'audit finds a group and a capability', seen and seen.get('audit'), code, said)
    for name, back in (('setuid', lambda: os.setuid(0)), ('setgid', lambda: os.setgid(0)), ('chroot', lambda: os.chroot('/')),
                       ('setgroups', lambda: os.setgroups([0])), ('setresuid', lambda: os.setresuid(-1, 0, -1))):
        seen, code, said = child(lambda: (capdrop.drop(with_bind), back()))
        report(code == 99 and said.startswith('PermissionError'), 'afterwards %s fails' % name, code, said)
    real, posix.setresuid = posix.setresuid, lambda *ids: None
    seen, code, said = child(lambda: capdrop.drop(with_bind))
    posix.setresuid = real
    report(code == 125 and 'half-dropped' in said, 'a call that lies ends the process', code, said)
    for line, wrong in (('an unknown user', dict(user='no-such-user')), ('user 4294967295', dict(user='4294967295', group='1')),
                        ('a capability that does not exist', dict(options, capabilities='cap_no_such+ep'))):
        seen, code, said = child(lambda: capdrop.drop(capdrop.Security(**wrong)))
        report(code == 99 and said.startswith('ConfigError'), '%s is refused' % line, code, said)
    script = capdrop.__file__, 'exec', '-q', '--user', user, '--group', '1', '--capabilities', 'cap_net_bind_service+ep', '--'
    exits = ['/bin/sh', '-c', 'exit 7'] if os.path.exists('/bin/sh') else [sys.executable, '-c', 'import os; os._exit(7)']
    for code_wanted, command in ((7, exits), (127, ['/no/such/command'])):
        seen, code, said = child(lambda: os.execv(sys.executable, [sys.executable, '-I'] + list(script) + command))
        report(code == code_wanted, 'a launch ends with status %d' % code_wanted, code, said)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
