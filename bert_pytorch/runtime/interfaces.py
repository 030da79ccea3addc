"""Over which network interface ranks of several machines talk.  No torch here.

gloo binds to the address that the machine's own name resolves to, on Debian the loopback; NCCL takes any that is not
`lo` or `docker*`, so that a container's bridge can win over the cluster's network.  Here it is the interface by which
the rendezvous is reached.
"""

import array
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"

_ELSEWHERE = "192.0.2.1"
"""An address for documentation (RFC 5737), which nobody has: its route is the default one."""
_NO_NETWORK = re.compile(r"lo\d*|br-[0-9a-f]{12}|(docker|veth|virbr|cni|flannel|cali|cilium|kube-|vmnet|dummy|ifb)\S*")
"""Names of the loopback and of bridges and cables inside a machine."""
_SIOCGIFCONF = 0x8912
_MOST_INTERFACES = 256


class Interface(NamedTuple):
    """A network interface that is up."""

    name: str
    addresses: tuple[str, ...]


class Network(NamedTuple):
    """What was decided."""

    variables: dict[str, str]
    """To be added to the environment before gloo and NCCL begin."""
    reason: str
    """For the log."""


def choose_network(
    environment: Mapping[str, str],
    interfaces: Sequence[Interface],
    peers: Sequence[str],
    source_of: Callable[[str], str | None],
    *,
    nccl: bool,
) -> Network:
    """Decide on the interfaces of gloo and NCCL; what is set already stays.

    NCCL is left alone where there is InfiniBand's interface, which it takes by itself before others (NVIDIA, NCCL user
    guide, "NCCL_SOCKET_IFNAME").

    Args:
        environment: variables of the process.
        interfaces: of `interfaces_here`.
        peers: names or addresses of machines to be reached, the rendezvous first.
        source_of: gives this machine's address on the route to a peer.
        nccl: whether NCCL is used besides gloo.
    """
    wanted = [GLOO, NCCL] if nccl else [GLOO]
    given = [f"{name}={environment[name]}" for name in wanted if environment.get(name)]
    missing = [name for name in wanted if not environment.get(name)]
    if not missing:
        return Network({}, f"{', '.join(given)}, as it was set")
    found = next((found for peer in peers if (found := _towards(peer, interfaces, source_of))), None)
    if found is None:
        return Network({}, "gloo and NCCL choose: no interface was found on a route to the other machines")
    name, peer = found
    if NCCL in missing and any(interface.name.startswith("ib") for interface in interfaces):
        missing.remove(NCCL)
    spelled = {GLOO: name, NCCL: f"={name}"}  # NCCL reads a name as a beginning of names unless = stands before it
    where = "the default route" if peer == _ELSEWHERE else f"the route to {peer}"
    told = "".join(f"; {each} as it was set" for each in given)
    return Network({each: spelled[each] for each in missing}, f"{name}, on {where}{told}")


def peers_to_reach(host: str, hosts: Sequence[str]) -> list[str]:
    """Return whom to look for, the best first: the rendezvous, which may be this machine, some others, anybody."""
    return [*dict.fromkeys(name for name in (host, *hosts[:2], *hosts[-1:]) if name), _ELSEWHERE]


def source_address(peer: str) -> str | None:
    """Return this machine's address on the route to a peer; nothing is sent."""
    with contextlib.suppress(OSError, UnicodeError):  # a name that is none
        for family, kind, protocol, _, address in socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # of a datagram socket: looks the route up
                return str(probe.getsockname()[0]).partition("%")[0]
    return None


def interfaces_here() -> tuple[Interface, ...]:
    """Return this machine's interfaces with their addresses of IPv4 (netdevice(7)) and IPv6 (/proc/net/if_inet6)."""
    addresses: dict[str, list[str]] = {}
    for name, address in (*_ipv4_addresses(), *parse_inet6(_text(Path("/proc/net/if_inet6")))):
        addresses.setdefault(name, []).append(address)
    return tuple(Interface(name, tuple(found)) for name, found in addresses.items())


def parse_inet6(text: str) -> list[tuple[str, str]]:
    """Return (interface, address) of each line of /proc/net/if_inet6."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 6 and re.fullmatch(r"[0-9a-f]{32}", words[0]):
            found.append((words[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))))
    return found


def _towards(
    peer: str, interfaces: Sequence[Interface], source_of: Callable[[str], str | None]
) -> tuple[str, str] | None:
    source = source_of(peer)
    for interface in interfaces:
        if source in interface.addresses and not _NO_NETWORK.fullmatch(interface.name):
            return interface.name, peer
    return None


def _ipv4_addresses() -> list[tuple[str, str]]:
    import fcntl  # not on every system that can read this file

    entry = struct.calcsize("16s24s")  # struct ifreq where pointers have 64 bits
    room = array.array("B", bytes(entry * _MOST_INTERFACES))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFCONF, struct.pack("iL", len(room), room.buffer_info()[0]))
        length = struct.unpack("iL", answer)[0]
        rows = [room[start : start + entry].tobytes() for start in range(0, length, entry)]
        return [(row[:16].partition(b"\0")[0].decode(), socket.inet_ntoa(row[20:24])) for row in rows]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
