"""Our own lists: the same whatever the order of files, and with groups on one side."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ftc.benchmarks.catalogue import BENCHMARKS
from ftc.benchmarks.lists import own_lists

DOMAINS = BENCHMARKS["office_home"].domains


@given(data=st.data())
def test_own_lists_split_every_class_whatever_the_order_of_files(data):
    classes = st.dictionaries(st.text("abc", min_size=1), st.integers(1, 12), min_size=1, max_size=4)
    sizes = data.draw(st.dictionaries(st.sampled_from(DOMAINS), classes, min_size=1))
    files = [f"{d}/{c}/{i}.jpg" for d, inside in sizes.items() for c, n in inside.items() for i in range(n)]
    benchmark = BENCHMARKS["office_home"]
    lists = own_lists(benchmark, data.draw(st.permutations(files)))
    assert lists == own_lists(benchmark, files)
    assert sorted(path for entries in lists.values() for path, _ in entries) == sorted(files)
    names = sorted({c for inside in sizes.values() for c in inside})
    for domain, inside in sizes.items():
        training = Counter(label for _, label in lists[f"{domain}_training.txt"])
        testing = Counter(label for _, label in lists[f"{domain}_testing.txt"])
        for name, size in inside.items():
            label = names.index(name)
            assert training[label] + testing[label] == size
            assert abs(training[label] - 0.7 * size) <= 0.5 or size < 2
            assert training[label] and (testing[label] or size == 1)


@given(data=st.data())
def test_own_lists_keep_groups_on_one_side_of_all_domains(data):
    sizes = data.draw(st.dictionaries(st.sampled_from("abc"), st.integers(1, 12), min_size=1))
    files = [
        f"{domain}/{name}/{data.draw(st.integers(0, 5))}-{i}.jpg"
        for domain in DOMAINS[:2]
        for name, size in sizes.items()
        for i in range(size)
    ]

    def group(file):
        return f"{file.split('/')[1]}{file.split('/')[2].split('-')[0]}"

    lists = own_lists(BENCHMARKS["office_home"], files, group)
    sides = {
        part: {group(path) for name, lines in lists.items() if part in name for path, _ in lines}
        for part in ("training", "testing")
    }
    assert not sides["training"] & sides["testing"]
    assert sorted(path for entries in lists.values() for path, _ in entries) == sorted(files)
    first = [group(file) for file in files if file.startswith(DOMAINS[0])]
    for name in sizes:
        if len({key for key in first if key.startswith(name)}) > 1:
            assert all(any(key.startswith(name) for key in side) for side in sides.values())
