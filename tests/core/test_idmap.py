# SPDX-License-Identifier: MIT
"""Maps of ids, and who owns which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core.claims import ExtentClaims
from resolver.core.idmap import HOST_ID_FIRST, ID_LAST, Extent, IdMap, above_host_ids, to_host


def test_the_kernels_text_is_read() -> None:
    assert IdMap.parse("         0     100000      65536\n     65536    1000000          1\n") == IdMap(
        (Extent(0, 100000, 65536), Extent(65536, 1000000, 1)))
    assert not IdMap.parse("")


def test_the_hosts_own_map_stops_before_the_id_that_means_none() -> None:
    assert IdMap.parse("0 0 4294967295").extents == (Extent(0, 0, ID_LAST + 1),)
    assert IdMap.parse("0 0 4294967296").extents == (Extent(0, 0, ID_LAST + 1),)


@pytest.mark.parametrize("text", ["0 1", "a b c", "0 1 2 3", "-1 0 5", "0 100000 1\n" * 341])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        IdMap.parse(text)


def test_both_directions_over_three_extents() -> None:
    ids = IdMap.parse("0 100000 1000\n1000 500000 1\n2000 300000 10")
    assert [ids.to_host(n) for n in (0, 999, 1000, 1001, 2009, 2010)] == [100000, 100999, 500000, None, 300009, None]
    assert [ids.to_inside(n) for n in (100000, 100999, 500000, 101000, 300009)] == [0, 999, 1000, None, 2009]
    assert ids.shift() is None
    assert IdMap.parse("0 524288 65536").shift() == 524288


EXTENTS = st.builds(Extent, st.integers(0, 300), st.integers(HOST_ID_FIRST - 50, HOST_ID_FIRST + 250),
                    st.integers(1, 90))


@given(st.lists(EXTENTS, max_size=8))
def test_each_id_belongs_to_the_first_who_claimed_it(extents: list[Extent]) -> None:
    """Against the plain model: a dict from host id to owner and inside id."""
    claims, model = ExtentClaims(), dict[int, tuple[str, int]]()
    won: dict[str, tuple[Extent, ...]] = {}
    for number, extent in enumerate(extents):
        key = str(number)
        won[key], contested = claims.claim(key, [extent])
        mine = [h for h in range(extent.host_first, extent.host_end) if h >= HOST_ID_FIRST]
        assert contested == any(h in model for h in mine)
        for host in mine:
            model.setdefault(host, (key, extent.inside_first + host - extent.host_first))
        assert all(to_host(won[key], model[h][1]) == h for h in mine if model[h][0] == key)
    for host in range(HOST_ID_FIRST - 60, HOST_ID_FIRST + 400):
        assert claims.owner(host) == model.get(host)
    for key in list(won)[::2]:
        claims.release(won[key])
        model = {h: owner for h, owner in model.items() if owner[0] != key}
    for host in range(HOST_ID_FIRST - 60, HOST_ID_FIRST + 400):
        assert claims.owner(host) == model.get(host)


@given(EXTENTS)
def test_the_hosts_own_ids_are_never_a_machines(extent: Extent) -> None:
    for part in above_host_ids([extent]):
        assert part.host_first >= HOST_ID_FIRST
        assert part.inside_first - extent.inside_first == part.host_first - extent.host_first
        assert part.host_end == extent.host_end
