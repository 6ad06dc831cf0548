"""Which addresses a download may connect to."""

from __future__ import annotations

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
