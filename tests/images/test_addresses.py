"""Which addresses a download may connect to."""

from __future__ import annotations

import ipaddress

import pytest

from metacurate.errors import UserError
from metacurate.images.addresses import is_allowed, parse_networks

PUBLIC = [
    "93.184.216.34", "8.8.8.8", "192.0.1.1", "168.63.129.17", "2606:2800:220:1::1", "2a00::1",
    "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
]  # fmt: skip
NOT_PUBLIC = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.18.0.1", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "fec0::1",
    "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    # Of IANA's special-purpose registries, ends of the blocks.
    "0.255.255.255", "100.127.255.255", "172.31.255.255", "192.0.0.0", "192.0.0.9", "192.0.0.255",
    "192.0.2.255", "198.19.255.255", "198.51.100.7", "203.0.113.7", "64:ff9b:1::1", "100::1",
    "100:0:0:1::1", "2001::1", "2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:30::1",
    "2001:1ff:ffff::1", "3fff::1", "3fff:fff:ffff::1", "5f00::1", "fdff::1", "febf::1", "4000::1",
    # Metadata services of clouds: Azure, Alibaba, Oracle, AWS, Google, OpenStack.
    "168.63.129.16", "100.100.100.200", "192.0.0.192", "169.254.170.2", "fd00:ec2::254",
    "fd20:ce::254", "fe80::a9fe:a9fe", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
    "2002:a83f:8110::1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:a00:1::1",
]  # fmt: skip


# IANA's IPv4 and IPv6 Special-Purpose Address Registries as of 2026-07-18: all blocks that are not
# marked "Globally Reachable: True" (those of 6to4 and NAT64 are judged by the address inside).
NOT_REACHABLE = [
    "0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.170/32",
    "192.0.0.171/32", "192.0.2.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32",
    "::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
    "2001:2::/48", "2001:10::/28", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7",
    "fe80::/10",
    # Of the registries of multicast, and of IPv6: what is no global unicast.
    "224.0.0.0/4", "ff00::/8", "fec0::/10", "4000::/3", "e000::/4",
]  # fmt: skip
# Those that are, outside of blocks that are not (in these they are refused as well).
REACHABLE = ["192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48"]


@pytest.mark.parametrize("block", NOT_REACHABLE)
def test_blocks_that_the_registries_call_unreachable_are_refused(block: str) -> None:
    network = ipaddress.ip_network(block)
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        assert not is_allowed(str(address))
        if address.version == 4:
            assert not is_allowed(f"::ffff:{address}")
            assert not is_allowed(str(ipaddress.IPv6Address("64:ff9b::") + int(address)))


@pytest.mark.parametrize("block", REACHABLE)
def test_blocks_that_the_registries_call_reachable_are_allowed(block: str) -> None:
    network = ipaddress.ip_network(block)
    assert is_allowed(str(network[0]))
    assert is_allowed(str(network[-1]))
    # And nothing is refused beside the blocks.
    assert is_allowed(str(network[0] - 1))
    assert is_allowed(str(network[-1] + 1))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_allowed(address)


def test_a_named_network_is_allowed_and_nothing_else() -> None:
    networks = parse_networks(["127.0.0.1/32", "fd00::/8"])
    assert is_allowed("127.0.0.1", networks)
    assert is_allowed("::ffff:127.0.0.1", networks)
    assert is_allowed("fd00::5", networks)
    assert not is_allowed("127.0.0.2", networks)
    assert not is_allowed("10.0.0.1", networks)


def test_a_wrong_network_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"10\.1\.0\.0/16"):
        parse_networks(["10.0.0.1/8"])
