"""Which network addresses a download may connect to: public ones, and networks named by the user.

Image URLs come from strangers. A URL, a redirect or a DNS answer may point into the network that
the download runs in (cloud metadata services, routers, databases), so the check is made on the
address of every single connection, whichever way it was written or looked up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from metacurate.errors import UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR_RELAY = ipaddress.IPv4Network("192.88.99.0/24")


def parse_networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks such as ``10.1.0.0/16`` or ``::1/128``; UserError for anything else."""
    try:
        return tuple(ipaddress.ip_network(name) for name in names)
    except ValueError as error:
        raise UserError(f"{error}; give a network such as 10.1.0.0/16") from None


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Whether a connection to a numeric address is allowed.

    ``networks`` are allowed as they are. Otherwise the address must be globally reachable by the
    IANA special-purpose registries; IPv6 addresses that carry an IPv4 address (mapped, 6to4,
    Teredo, NAT64) are judged by that one as well.
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
    if address.teredo is not None:
        inner.extend(address.teredo)
    if address in NAT64:
        # Its own prefix counts as reserved, yet it is how IPv6-only networks reach IPv4 hosts.
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *inner]


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False
    if isinstance(address, ipaddress.IPv4Address) and address in SIX_TO_FOUR_RELAY:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
