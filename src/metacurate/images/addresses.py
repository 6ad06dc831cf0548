"""Which network addresses a download may connect to: public ones, and networks named by the user.

Image URLs come from strangers. A URL, a redirect or a DNS answer may point into the network that
the download runs in (cloud metadata services, routers, databases), so the check is made on the
address of every single connection, whichever way it was written or looked up.

The table is the project's own, made from IANA's registries (IPv4 and IPv6 Special-Purpose Address
Space, multicast, the IPv6 address space; as of July 2026), so that the answer does not depend on
the version of Python. Of the registries' exceptions within a refused block (anycast services,
AS112) none is a place for pictures, so none is made where the block is refused as a whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from metacurate.errors import UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Only this part of IPv6 is for addresses on the internet.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

REFUSED = tuple(
    ipaddress.ip_network(name)
    for name in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; Alibaba Cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; metadata of most clouds at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; Oracle Cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, given up
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID, ...
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
        # Refused as a whole, for it lies outside of 2000::/3: loopback, 64:ff9b:1::/48, 100::/64,
        # 100:0:0:1::/64, 5f00::/16, fc00::/7 (AWS's metadata at fd00:ec2::254, Google's at
        # fd20:ce::254), fe80::/10, fec0::/10, ff00::/8.
        # Metadata services at addresses that look public:
        "168.63.129.16/32",  # Azure
    )
)


def parse_networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks such as ``10.1.0.0/16`` or ``::1/128``; UserError for anything else."""
    try:
        return tuple(ipaddress.ip_network(name) for name in names)
    except ValueError as error:
        raise UserError(f"{error}; give a network such as 10.1.0.0/16") from None


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Whether a connection to a numeric address is allowed.

    ``networks`` are allowed as they are. Otherwise the address must be in no network of the table;
    IPv6 addresses that carry an IPv4 address (mapped, 6to4,
    NAT64) are judged by that one as well.
    """
    forms = _forms(ipaddress.ip_address(address))
    if any(forms[0] in network for network in networks):
        return True
    return all(_is_public(form) for form in forms)


def _forms(address: Address) -> list[Address]:
    """The address that a connection reaches, then the others that it carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        # The very same host, only written differently: the outer form says nothing more.
        return [address.ipv4_mapped]
    inner: list[Address] = []
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address in NAT64:
        # Its own prefix counts as reserved, yet it is how IPv6-only networks reach IPv4 hosts.
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *inner]


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return not any(address in network for network in REFUSED)
