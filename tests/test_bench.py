"""tests/bench.py measures what docs/performance.md says, and leaves nothing behind.  Nothing here depends on a time."""
import json
import os
import re
import shutil
import sys

import pytest

import bench
import capdrop
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
    command = [sys.executable, os.path.join(TESTS, 'bench.py'), '--rounds', '2', '--size', '100000',
               '--json', str(written)]
    done = run_command(command, env=env)
    assert done.returncode == 0, done.stderr
    return done, json.loads(written.read_text()), noticed.read_text().splitlines(), os.listdir(str(temporary))


def contender(measured, name):
    return [one for one in measured[1]['contenders'] if one['name'] == name][0]


def table(measured, columns):
    """The rows of a printed table, split."""
    lines = re.findall(r'^\| .* \|$', measured[0].stdout, re.M)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [row for row in rows if len(row) == columns and row[1] != 'against' and row[0]]


def is_number(text):
    return re.match(r'\d+(\.\d+)?$', text) is not None


def test_every_row_that_can_be_measured_here_is_printed(measured):
    names = [bench.PASS, bench.AGAIN, bench.LIMIT, bench.CACHED, bench.WRAPPED, bench.SCRIPT,
             bench.MODULE, bench.ZIPPED, bench.DROP, bench.FIRST, bench.SAME, bench.BARE,
             bench.FULL, bench.OURS, bench.THEIRS]
    names += [name for name in ('setpriv', 'capsh', 'gosu') if shutil.which(name)]
    rows = {row[0]: row for row in table(measured, 7)}
    for name in names:
        _, cpu, _, _, by_python, by_limit, _ = rows[name]
        assert is_number(cpu) and float(cpu) > 0, name
        assert is_number(by_python), name
        assert is_number(by_limit) or by_limit == '-', name
    assert measured[0].stderr == ''


def test_every_goal_is_printed_with_its_interval_and_verdict(measured):
    rows = table(measured, 6)
    assert len(rows) == len(bench.GOALS)
    for row, goal in zip(rows, measured[1]['goals']):
        assert row[0].startswith(goal['what'])
        value, most = goal['measured'], goal['at_most']
        if value is None:
            assert row[3:] == ['-', '- to -', 'not measured'] or goal['against'] == 'pyprctl'
            continue
        low, high = goal['interval']
        assert low <= value <= high
        assert value > 0 or goal['figure'] == 'more_cpu'
        assert row[5] == ('met' if value <= most else 'missed')


def test_only_pyprctl_may_be_missing(measured):
    missing = {goal['against'] for goal in measured[1]['goals'] if goal['measured'] is None}
    assert missing <= {'pyprctl', None}


def test_system_calls_of_a_drop_are_counted(measured):
    need(shutil.which('strace'), 'needs strace')
    counts = {name: contender(measured, name)['system_calls']
              for name in (bench.DROP, bench.FIRST, bench.SAME, bench.BARE)}
    assert 300 < counts[bench.DROP] < counts[bench.FIRST]
    assert 300 < counts[bench.BARE] < counts[bench.SAME]


def test_there_are_eight_shapes_and_more_and_each_is_read(measured):
    shapes = list(bench.SHAPES) + list(bench.WHOLE)
    assert len(shapes) >= 8
    for shape in shapes:
        assert contender(measured, shape)['cpu_us']
        assert contender(measured, bench.WC % shape)['cpu_us']


def test_configurations_are_of_their_size_and_end_with_the_stanza():
    for piece in bench.SHAPES.values():
        text = bench.configuration(20000, piece)
        assert 19000 < len(text.encode()) < 21000
        assert capdrop.loads(text).user == bench.USER
    for before, piece, after in bench.WHOLE.values():
        assert capdrop.loads(bench.configuration(20000, piece, before, after)).user == bench.USER


def test_the_interval_holds_the_median():
    for values in [1.0], [1.0, 2.0], [3.0, 1.0, 2.0], list(map(float, range(100))):
        low, high = bench.interval(values)
        assert min(values) <= low <= bench.median(values) <= high <= max(values)
    assert bench.interval(list(range(100))) == (39, 60)


def test_ratios_are_of_the_same_round():
    found = {}
    for name, samples in ('a', {1: 10.0, 2: 40.0, 3: 9.0}), ('b', {1: 5.0, 2: 20.0, 4: 1.0}):
        found[name] = bench.Contender(name, 'python', ['true'], base='b')
        found[name].samples['cpu_us'] = samples
    assert bench.ratios(found, 'a', 'b', 'cpu_us') == [2.0, 2.0]
    assert bench.ratios(found, 'a', 'b', 'more_cpu') == [1.0, 1.0]
    assert bench.ratios(found, 'a', 'c', 'cpu_us') == []


def test_what_starting_costs_is_taken_off():
    found = {}
    for name, less, value in ('a', None, 30.0), ('b', 'c', 12.0), ('c', None, 2.0):
        found[name] = bench.Contender(name, 'wc', ['true'], base='c', less=less)
        found[name].samples['cpu_us'] = {1: value}
    assert bench.ratios(found, 'a', 'b', 'cpu_us') == [3.0]


def test_noise_is_stated(measured):
    assert re.search(r'^Noise: .* against itself is [\d.]+ \([\d.]+ to [\d.]+\)\.$',
                     measured[0].stdout, re.M)


def test_json_has_the_documented_keys(measured):
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    figures = measured[1]
    assert set(figures) == {'date', 'python', 'kernel', 'machine', 'locale', 'rounds', 'contenders',
                            'goals'}
    keys = {'name', 'kind', 'base', 'ends_as', 'system_calls', 'cpu_us', 'peak_kib'}
    assert [one for one in figures['contenders'] if set(one) != keys] == []
    goal = {'what', 'against', 'figure', 'at_most', 'measured', 'interval'}
    assert [one for one in figures['goals'] if set(one) != goal] == []
    for key in set(figures) | keys | goal:
        assert '`%s`' % key in page, key
    assert figures['rounds'] == 2
    for one in figures['contenders']:           # the first round is not counted
        assert set(one['cpu_us']) in ({'1', '2'}, {'1'}), one['name']


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
    python, smallest = (contender(measured, name)['peak_kib'].values()
                        for name in (bench.PASS, bench.LIMIT))
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
    for what, against, figure, most in bench.GOALS:
        shown = '%d' if figure == 'system_calls' else '%.2f'
        row = '| %s%s | %s | %s | ' % (what, bench.FIGURES[figure], against or '', shown % most)
        assert '\n' + row in page
    for name in (bench.CACHED, bench.WRAPPED, bench.SCRIPT, bench.MODULE, bench.ZIPPED, bench.LIMIT,
                 bench.DROP, bench.SAME, bench.OURS, 'pyprctl', "libcap-ng's Python binding"):
        assert '\n| %s | ' % name in page
