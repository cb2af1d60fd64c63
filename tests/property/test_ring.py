"""A ring of any hosts: who joins takes names from others, who leaves gives back what was its own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fsm import HashRing

hosts = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.-", min_size=1, max_size=20)
names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=1, max_size=50)


@settings(max_examples=30)  # a ring takes some ms to make
@given(there=st.lists(hosts, min_size=1, max_size=4, unique=True), names=names, data=st.data())
def test_only_the_names_of_a_host_that_leaves_move(there: list[str], names: list[str], data: st.DataObject) -> None:
    leaving = data.draw(st.sampled_from(there))
    left = [host for host in there if host != leaving]
    before, after = HashRing(there), HashRing(data.draw(st.permutations(left)))

    for name in names:
        whose = before.whois(name)
        assert whose in there
        if whose != leaving:
            assert after.whois(name) == whose
        else:
            assert after.whois(name) in (left or [None])
