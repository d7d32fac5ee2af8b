"""tests/bench.py measures what docs/performance.md says, and leaves nothing behind.  Nothing here depends on a time."""
import json
import os
import re
import shutil
import sys

import pytest

import bench
from conftest import TESTS, TOP, need, need_root, run_command

PAGE = os.path.join(TOP, 'docs', 'performance.md')
NOTICED = "import os, sys\nwith open(%r, 'a') as file:\n    file.write('%%d %%s\\n' %% (os.getpid(), sys.executable))\n"


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """One short run in surroundings that would spoil it: (what it printed, its JSON, who noticed, what is left)."""
    need_root()
    need(shutil.which('cc'), 'needs cc')
    top = tmp_path_factory.mktemp('bench')
    noticed, written, temporary = top / 'noticed', top / 'figures.json', top / 'tmp'
    temporary.mkdir()
    (top / 'path').mkdir()
    (top / 'path' / 'sitecustomize.py').write_text(NOTICED % str(noticed))
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE='1', PYTHONPATH=str(top / 'path'), TMPDIR=str(temporary))
    command = [sys.executable, os.path.join(TESTS, 'bench.py'), '--rounds', '2', '--json', str(written)]
    done = run_command(command, env=env)
    assert done.returncode == 0, done.stderr
    return done, json.loads(written.read_text()), noticed.read_text().splitlines(), os.listdir(str(temporary))


def contender(measured, name):
    return [one for one in measured[1]['contenders'] if one['name'] == name][0]


def test_every_row_that_can_be_measured_here_is_printed(measured):
    names = [bench.PASS, bench.AGAIN, bench.LIMIT, bench.CACHED, bench.SCRIPT, bench.DROP, bench.FIRST, bench.SAME,
             bench.LOAD, bench.WC, bench.OURS, bench.THEIRS]
    names += [name for name in ('setpriv', 'capsh', 'gosu') if shutil.which(name)]
    for name in names:
        assert len(re.findall(r'^\| %s \| \d+ \| \d+ to \d+ \|' % re.escape(name), measured[0].stdout, re.M)) == 1, name
    assert measured[0].stderr == ''


def test_every_goal_is_printed_with_its_verdict(measured):
    goals = re.findall(r'^\| ([^|]*) \| ([^|]*) \| ([\d.]+) \| ([\d.]+|-) \| ([^|]*) \|$', measured[0].stdout, re.M)
    assert [(what.replace(', peak memory', ''), to, float(most)) for what, to, most, _, _ in goals] == [
        (what, to, most) for what, to, _, most in bench.GOALS]
    for what, to, most, value, verdict in goals:
        assert verdict == ('not measured' if value == '-' else 'met' if float(value) <= float(most) else 'missed') or (
            value == most + '0')                # it was rounded
        assert value != '-' or to == 'pyprctl'


def test_noise_is_stated(measured):
    assert re.search(r'^Noise: .* differs by a factor of [\d.]+; the middle half of its runs spans [\d.]+%\.$',
                     measured[0].stdout, re.M)


def test_json_has_the_documented_keys(measured):
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    figures = measured[1]
    assert set(figures) == {'date', 'python', 'kernel', 'machine', 'locale', 'rounds', 'noise', 'contenders', 'goals'}
    keys = {'name', 'kind', 'base', 'ends_as', 'cpu_us', 'peak_kib'}
    assert [one for one in figures['contenders'] if set(one) != keys] == []
    assert [one for one in figures['goals'] if set(one) != {'what', 'to', 'figure', 'at_most', 'measured'}] == []
    for key in set(figures) | keys | set(figures['goals'][0]):
        assert '`%s`' % key in page, key
    assert figures['rounds'] == 2
    assert {len(one['cpu_us']) for one in figures['contenders']} == {2}     # the first round is not counted


def test_limit_in_c_ends_in_the_state_that_capdrop_ends_in(measured):
    ends_as = contender(measured, bench.LIMIT)['ends_as']
    assert ends_as == contender(measured, bench.CACHED)['ends_as'] == contender(measured, bench.SCRIPT)['ends_as']
    assert set(ends_as) == set(bench.FIELDS)
    assert ends_as['Uid'].split() == ends_as['Gid'].split() == ['1'] * 4
    assert len(ends_as['Groups'].split()) == 2
    assert {int(ends_as['Cap' + name], 16) for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {1 << 10 | 1 << 5}
    assert ends_as['NoNewPrivs'] == '1'


def test_no_contender_sees_a_python_variable(measured):
    assert len(measured[2]) == 1, measured[2]   # the interpreter of bench.py itself


def test_its_directory_is_removed(measured):
    assert measured[3] == []


def test_peak_memory_is_the_contenders_own(measured):
    python, smallest = (contender(measured, name)['peak_kib'] for name in (bench.PASS, bench.LIMIT))
    assert 2 * max(smallest) < min(python)      # it began small, not as a copy of what started it


def test_only_root_is_measured():
    code = ('import os, sys; sys.path.insert(0, %r); import bench; os.geteuid = lambda: 1; sys.argv[1:] = []; '
            'sys.exit(bench.main())')
    done = run_command([sys.executable, '-c', code % TESTS])
    assert done.returncode == 2
    assert done.stderr == 'bench.py: run it as root: nobody else has anything to drop\n'


def test_page_has_one_dated_table_of_this_form():
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    assert len(re.findall(r'^\d{4}-\d\d-\d\d, CPython 3\.11\.\d+, Linux .* rounds; ', page, re.M)) == 1
    table = [re.escape(line) for line in bench.HEADINGS]
    assert [len(re.findall('^%s$' % line, page, re.M)) for line in table] == [1, 1]
    for what, to, figure, most in bench.GOALS:
        assert '| %s%s | %s | %.2f | ' % (what, ', peak memory' * (figure == 'peak_kib'), to, most) in page
    for name in (bench.CACHED, bench.SCRIPT, bench.LIMIT, bench.DROP, bench.SAME, bench.LOAD, bench.OURS, 'pyprctl'):
        assert '\n| %s | ' % name in page
