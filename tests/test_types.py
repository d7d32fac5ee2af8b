"""What a type checker makes of a program that imports capdrop, and what its readers see."""
import os
import pydoc
import shutil
import sys

import pytest

from conftest import SCRIPT, need, run_command
import capdrop

PROGRAM = '''\
from typing import List, Optional, Tuple
import capdrop

security = capdrop.load('my.conf')
other = capdrop.Security(user='daemon', group=7, supplemental_groups=['mail', 8], capabilities='', init_groups=False)
user: Optional[str] = security.user


def serve() -> Tuple[int, ...]:
    try:
        state = capdrop.drop(security)
    except capdrop.ConfigError as e:
        line: Optional[int] = e.line
        raise SystemExit('%s %s' % (line, e.message))
    except capdrop.RefusedError as e:
        raise SystemExit(str(e))
    return state.uid


def look(pid: int) -> List[str]:
    plan = capdrop.plan(other, exec=True, no_new_privs=False)
    audit = capdrop.audit(other, pid)
    return list(plan.refusals + plan.warnings) + audit.unseen + [one.field + str(one) for one in audit.more()]


def start() -> int:
    capdrop.launch(other, ['ls', '-l'], env={'PATH': '/bin'})
'''
WRONG = [('capdrop.drop("my.conf")', 'arg-type'), ('capdrop.plan(other, 1)', 'arg-type'), ('capdrop.load(7)', 'arg-type'),
         ('capdrop.audit(other, "1")', 'arg-type'), ('capdrop.state(pid="1")', 'arg-type'), ('user.strip()', 'union-attr'),
         ('capdrop.Security(capabilities=["x"])', 'arg-type'), ('capdrop.Security(users="x")', 'call-arg'),
         ('other.where["user"].nothing()', 'attr-defined')]


def check(tmp_path, program):
    need(shutil.which('mypy'), 'needs mypy')
    shutil.copy(SCRIPT, str(tmp_path))
    (tmp_path / 'program.py').write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'MYPY'))}
    return run_command(['mypy', '--strict', '--no-incremental', 'program.py'], cwd=str(tmp_path), env=environment)


def test_a_program_that_uses_all_of_it_passes_the_strict_checker(tmp_path):
    done = check(tmp_path, PROGRAM)
    assert done.returncode == 0 and done.stdout.startswith('Success'), done.stdout


def test_the_checker_sees_what_is_used_wrongly(tmp_path):
    done = check(tmp_path, PROGRAM + '\n' + '\n'.join(line for line, _ in WRONG))
    first = PROGRAM.count('\n') + 2
    found = {int(line.split(':')[1]) - first: line.split('[')[-1].rstrip(']') for line in done.stdout.splitlines() if ' error: ' in line}
    assert found == {number: code for number, (_, code) in enumerate(WRONG)}, done.stdout


def test_hints_cost_no_import():
    done = run_command([sys.executable, '-I', '-S', '-c', 'import sys; sys.path.insert(0, %r); import capdrop; '
                        'sys.exit("typing" in sys.modules)' % os.path.dirname(SCRIPT)])
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('name', capdrop.__all__)
def test_everything_public_says_what_it_is(name):
    thing = getattr(capdrop, name)
    assert thing.__doc__
    if isinstance(thing, type):
        assert thing.__doc__ != thing.__mro__[1].__doc__
        assert [one for one in vars(thing) if not one.startswith('_') and not getattr(thing, one).__doc__
                and callable(getattr(thing, one))] == []
    assert name in pydoc.render_doc(thing)
